"""Samples that stay in their files, and are read when they are asked for."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array

Index = npt.NDArray[np.intp]
# Bytes that are read at once where all samples are looked at.
AT_ONCE = 2**26
# Of a file: rows that are no farther apart than so many bytes are read in one go, of so many bytes.
GAP, SPAN = 2**12, 2**20
# Where files are unpacked, if TMPDIR says nothing: what is in /tmp may be held in memory.
LARGE_FILES = Path("/var/tmp")


class StreamedArray:
    """An array of shape (samples, ...) of which no more is in memory than is asked for.

    A slice of it, or its samples at several numbers, is one as well, and nothing is read;
    ``np.asarray`` reads its samples, a single number reads that sample.

    Parameters
    ----------
    read : callable
        Numbers of samples -> array of these samples, in this order.
    shape : tuple of int
    dtype : numpy dtype
        Of what is read.
    index : array of int, optional
        Which of the numbers that ``read`` knows are the samples; by default all, in order.

    Examples
    --------
    >>> squares = StreamedArray(lambda index: index**2, (1000,), np.dtype(int))
    >>> squares[3], squares[10:30:10].shape, np.asarray(squares[::-300])
    (9, (2,), array([998001, 488601, 159201,   9801]))
    """

    def __init__(
        self,
        read: Callable[[Index], Array],
        shape: tuple[int, ...],
        dtype: Any,
        index: Index | None = None,
    ) -> None:
        self._read, self._index = read, index
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples, were they in memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, (int, np.integer)):
            return np.asarray(self[[range(len(self))[key]]])[0]
        known = np.arange(len(self)) if self._index is None else self._index
        index: Index = known[key if isinstance(key, slice) else np.asarray(key)]
        return StreamedArray(self._read, (len(index), *self.shape[1:]), self.dtype, index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("samples are read: there is nothing to give without a copy")
        index = np.arange(len(self)) if self._index is None else self._index
        made = self._read(index) if len(index) else np.zeros(self.shape, self.dtype)
        return made if dtype is None else made.astype(dtype, copy=False)

    def mapped(self, change: Callable[[Array], Array]) -> StreamedArray:
        """The same samples as a function changes them, sample by sample, when they are read."""
        one = change(np.asarray(self[:1]))

        def read(index: Index) -> Array:
            return change(self._read(index))

        return StreamedArray(read, (len(self), *one.shape[1:]), one.dtype, self._index)

    def chunks(self) -> Iterator[Array]:
        """All samples, a part at a time."""
        return (part for (part,) in parallel_pieces([self]))

    @cached_property
    def _edges(self) -> tuple[Any, Any]:
        edges = [(part.min(), part.max()) for part in self.chunks()]
        low, high = np.min([one for one, _ in edges]), np.max([one for _, one in edges])
        return low, high

    def min(self) -> Any:
        """The smallest value, NaN if one is; all samples are read once for it and :meth:`max`."""
        return self._edges[0]

    def max(self) -> Any:
        """The largest value, NaN if one is."""
        return self._edges[1]

    def mean(self) -> float:
        """The mean of all values."""
        return float(sum(part.sum(dtype=np.float64) for part in self.chunks()) / self.size)


def pieces(data: Any) -> Iterator[Array]:
    """All samples, a part at a time: those in memory in one; see :meth:`StreamedArray.chunks`."""
    return (part for (part,) in parallel_pieces([data]))


def parallel_pieces(x: Sequence[Any], multiple: int = 1) -> Iterator[list[Array]]:
    """Samples of several inputs, a part at a time: all at once where they are in memory.

    Parameters
    ----------
    x : sequence of arrays of shape (samples, ...)
    multiple : int
        Of which the number of samples of a part is one; of the last one it need not be.
    """
    if not any(isinstance(data, StreamedArray) for data in x):
        yield list(x)
        return
    each = max(sum(data.nbytes for data in x) // max(len(x[0]), 1), 1)
    step = max(AT_ONCE // each // multiple, 1) * multiple
    for start in range(0, len(x[0]), step):
        yield [np.asarray(data[start : start + step]) for data in x]


def as_rows(data: Any) -> Any:
    """An array; samples that are streamed stay so."""
    return data if isinstance(data, StreamedArray) else np.asanyarray(data)


def mapped(change: Callable[[Array], Array], data: Any) -> Any:
    """Samples as a function changes them: now, or where they are streamed when they are read."""
    return data.mapped(change) if isinstance(data, StreamedArray) else change(data)


def concatenated(arrays: Sequence[Any]) -> Any:
    """The samples of several arrays behind each other; streamed if one of them is.

    Examples
    --------
    >>> streamed = StreamedArray(lambda index: index, (3,), np.dtype(int))
    >>> np.asarray(concatenated([streamed, np.array([7, 8])])[[4, 1]])
    array([8, 1])

    Raises
    ------
    ValueError
        If their samples are of several shapes.
    """
    if len(arrays) == 1 or not any(isinstance(one, StreamedArray) for one in arrays):
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    shapes = {one.shape[1:] for one in arrays}
    if len(shapes) > 1:
        raise ValueError(f"samples of shapes {shapes}")
    kinds = [one.dtype for one in arrays]
    floats = [kind for kind in kinds if kind.kind == "f"]
    dtype = np.result_type(*floats or kinds)
    ends = np.cumsum([len(one) for one in arrays])

    def read(index: Index) -> Array:
        made = np.empty((len(index), *arrays[0].shape[1:]), dtype)
        which = np.searchsorted(ends, index, side="right")
        for place in np.unique(which):
            rows = which == place
            start = ends[place] - len(arrays[place])
            made[rows] = np.asarray(arrays[place][index[rows] - start])
        return made

    return StreamedArray(read, (int(ends[-1]), *arrays[0].shape[1:]), dtype)


def file_rows(file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: Any) -> StreamedArray:
    """Samples that lie in a file one behind the other, as in a ``.npy``.

    They are read, not mapped into memory, so that what was read is not counted as the process's.

    Parameters
    ----------
    file : binary file
        Without a buffer; closed when nobody can read it any more.
    offset : int
        Where the first one begins.
    shape : tuple of int
    dtype : numpy dtype
    """
    kind = np.dtype(dtype)
    each = int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize

    def fill(place: int, part: Any) -> None:
        file.seek(offset + place * each)
        if file.readinto(part) < len(part):  # type: ignore[attr-defined]
            raise TfpruneError(f"{getattr(file, 'name', 'data')}: became shorter meanwhile")

    def read(index: Index) -> Array:
        order = np.argsort(index, kind="stable")
        ascending = index[order]
        made = np.empty((len(index), *shape[1:]), kind)
        flat = made.reshape(len(index), -1).view(np.uint8)
        far = np.flatnonzero(np.diff(ascending) * each > max(GAP, each)) + 1
        first = 0
        for stop in (*far.tolist(), len(index)):
            if stop == first + 1:
                fill(int(ascending[first]), flat[order[first]])
                first = stop
            while first < stop:
                start = int(ascending[first])
                last = first + int(
                    np.searchsorted(ascending[first:stop], start + max(SPAN // max(each, 1), 1))
                )
                span = np.empty((int(ascending[last - 1]) - start + 1, each), np.uint8)
                fill(start, span.reshape(-1))
                flat[order[first:last]] = span[ascending[first:last] - start]
                first = last
        return made

    weakref.finalize(read, file.close)
    return StreamedArray(read, shape, kind)


class Held:
    """Samples that are made piece by piece in memory, as :class:`Scratch` keeps them in a file."""

    def __init__(self) -> None:
        self._parts = list[Array]()

    def add(self, array: Array) -> None:
        """Puts samples behind those that are there."""
        self._parts.append(array)

    def parts(self) -> list[Array]:
        """What was added, piece by piece."""
        return self._parts

    def rows(self) -> Array:
        """All samples that were added."""
        return np.concatenate(self._parts) if len(self._parts) > 1 else self._parts[0]


class Scratch:
    """A file without a name for arrays that are made piece by piece; the system removes it.

    Parameters
    ----------
    source : object
        What is unpacked, for messages.
    """

    def __init__(self, source: object) -> None:
        self._source = source
        large = "TMPDIR" not in os.environ and os.access(LARGE_FILES, os.W_OK)
        self._folder = str(LARGE_FILES) if large else tempfile.gettempdir()
        # The arrays that are made of it hold it open.
        self._file: Any = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._runs: list[tuple[int, int, tuple[int, ...], np.dtype[Any]]] = []

    def add(self, array: Array) -> None:
        """Writes samples behind those that are there."""
        kind, shape = array.dtype, array.shape[1:]
        start = self._file.tell()
        self.write(np.ascontiguousarray(array).tobytes())
        if self._runs and self._runs[-1][2:] == (shape, kind):
            begun, count, *_ = self._runs.pop()
            self._runs.append((begun, count + len(array), shape, kind))
        else:
            self._runs.append((start, len(array), shape, kind))

    def write(self, content: bytes) -> None:
        """Writes bytes.

        Raises
        ------
        TfpruneError
            If there is no room.
        """
        with self._written_out():
            self._file.write(content)

    @contextmanager
    def _written_out(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TfpruneError(
                f"{self._source}: cannot be unpacked in {self._folder} ({error.strerror}); name "
                "another folder: TMPDIR=FOLDER"
            ) from None

    def rows(self) -> Any:
        """All samples that were added."""
        return concatenated(
            [
                file_rows(self._written(), start, (count, *shape), kind)
                for start, count, shape, kind in self._runs
            ]
        )

    def rows_of(self, shape: tuple[int, ...], dtype: Any, fortran: bool = False) -> StreamedArray:
        """The bytes that were written, as samples."""
        return stored_rows(self._written(), 0, shape, dtype, fortran)

    def _written(self) -> IO[bytes]:
        with self._written_out():
            self._file.flush()
        return os.fdopen(os.dup(self._file.fileno()), "rb", buffering=0)


def stored_rows(
    file: Any, offset: int, shape: tuple[int, ...], dtype: Any, fortran: bool = False
) -> StreamedArray:
    """Samples as numpy stores them, also in the order of Fortran, where a sample lies scattered."""
    if not fortran or len(shape) < 2:
        return file_rows(file, offset, shape, dtype)
    with file:
        whole = np.memmap(file, dtype, "r", offset, shape, order="F")
    return StreamedArray(lambda index: np.array(whole[index]), shape, dtype)
