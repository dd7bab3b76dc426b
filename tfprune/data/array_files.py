"""Reads samples from numpy's files: ``.npz``, with labels or without, and ``.npy``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfprune.data.parts import Parts, to_raw
from tfprune.data.splits import Raw, Split
from tfprune.errors import TfpruneError
from tfprune.utils.archives import check_archive
from tfprune.utils.arrays import Array
from tfprune.utils.digests import file_digest

# What arrays of samples are called, alone or before _NAME; x alone is split by seed.
STEMS = ("x_train", "x_test", "x")


def read_npz(path: Path, seed: int, name: str | None = None, inputs: Sequence[str] = ()) -> Raw:
    """Reads ``x_train y_train x_test y_test``, or ``x y``, split by seed; labels are optional.

    Parameters
    ----------
    path : Path
    seed : int
    name : str, optional
        The file's own by default.
    inputs : sequence of str
        The names of the model's inputs; several have an array each, ``x_train_NAME`` and so on.

    Raises
    ------
    TfpruneError
        If the file cannot be read, is no ``.npz``, or has other arrays.
    """
    parts, notes = npz_parts(path, inputs)
    return to_raw(path, parts, seed, name or path.stem, file_digest(path), notes=notes)


def npz_parts(path: Path, inputs: Sequence[str] = ()) -> tuple[Parts, list[str]]:
    """The parts that an ``.npz`` holds, and what is to be said of it; see :func:`read_npz`."""
    known = {"y_train", "y_test", "y", *STEMS}
    known |= {f"{stem}_{name}" for stem in STEMS for name in inputs}
    arrays, keys = _loaded(path, known)
    parts, used = _parts(path, arrays, keys, inputs)
    unused = [key for key in keys if key not in used]
    return parts, [f"arrays not used: {', '.join(unused)}"] if unused else []


def npy_parts(path: Path) -> tuple[Parts, list[str]]:
    """The samples of a ``.npy``, which has no labels.

    Raises
    ------
    TfpruneError
        If the file cannot be read or holds anything but numbers.
    """
    arrays, _ = _loaded(path, {"x"}, ".npy")
    return {"x": Split(arrays["x"])}, []


def _loaded(
    path: Path, known: set[str], suffix: str = ".npz"
) -> tuple[dict[str, Array], list[str]]:
    """The arrays of these names, and all names."""
    try:
        check_archive(path)
        # Opened here: np.load leaves the file open when it fails.
        with path.open("rb") as file, contextlib.ExitStack() as stack:
            archive = np.load(file, allow_pickle=False)
            if hasattr(archive, "files"):
                stack.enter_context(archive)
            if hasattr(archive, "files") != (suffix == ".npz"):
                one = "a single array, not an archive"
                raise ValueError(one if suffix == ".npz" else "an archive, not a single array")
            if suffix == ".npy":
                return {"x": archive}, ["x"]
            return {key: archive[key] for key in archive.files if key in known}, archive.files
    except TfpruneError:
        raise
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None
    except Exception as error:  # Truncated or foreign files fail in zipfile, zlib or numpy.
        message = str(error).splitlines()[0] if str(error) else repr(error)
        # Of any foreign file numpy says that it is pickled, and how to load it.
        why = "" if "allow_pickle" in message else f" ({message})"
        raise TfpruneError(
            f"{path}: expected a readable {suffix} file without pickles, received something "
            f"else{why}"
        ) from None


def _parts(
    path: Path, arrays: dict[str, Array], all_keys: Sequence[str], inputs: Sequence[str]
) -> tuple[dict[str, Split], set[str]]:
    """The parts that a file holds by what they are called: x_train and x_test, or one of all.

    And the names of the arrays that they are made of.
    """
    plain = not inputs or (len(inputs) == 1 and any(stem in arrays for stem in STEMS))
    ends = [""] if plain else [f"_{name}" for name in inputs]
    came = {key for key in all_keys if key == "x" or key.startswith("x_")}
    for stems in (("x_train", "x_test"), ("x",), ("x_train",)):
        keys = {stem + end for stem in stems for end in ends}
        if keys == came or (plain and keys < came):
            splits, used = {}, keys | {"y" + stem[1:] for stem in stems}
            for stem in stems:
                each = [arrays[stem + end] for end in ends]
                x = dict(zip(inputs, each, strict=True)) if len(each) > 1 else each[0]
                splits[stem] = Split(x, arrays.get("y" + stem[1:]))
            return splits, used
    expected = "x_train, y_train, x_test, y_test (or x, y)"
    if len(inputs) > 1:
        expected = (
            f"x_train_NAME and x_test_NAME (or x_NAME) for each input NAME of the model "
            f"({', '.join(inputs)}) and no other"
        )
    raise TfpruneError(
        f"{path}: expected arrays {expected}, received {', '.join(all_keys) or 'none'}"
    )
