"""Loads data sets, offline first: MNIST, scikit-learn's digits, a user's own files."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfprune.data.array_files import read_npz
from tfprune.data.files import Reading, read
from tfprune.data.keras_data_sets import KERAS_DATA, load_keras
from tfprune.data.parts import TEST_SHARE
from tfprune.data.scales import Shape
from tfprune.data.splits import Raw, Split, split
from tfprune.errors import TfpruneError
from tfprune.utils.digests import text_digest

# Seconds without a byte after which a download is given up.
PATIENCE = 5.0


def load(
    dataset: str,
    data: str | None,
    seed: int,
    say: Callable[[str], None],
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    shape: Shape | None = None,
    label: str | None = None,
    feature: str | None = None,
) -> Raw:
    """Finds a data set.

    Parameters
    ----------
    dataset : {"auto", "mnist", "digits"}, or one of KERAS_DATA
    data : str or None
        A user's own, see :mod:`tfprune.data.files`; an ``.npz`` is first choice of ``mnist``.
    seed : int
        Splits data that comes unsplit.
    say : callable
        Is told, in a line, what the user should know at once.
    inputs : sequence of str
        The names of the model's inputs, for a user's ``.npz``; none if the model takes any data.
    outputs : sequence of str
        The names of the model's outputs, for labels of several in an ``.npz``.
    shape : tuple of int or None, optional
        Of a sample as the model's only input takes it.
    label, feature : str, optional
        See :class:`tfprune.data.files.Reading`.

    Raises
    ------
    TfpruneError
        If the data cannot be had or read.
    """
    if dataset == "digits" or dataset in KERAS_DATA:
        known = dataset in KERAS_DATA
        return load_keras(dataset, seed, _keras_home(), PATIENCE) if known else digits(seed)
    if data is not None:
        if dataset != "mnist":
            return read(data, Reading(seed, tuple(inputs), shape, tuple(outputs), label, feature))
        raw = read_npz(Path(data), seed, "mnist")
        shape = raw.train.arrays[0].shape[1:]
        if shape not in ((28, 28), (28, 28, 1)):
            raise TfpruneError(
                f"--data {data}: expected MNIST's 28x28 images, received {shape}; "
                "use --dataset auto for data of your own"
            )
        return raw
    if dataset == "mnist":
        say = _nothing  # What fails says in one line where it looked.
    looked = []
    for where, path in _mnist_files():
        reason = "not set" if path == Path() else "no such file"
        if path.is_file():
            try:
                return read_npz(path, seed, "mnist")
            except TfpruneError as error:
                reason = f"no MNIST: {error}"
        if reason != "not set" and (path.is_file() or where != "Keras' cache"):
            say(f"{where}: {reason} ({path})")
        looked.append(f"{where} ({reason})")
    say("MNIST is not on this machine; trying Keras' download")
    fetched = _download()
    if fetched is not None:
        return read_npz(fetched, seed, "mnist")
    looked.append("Keras' download (no answer)")
    if dataset == "mnist":
        raise TfpruneError(
            f"MNIST was not found; looked at --data (not given), {', '.join(looked)}; "
            "give --data FILE.npz, or use --dataset digits"
        )
    say("MNIST could not be had: FALLING BACK to scikit-learn's 1,797 handwritten digits")
    return replace(digits(seed), fallback_from="mnist")


def _nothing(line: str) -> None:
    pass


def _mnist_files() -> Iterator[tuple[str, Path]]:
    yield "TFPRUNE_MNIST", Path(os.environ.get("TFPRUNE_MNIST", ""))
    yield "Keras' cache", _keras_home() / "datasets" / "mnist.npz"


def _keras_home() -> Path:
    # Without a home it leads nowhere, and is no error.
    return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))  # noqa: PTH111


def _download() -> Path | None:
    """Lets Keras download MNIST, and gives up when nothing arrives for a while."""
    import socket

    import keras

    done: list[bool] = []

    def fetch() -> None:
        # Whatever goes wrong with a download means the same here: no data.
        with contextlib.suppress(Exception):
            keras.datasets.mnist.load_data()
            done.append(True)

    target = _keras_home() / "datasets"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        # Keras' own progress would stand among the lines of a command.
        with contextlib.redirect_stdout(io.StringIO()):
            thread = threading.Thread(target=fetch, daemon=True)
            thread.start()
            size, since = -1, time.monotonic()
            while thread.is_alive() and time.monotonic() - since < PATIENCE:
                thread.join(0.1)
                now = sum(f.stat().st_size for f in target.glob("mnist.npz*"))
                if now > max(size, 0):
                    size, since = now, time.monotonic()
    finally:
        socket.setdefaulttimeout(before)
    path = target / "mnist.npz"
    return path if done and path.is_file() else None


def digits(seed: int) -> Raw:
    """scikit-learn's 1,797 handwritten digits, brought from 8x8 to 28x28x1."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Bilinear to 20x20 in a margin of 4, as MNIST's digits lie in their images.
    images = zoom(bunch.images / 16.0, (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    x = np.round(255 * images.clip(0, 1)).astype(np.uint8)[..., None]
    y = bunch.target.astype(np.uint8)
    train, test = split(Split(x, y), TEST_SHARE, seed)
    return Raw("digits", text_digest(x.tobytes() + y.tobytes()), train, test)
