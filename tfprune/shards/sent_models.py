"""Models that go to workers and back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras

from tfprune.errors import TfpruneError
from tfprune.graph.batches import states_of
from tfprune.graph.trace import Trace
from tfprune.loading.model_files import load, reason
from tfprune.loading.own_code import imported


def check_sendable(model: keras.Model, traced: Trace) -> None:
    """Raises :class:`TfpruneError` if workers would not compute what this process does."""
    if traced.registered:
        raise TfpruneError(
            f"workers: layer {traced.registered[0].layer} has a rule that is registered in "
            "this process alone; measure without workers"
        )
    if states_of(model):
        raise TfpruneError(
            "workers: the model keeps a state from batch to batch, so samples have to be read "
            "in their order; measure without workers"
        )


def model_content(model: keras.Model) -> bytes:
    """A model as the bytes of a ``.keras`` file."""
    with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def sent_model(content: bytes, imports: tuple[str, ...]) -> keras.Model:
    """The model of :func:`model_content`.

    Parameters
    ----------
    content : bytes
    imports : tuple of str
        Python files that are run first.

    Raises
    ------
    TfpruneError
        If it cannot be loaded here.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(content)
            # It was checked where the command runs, which this process does the work of.
            return load(path, True, False, None, imported(imports))
    except Exception as error:
        raise TfpruneError(f"a worker cannot load the model ({reason(error)})") from None
