"""Keras' backend and settings, and the cache folder, from the user's environment."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from tfprune.errors import TfpruneError
from tfprune.utils.console import quiet

BACKEND = "tensorflow"


def check_backend() -> None:
    """Refuses to work where Keras computes with something else than TensorFlow.

    Raises
    ------
    TfpruneError
        If it does, or cannot be imported.
    """
    advice = "set KERAS_BACKEND=tensorflow before Keras is imported"
    try:
        import keras

        backend = keras.backend.backend()
    except Exception as error:  # A backend that is not installed, settings that Keras refuses.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        backend_name = os.environ.get("KERAS_BACKEND", BACKEND)
        hint = f"; {advice}, it is {backend_name!r}" if backend_name != BACKEND else ""
        raise TfpruneError(f"Keras cannot be imported ({reason}){hint}") from error
    if backend != BACKEND:
        raise TfpruneError(f"Keras: expected the backend {BACKEND}, received {backend}; {advice}")


def start_keras() -> None:
    """Imports Keras for a command, with TensorFlow and Keras' own standard settings.

    What a user set for programs of their own (another backend, ``floatx`` or
    ``image_data_format`` in keras.json) means nothing for a command, and would change its models.

    Raises
    ------
    TfpruneError
        See :func:`check_backend`.
    """
    os.environ["KERAS_BACKEND"] = BACKEND
    # Caps of trainings, meant for debugging; and flax, which other backends use.
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED"):
        os.environ.pop(name, None)
    with quiet():
        check_backend()
        import keras

    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


def cache_folder() -> Path | None:
    """Where trained networks are kept: ``TFPRUNE_CACHE``, or the user's cache.

    Returns
    -------
    Path or None
        None if the user has no home, and so no cache.
    """
    if os.environ.get("TFPRUNE_CACHE"):
        return Path(os.environ["TFPRUNE_CACHE"])
    try:
        folder = user_cache_path("tfprune")
    except RuntimeError:
        return None
    # Older versions of platformdirs name a folder called ~.
    return folder if folder.is_absolute() else None
