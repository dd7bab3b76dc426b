"""Loads Keras' own data sets by their names, from Keras' cache or by its download."""

from __future__ import annotations

import contextlib
import importlib
import io
import socket
import threading
from pathlib import Path

import numpy as np

from tfprune.data.parts import TEST, TRAIN, to_raw
from tfprune.data.splits import Raw, Split
from tfprune.errors import TfpruneError
from tfprune.utils.digests import text_digest

# Where Keras looks for each in its cache.
KERAS_DATA = {
    "cifar10": "cifar-10-batches-py-target/cifar-10-batches-py",
    "cifar100": "cifar-100-python-target/cifar-100-python",
    "fashion_mnist": "fashion-mnist/train-images-idx3-ubyte.gz (and the three other .gz)",
}


def load_keras(name: str, seed: int, home: Path, patience: float) -> Raw:
    """Loads one of :data:`KERAS_DATA`.

    Parameters
    ----------
    name : str
    seed : int
    home : Path
        Keras' folder.
    patience : float
        Seconds without an answer after which a download is given up.

    Raises
    ------
    TfpruneError
        If it is neither in the cache nor can be downloaded; says where it would have to lie.
    """
    why = ["no answer"]
    made: list[tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = []

    def fetch() -> None:
        try:
            made.append(importlib.import_module(f"keras.datasets.{name}").load_data())
        except Exception as error:  # Networks, archives and digests fail in many ways.
            why[0] = " ".join(str(error).split())[:200] or type(error).__name__

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(patience)
    folder = home / "datasets"
    try:
        # Keras' own progress would stand among the lines of a command.
        with contextlib.redirect_stdout(io.StringIO()):
            thread = threading.Thread(target=fetch, daemon=True)
            thread.start()
            size = -1
            while thread.is_alive():
                thread.join(patience)
                now = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
                if now <= size:
                    break
                size = now
            # What lies there takes a while to be read, with nothing written.
            if (folder / KERAS_DATA[name].split(" ")[0]).exists():
                thread.join()
    finally:
        socket.setdefaulttimeout(before)
    if not made:
        raise TfpruneError(
            f"--dataset {name}: not on this machine and not to be downloaded ({why[0]}); Keras "
            f"looks for it at {folder / KERAS_DATA[name]}"
        )
    parts = {key: Split(x, y) for key, (x, y) in zip((TRAIN, TEST), made[0], strict=True)}
    content = b"".join(array.tobytes() for pair in made[0] for array in pair)
    return to_raw(name, parts, seed, name, text_digest(content))
