"""Samples in files: what they hold, and several files as one array.

Arrays are in ``.npy`` and ``.npz`` files, tables in ``.csv`` and ``.parquet``, records in
``.tfrecord`` files.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.sample_files import columns, tfrecords
from tfprune.sample_files.tfrecords import Shape
from tfprune.utils.archives import check_archive, header
from tfprune.utils.arrays import Array
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import StreamedArray, concatenated

# A column of labels, which is left out where nobody can say what it is called.
LABEL = "label"


@dataclass(frozen=True)
class Naming:
    """Where samples are in tables and records.

    Attributes
    ----------
    label : str or None
        The column or feature of labels.
    feature : str or None
        The feature of records that holds the sample.
    shape : tuple of int or None
        Of a sample as the model takes it, to which pictures in records are brought.
    """

    label: str | None = None
    feature: str | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Contents:
    """What several files hold, a row of ``shapes`` each.

    Attributes
    ----------
    part : str
        What the samples are called in each: ``x`` or ``x_train``.
    shapes : tuple of tuple of int
        (samples, ...) of each file.
    dtype : numpy dtype
        Of all of them.
    naming : Naming
    """

    part: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]
    naming: Naming


def is_table(path: str | Path) -> bool:
    """Whether a file holds a table or records, by its name."""
    return Path(path).suffix.lower() in columns.SUFFIXES or tfrecords.is_tfrecord(Path(path))


def table_rows(path: Path, naming: Naming, stream: bool = False) -> Array:
    """The samples of a table or of records; in a scratch file where they are large.

    Parameters
    ----------
    path : Path
    naming : Naming
    stream : bool
        Whether they are in a scratch file anyway.

    Raises
    ------
    TfpruneError
        If the file cannot be read.
    """
    if tfrecords.is_tfrecord(path):
        stream |= tfrecords.held_bytes(path, naming.feature, naming.shape) > most_held()
        names = (naming.feature, naming.label, naming.shape)
        return tfrecords.read_records([path], *names, stream).x
    stream |= columns.held_bytes(path) > most_held()
    return columns.read_tables([path], naming.label, stream).x


def shape_of_numbers(count: int, wanted: Shape) -> tuple[int, ...] | None:
    """The shape in which a model takes so many numbers; None if they do not fit.

    Examples
    --------
    >>> shape_of_numbers(784, (28, 28, 1)), shape_of_numbers(12, (None, 3))
    ((28, 28, 1), (4, 3))
    >>> shape_of_numbers(784, (32, 32, 3))
    """
    known = math.prod(length for length in wanted if length is not None)
    if wanted.count(None) > 1 or count % known or (None not in wanted and count != known):
        return None
    return tuple(count // known if length is None else length for length in wanted)


def array_shape(path: Path) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
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
            f"{path}: expected a readable .npy, .npz, .csv, .parquet or .tfrecord file "
            f"({error or type(error).__name__})"
        ) from None


def contents(paths: Sequence[str], shape: Shape | None = None) -> Contents:
    """What the samples of several files are.

    Parameters
    ----------
    paths : sequence of str
    shape : tuple of int or None, optional
        Of a sample as the model takes it.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or they hold samples of several shapes or names.
    """
    if any(map(is_table, paths)):
        return _tables([Path(path) for path in paths], shape)
    found = [array_shape(Path(path)) for path in paths]
    if len({(part, shape[1:]) for part, shape, _ in found}) > 1:
        raise TfpruneError(
            "data: expected files that hold the same array, of the same shape, received "
            + ", ".join(f"{part} of {shape}" for part, shape, _ in found[:5])
        )
    dtype = np.result_type(*(kind for *_, kind in found))
    return Contents(found[0][0], tuple(shape for _, shape, _ in found), dtype, Naming())


def _tables(paths: Sequence[Path], shape: Shape | None) -> Contents:
    """As :func:`contents`, of tables, or of records."""
    kinds = sorted({_kind(path) for path in paths})
    if len(kinds) > 1:
        raise TfpruneError(f"data: expected files of one kind, received {', '.join(kinds)}")
    if kinds[0] == tfrecords.SUFFIX:
        # Where a model leaves sizes open, they are those of the first record of all.
        first, dtype = tfrecords.contents(paths[0], None, shape)
        naming = Naming(shape=first[1:] if len(first) > 2 else None)
        shapes = [first, *(tfrecords.contents(path, None, naming.shape)[0] for path in paths[1:])]
    else:
        found = [columns.contents(path, LABEL) for path in paths]
        for path, (names, *_) in zip(paths, found, strict=True):
            if names != found[0][0]:
                raise TfpruneError(
                    f"{path}: expected the columns of {paths[0]} ({columns.listed(found[0][0])}), "
                    f"received {columns.listed(names)}"
                )
        shapes = [(rows, len(names) - labelled) for names, rows, _, labelled in found]
        dtype = np.result_type(*(kind for *_, kind, _ in found))
        if dtype == np.float64:  # Of whole numbers in one file and others in another.
            dtype = np.dtype(np.float32)
        naming = Naming(LABEL if found[0][3] else None)
    if len({one[1:] for one in shapes}) > 1:
        raise TfpruneError(
            f"data: expected files of samples of one shape, received {shapes[0][1:]} and "
            f"{next(one[1:] for one in shapes if one[1:] != shapes[0][1:])}"
        )
    sample = shapes[0][1:]
    if shape is not None and len(sample) == 1:
        fitting = shape_of_numbers(sample[0], shape)
        if fitting is None and kinds[0] != tfrecords.SUFFIX:
            raise TfpruneError(
                f"{paths[0]}: expected numbers for samples of shape {shape}, received "
                f"{sample[0]} columns ({columns.listed(found[0][0])}); one of labels is left out "
                f"if it is called {LABEL}"
            )
        sample = fitting or sample
    return Contents("x", tuple((rows, *sample) for rows, *_ in shapes), dtype, naming)


def _kind(path: Path) -> str:
    return tfrecords.SUFFIX if tfrecords.is_tfrecord(path) else path.suffix.lower()


def checked_rows(path: str, rows: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Samples of a file as they are among those of all files.

    Raises
    ------
    TfpruneError
        If they are fractions where those of the first file are whole numbers.
    """
    made = np.asarray(rows)
    if not np.can_cast(made.dtype, dtype, "same_kind"):
        raise TfpruneError(f"{path}: expected {dtype}, as in the first file, received {made.dtype}")
    return made.astype(dtype, copy=False).reshape(len(made), *shape)


