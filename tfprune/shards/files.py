"""Calibration samples that lie in several files, and pieces of them that can be read elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.data import array_files
from tfprune.data.parts import check_part
from tfprune.data.scales import InputScale
from tfprune.data.splits import Dataset, ShardFiles, Split
from tfprune.errors import TfpruneError
from tfprune.graph.data_kinds import are_data_sets
from tfprune.graph.inputs import input_shapes
from tfprune.sample_files.rows import (
    Contents,
    Naming,
    checked_rows,
    contents,
    is_table,
    table_rows,
)
from tfprune.shards.data_sets import NotSentError, SentDataSet, samples_of, shards_of
from tfprune.utils.arrays import Array
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import StreamedArray, concatenated, mapped

# Samples in a piece of work, at least: small files go together, large ones are not divided.
LEAST = 4096


@dataclass(frozen=True, eq=False)
class FilePiece:
    """Samples of a file, or of small ones together.

    Attributes
    ----------
    name : str
        What messages call it.
    files : list of (str or dict, list of int or None)
        Paths, or data sets as they are sent, and which of the samples in each there are; None for
        all.
    places : array of int, shape (samples,)
        Where they are among all samples.
    held : array of int
        The numbers within the piece of those that are held back for folds.
    """

    name: str
    files: list[Any]
    places: Array
    held: Array


@dataclass(frozen=True, eq=False)
class Shards:
    """Calibration samples that lie in several files.

    Attributes
    ----------
    files : ShardFiles
    x : array, or dict of arrays
        The samples, to be read here where a few are needed.
    numbers : array of shape (samples,) or None
        Where the samples lie, in all files one behind the other; None for all of them, in order.
    scales : tuple of InputScale
        How each input is scaled; none where samples are as the model takes them.
    imports : tuple of str
        Python files that a worker runs before it loads the model.
    data_sets : tuple of SentDataSet
        In place of the contents of files; these are then names for messages.
    """

    files: ShardFiles
    x: Any
    numbers: Array | None = None
    scales: tuple[InputScale, ...] = ()
    imports: tuple[str, ...] = ()
    data_sets: tuple[SentDataSet, ...] = ()

    def at(self, places: Array) -> Any:
        """Samples read here: an array, or a dict of arrays."""
        if isinstance(self.x, dict):
            return {name: one[places] for name, one in self.x.items()}
        return self.x[places]

    def description(self) -> dict[str, Any]:
        """What :func:`read_samples` needs beside the files, as JSON can hold it."""
        arrays = list(self.x.values()) if isinstance(self.x, dict) else [self.x]
        return {
            "part": self.files.part,
            "inputs": list(self.files.inputs),
            "naming": asdict(self.files.naming),
            "kinds": [[str(one.dtype), list(one.shape[1:])] for one in arrays],
            "scales": [asdict(scale) for scale in self.scales],
        }

    def absolute_imports(self) -> list[str]:
        """Paths of ``imports``, as a worker needs them."""
        return [str(Path(path).absolute()) for path in self.imports]

    def pieces(self, held: Array) -> list[FilePiece]:
        """The samples file by file, small files together.

        Parameters
        ----------
        held : array of int
            The numbers among all samples of those that are held back.
        """
        numbers = np.arange(sum(self.files.counts)) if self.numbers is None else self.numbers
        # Which place in a pass in order each sample has.
        order = np.argsort(numbers, kind="stable")
        numbers, mask = numbers[order], np.isin(np.arange(len(order)), held)[order]
        ends = np.searchsorted(numbers, np.cumsum((0, *self.files.counts)))
        pieces = list[FilePiece]()
        files, names, first, start = list[list[Any]](), list[str](), 0, 0
        for place, (low, high) in enumerate(pairwise(ends.tolist())):
            count = self.files.counts[place]
            if high > low:
                whole = high - low == count
                source, name = self._source(place)
                names.append(name)
                files.append([source, None if whole else (numbers[low:high] - start).tolist()])
            start += count
            last = place == len(self.files.counts) - 1
            if files and (last or high - first >= LEAST):
                name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
                part = np.flatnonzero(mask[first:high])
                pieces.append(FilePiece(name, files, order[first:high], part))
                files, names, first = [], [], high
        return pieces

    def _source(self, place: int) -> tuple[Any, str]:
        """A file's path, or a data set as JSON can hold it, and what messages call it."""
        name = self.files.paths[place]
        if self.data_sets:
            return asdict(self.data_sets[place]), name
        path = str(Path(name).absolute())
        return path, path


