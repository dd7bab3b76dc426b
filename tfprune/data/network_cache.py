"""A cache of trained networks' weights, in a folder of the user's.

Nothing is built from the cache: the caller has the network, and a file brings arrays for it. A file
counts only beside the digest that was written after it, in a folder and by an owner that others
cannot write as. Who can write there as the user can change what a network computes, not run code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tfprune.utils.archives import check_archive
from tfprune.utils.arrays import Array
from tfprune.utils.digests import file_digest
from tfprune.utils.files import remove_stale_partials, whole_file

Say = Callable[[str], None]


def restore(model: keras.Model, path: Path, say: Say) -> bool:
    """Gives a network its weights from a file of :func:`store`; says so where it is not trusted.

    Parameters
    ----------
    model : keras.Model
        Unchanged unless all weights are there, of its shapes and finite.
    path : Path
        An ``.npz`` file.
    say : callable

    Returns
    -------
    bool
        Whether it did.
    """
    digest = _digest_path(path)
    try:
        if not path.is_file() or not digest.is_file():
            return False
        for place in (path.parent, path, digest):
            if (why := _untrusted(place)) is not None:
                say(f"{place}: {why}; it is not used")
                return False
        expected = digest.read_text(encoding="ascii").strip()
        weights = _weights(path, expected, len(model.weights))
    except Exception:  # What is damaged, or cannot be read, costs a training, no more.
        return False
    shapes = [tuple(variable.shape) for variable in model.weights]
    if [weight.shape for weight in weights] != shapes or not all(map(_finite, weights)):
        return False
    model.set_weights(weights)
    return True


def _weights(path: Path, digest: str, count: int) -> list[Array]:
    """The arrays in a file of this digest; none if there are more or fewer."""
    check_archive(path)
    if file_digest(path) != digest:
        return []
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if len(archive.files) != count:
            return []
        return [archive[str(place)] for place in range(count)]


def _finite(weight: Array) -> bool:
    return bool(np.isfinite(weight).all())


def store(model: keras.Model, path: Path, say: Say) -> Path | None:
    """Writes a network's weights and their digest; None, and a word of why, where it cannot."""
    try:
        # For the user alone, whatever the mask of new files says.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (why := _untrusted(path.parent)) is not None:
            say(f"{path.parent}: {why}; the trained network is not kept there")
            return None
        remove_stale_partials(path.parent)
        weights = {str(place): weight for place, weight in enumerate(model.get_weights())}
        with whole_file(path) as partial:
            np.savez(partial, **weights)
            digest = file_digest(partial)
        # After the file: one that is there alone does not count.
        with whole_file(_digest_path(path)) as partial:
            partial.write_text(digest + "\n", encoding="ascii")
    except Exception as error:  # Of a full disk several kinds of errors tell.
        line = " ".join(str(error).split()) or type(error).__name__
        say(f"the trained network could not be cached: {line}")
        return None
    return path


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _untrusted(path: Path) -> str | None:
    """Why a file or folder may belong to another user; None if it does not."""
    if not hasattr(os, "geteuid"):
        return None  # Windows keeps a user's folders from others by default.
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    return None