def rows_of_files(paths: Sequence[str], shape: Shape | None = None) -> Any:
    """The samples of several files behind each other.

    All files are held once they were read if together they are small enough. Of larger ones arrays
    are held one file at a time, and what is in tables and records goes to scratch files.

    Parameters and errors are those of :func:`contents`; when they are read, it is an error if a
    file is not there any more.
    """
    about = contents(paths, shape)
    each = math.prod(about.shapes[0][1:]) * max(about.dtype.itemsize, 4)
    small = each * sum(shape[0] for shape in about.shapes) <= most_held()
    held: dict[str, tuple[tuple[int, int], Array]] = {}

    def array(path: str) -> Array:
        try:
            found = Path(path).stat()
            state = found.st_mtime_ns, found.st_size
            if not small and not is_table(path):
                return _array(path, about.part, about.naming, state)
            if held.get(path, (None,))[0] != state:
                held[path] = state, _read(path, about.part, about.naming, not small)
            return held[path][1]
        except OSError as error:
            raise TfpruneError(f"{path}: cannot be read ({error.strerror})") from None

    def rows(path: str, shape: tuple[int, ...]) -> StreamedArray:
        def read(index: npt.NDArray[np.intp]) -> Array:
            return checked_rows(path, array(path)[index], shape[1:], about.dtype)

        return StreamedArray(read, shape, about.dtype)

    return concatenated(
        [rows(path, shape) for path, shape in zip(paths, about.shapes, strict=True)]
    )


def _read(path: str, part: str, naming: Naming, stream: bool) -> Array:
    """The samples of a file; those of a ``.npy`` are left in it."""
    if is_table(path):
        return table_rows(Path(path), naming, stream)
    if Path(path).suffix.lower() == ".npy":
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[part])


@lru_cache(maxsize=1)
def _array(path: str, part: str, naming: Naming, state: tuple[int, int]) -> Array:
    """As :func:`_read`, of the last file that was asked for in this state."""
    return _read(path, part, naming, False)


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