def read_samples(
    files: Sequence[tuple[Any, list[int] | None]],
    *,
    part: str,
    inputs: list[str],
    naming: dict[str, Any],
    kinds: list[tuple[str, list[int]]],
    scales: list[dict[str, Any]],
) -> Any:
    """The samples of a piece, by whoever does the work; in their files where these are large.

    Parameters
    ----------
    files : sequence of (str or dict, list of int or None)
        See :class:`FilePiece`.
    part, inputs, naming, kinds, scales
        See :meth:`Shards.description`.

    Returns
    -------
    array, or dict of arrays

    Raises
    ------
    TfpruneError
        If a file cannot be read.
    """
    known = Naming(**_tuples(naming))
    read = [_rows(source, rows, part, inputs, known) for source, rows in files]
    ready = []
    for place, column in enumerate(zip(*read, strict=True)):
        dtype, shape = kinds[place]
        scale = InputScale(**_tuples(scales[place])) if scales else None
        ready.append(
            mapped(partial(_ready, dtype=dtype, shape=shape, scale=scale), concatenated(column))
        )
    return ready[0] if len(ready) == 1 else dict(zip(inputs, ready, strict=True))


def of_data(data: Dataset, imports: Sequence[str] = ()) -> Shards | None:
    """The calibration samples of a data set by the files that they lie in; None if it is one."""
    part = data.calibration
    if data.shards is None or part.numbers is None:
        return None
    return Shards(data.shards, part.x, part.numbers, data.scales, tuple(imports))


def in_order(x: Any, model: keras.Model) -> Any:
    """Data that no worker is asked for: shards as their samples, anything else as it is."""
    shards = as_shards(x, model)
    return x if shards is None else shards.x


def as_shards(x: Any, model: keras.Model, by_workers: bool = False) -> Shards | None:
    """Shards, also where data is a list of paths or of data sets of TensorFlow; else None.

    So it is of data sets that cannot be sent, unless there are workers to send them to.

    Raises
    ------
    TfpruneError
        If one cannot be read, or they hold samples of several shapes.
    """
    if isinstance(x, Shards) or not isinstance(x, (list, tuple)) or not x:
        return x if isinstance(x, Shards) else None
    if are_data_sets(x):
        try:
            sent, samples = shards_of(x, model)
        except NotSentError:
            if by_workers:
                raise
            return None
        numbers = range(len(x))
        named = tuple(f"data set {number}" for number in numbers)
        files = ShardFiles(named, tuple(one.count for one in sent), "x", tuple(input_shapes(model)))
        return Shards(files, samples, data_sets=tuple(sent))
    if not all(isinstance(one, (str, Path)) for one in x):
        return None
    paths = [str(one) for one in x]
    shapes = list(input_shapes(model).values())
    about = contents(paths, shapes[0] if len(shapes) == 1 else None)
    arrays = [_lazy(path, shape, about) for path, shape in zip(paths, about.shapes, strict=True)]
    counts = tuple(shape[0] for shape in about.shapes)
    files = ShardFiles(tuple(paths), counts, about.part, naming=about.naming)
    return Shards(files, concatenated(arrays))


def _lazy(path: str, shape: tuple[int, ...], about: Contents) -> StreamedArray:
    """The samples of a file that is opened when they are asked for: few of many can be open."""

    def read(index: npt.NDArray[np.intp]) -> Array:
        rows = _rows(path, index, about.part, (), about.naming)[0]
        return checked_rows(path, rows, shape[1:], about.dtype)

    return StreamedArray(read, shape, about.dtype)


def _ready(rows: Array, dtype: str, shape: list[int], scale: InputScale | None) -> Array:
    """Samples of one file as they are among those of all files, scaled."""
    if scale is not None:
        # Files may differ in their types; it is the one of all together that was scaled.
        shaped = rows.astype(scale.dtype, copy=False).reshape(len(rows), *shape)
        rows = scale.scaled(shaped)
    return rows.astype(dtype, copy=False).reshape(len(rows), *shape)


def _rows(source: Any, rows: Any, part: str, inputs: Sequence[str], naming: Naming) -> list[Any]:
    """Samples of a file or data set for each input: all, or those of some numbers."""
    if isinstance(source, Mapping):
        arrays = samples_of(SentDataSet(**source))
    else:
        try:
            about = Path(source).stat()
        except OSError as error:
            raise TfpruneError(f"{source}: cannot be read ({error.strerror})") from None
        state = (about.st_mtime_ns, about.st_size)
        arrays = _file(source, part, tuple(inputs), naming, state)
    return arrays if rows is None else [array[np.asarray(rows, np.intp)] for array in arrays]


@lru_cache(maxsize=2)
def _file(
    path: str, part: str, inputs: tuple[str, ...], naming: Naming, state: tuple[int, int]
) -> list[Any]:
    """The arrays of samples of a file in this state; left in it where they are large."""
    if is_table(path):
        table = Split(table_rows(Path(path), naming))
        check_part(path, table)
        return table.arrays
    stream = array_files.held_bytes(Path(path)) > most_held()
    if Path(path).suffix.lower() == ".npy":
        parts, _ = array_files.npy_parts(Path(path), stream)
    else:
        parts, _ = array_files.npz_parts(Path(path), inputs, stream)
    if part not in parts:
        raise TfpruneError(f"{path}: expected an array {part}, as the first file has")
    check_part(path, parts[part])
    return parts[part].arrays


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
