"""Checks ``.npy`` and ``.npz`` files against what they declare, before unpacking them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfprune.errors import TfpruneError

# Bytes that an archive may unpack to whatever its own size, and how many times its own size else:
# masks and other pictures that are nearly empty pack a hundred times smaller.
ALWAYS, RATIO = 2**30, 200
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_archive(path: Path) -> None:
    """Refuses a file whose arrays are larger than what is there, or unpack to far too much.

    Sizes are those that the archive declares, which zipfile holds what it unpacks to.

    Raises
    ------
    TfpruneError
        If it is no regular file (a pipe would be waited for).
    ValueError, zipfile.BadZipFile
        If it is refused, or is neither.
    """
    if path.exists() and not path.is_file():
        raise TfpruneError(f"{path}: expected a readable .npz file, received a folder or a pipe")
    size = path.stat().st_size
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            _check_header(file, size)
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(ALWAYS, RATIO * size):
                raise ValueError(f"{size:,} bytes that unpack to {unpacked:,}")
            for member in members:
                with archive.open(member) as content:
                    _check_header(content, member.file_size)


def _check_header(file: IO[bytes], size: int) -> None:
    """Numpy makes room for the shape that a header declares before it reads."""
    declared = header(file)
    if declared is None:
        return  # Numpy itself says what is wrong with a later version.
    shape, _, kind = declared
    if any(length < 0 for length in shape) or math.prod(shape) * max(kind.itemsize, 1) > size:
        raise ValueError(f"an array that says it has shape {shape}, in {size:,} bytes")


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """The shape, whether in the order of Fortran, and the dtype that a ``.npy`` begins with.

    The file is then read up to its values. None for versions that hold no plain numbers.

    Raises
    ------
    ValueError
        If it is no ``.npy``.
    """
    reader: Any = HEADERS.get(np.lib.format.read_magic(file))
    return None if reader is None else reader(file)
