"""Samples in ``.npy`` and ``.npz`` files: what they hold, and several files as one array."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.utils.archives import check_archive, header
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import StreamedArray, concatenated


def sample_shape(path: Path) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    """What the samples of a ``.npy`` or ``.npz`` are called there, their shape and dtype.

    Nothing but headers is read. Of an ``.npz`` it is ``x``, or ``x_train`` where there is no ``x``.

    Raises
    ------
    TfpruneError
        If the file cannot be read, or has no such array.
    """
    try:
        check_archive(path)
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                shape, _, kind = plain_header(file)
            return "x", shape, kind
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            stem = next((one for one in ("x", "x_train") if one in names), None)
            if stem is None:
                raise TfpruneError(
                    f"{path}: expected an array x or x_train, received {', '.join(sorted(names))}"
                )
            with archive.open(f"{stem}.npy") as content:
                shape, _, kind = plain_header(content)
            return stem, shape, kind
    except TfpruneError:
        raise
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None
    except Exception as error:  # Truncated or foreign files fail in zipfile or numpy.
        raise TfpruneError(
            f"{path}: expected a readable .npy or .npz file ({error or type(error).__name__})"
        ) from None


def alike(paths: Sequence[str]) -> tuple[str, tuple[tuple[int, ...], ...], np.dtype[Any]]:
    """What the samples of several files are called there, the shape in each, and the dtype of all.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or they hold samples of several shapes or names.
    """
    found = [sample_shape(Path(path)) for path in paths]
    if len({(part, shape[1:]) for part, shape, _ in found}) > 1:
        raise TfpruneError(
            "data: expected files that hold the same array, of the same shape, received "
            + ", ".join(f"{part} of {shape}" for part, shape, _ in found[:5])
        )
    dtype = np.result_type(*(kind for *_, kind in found))
    return found[0][0], tuple(shape for _, shape, _ in found), dtype


def rows_of_files(paths: Sequence[str]) -> Any:
    """The samples of several files behind each other, of which one file at a time is held.

    Raises
    ------
    TfpruneError
        See :func:`alike`; when they are read, if a file is not there any more.
    """
    part, shapes, dtype = alike(paths)

    def rows(path: str, shape: tuple[int, ...]) -> StreamedArray:
        def read(index: npt.NDArray[np.intp]) -> Array:
            try:
                state = Path(path).stat()
                array = _array(path, part, (state.st_mtime_ns, state.st_size))
            except OSError as error:
                raise TfpruneError(f"{path}: cannot be read ({error.strerror})") from None
            return np.asarray(array[index]).astype(dtype, copy=False)

        return StreamedArray(read, shape, dtype)

    return concatenated([rows(path, shape) for path, shape in zip(paths, shapes, strict=True)])


@lru_cache(maxsize=1)
def _array(path: str, part: str, state: tuple[int, int]) -> Array:
    """The samples of a file in this state; those of a ``.npy`` are left in it."""
    if Path(path).suffix.lower() == ".npy":
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[part])


def plain_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype of the ``.npy`` content at a file's place.

    Raises
    ------
    ValueError
        If it is no array of numbers with a row for each sample.
    """
    declared = header(file)
    if declared is None or declared[2].hasobject or not declared[0]:
        raise ValueError("no array of numbers, one row a sample")
    return declared
