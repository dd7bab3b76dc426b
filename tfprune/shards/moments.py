"""Samples in several files, each measured where a worker is; what was measured adds up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.core.moments import Moments
from tfprune.data import array_files
from tfprune.data.parts import check_part
from tfprune.data.scales import InputScale
from tfprune.data.splits import Dataset, ShardFiles
from tfprune.errors import TfpruneError
from tfprune.graph.activations import Measured, Pair, Probe, measured
from tfprune.graph.activations import measure as measure_here
from tfprune.graph.batches import states_of
from tfprune.graph.groups import Consumer, groups_of
from tfprune.graph.inputs import Samples
from tfprune.graph.trace import Trace
from tfprune.graph.tracer import trace
from tfprune.loading.model_files import load, reason
from tfprune.loading.own_code import imported
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter
from tfprune.utils.digests import text_digest
from tfprune.utils.memory import most_held
from tfprune.utils.sample_files import alike
from tfprune.utils.streamed import StreamedArray, concatenated, mapped
from tfprune.workers.pool import Piece, Workers

# Samples in a piece of work, at least: small files go together, large ones are not divided.
LEAST = 4096
# The names that a state of moments has for samples that folds are fitted on, and held back.
FITTED, HELD = "fitted", "held"


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
    """

    files: ShardFiles
    x: Any
    numbers: Array | None = None
    scales: tuple[InputScale, ...] = ()
    imports: tuple[str, ...] = ()

    def measured(
        self,
        pool: Workers | None,
        traced: Trace,
        consumers: Sequence[Consumer],
        samples: Samples,
        *,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> list[Measured]:
        """As :func:`tfprune.graph.activations.measure`, file by file, small ones together.

        The moments are summed in the order of the files, so that the sum is the same whoever did
        what.

        Parameters
        ----------
        pool : Workers or None
            None for this process alone.
        traced : Trace
        consumers : sequence of Consumer
        samples : Samples
            All samples; their model is sent to the workers.
        batch_size : int, optional
        progress : bool

        Raises
        ------
        TfpruneError
            If a worker cannot read a file or the model, or a layer is known to this process alone.
        """
        fitted, held = list[Moments](), list[Moments]()
        pieces, places = self._pieces(samples.held_numbers(), batch_size, consumers)
        if pool is None:
            made = self._measured_here(traced, consumers, samples, pieces, places)
        else:
            self._check(samples.model, traced)
            done = pool.results(pieces, ordered=True, shared=_content(samples.model))
            made = (_read(one.arrays) for one in done)
        with meter("activations", samples.total, progress) as bar:
            for index, parts in zip(places, made, strict=True):
                fitted, held = _added(fitted, parts[0]), _added(held, parts[1])
                bar.update(len(index))
        samples.hold()
        return measured(consumers, (fitted, held))

    def _measured_here(
        self,
        traced: Trace,
        consumers: Sequence[Consumer],
        samples: Samples,
        pieces: Sequence[Piece],
        places: Sequence[Array],
    ) -> Iterator[Pair]:
        """The moments of the pieces' samples, which are read once for all uses here."""
        probe = Probe(traced, consumers, exact=True)
        for piece, index in zip(pieces, places, strict=True):
            several = isinstance(self.x, dict)
            x = {name: one[index] for name, one in self.x.items()} if several else self.x[index]
            part = Samples(samples.model, x, held=np.array(piece.arguments["held"], np.intp))
            yield probe.moments(part, piece.arguments["batch_size"], total=samples.total)

    def _check(self, model: keras.Model, traced: Trace) -> None:
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

    def _pieces(
        self, held: Array, batch_size: int | None, consumers: Sequence[Consumer]
    ) -> tuple[list[Piece], list[Array]]:
        """The pieces of work, and the places among all samples of those that each has."""
        arrays = list(self.x.values()) if isinstance(self.x, dict) else [self.x]
        numbers = np.arange(sum(self.files.counts)) if self.numbers is None else self.numbers
        # Which place in a pass in order each sample has.
        order = np.argsort(numbers, kind="stable")
        numbers, mask = numbers[order], np.isin(np.arange(len(order)), held)[order]
        ends = np.searchsorted(numbers, np.cumsum((0, *self.files.counts)))
        common = {
            "part": self.files.part,
            "inputs": list(self.files.inputs),
            "kinds": [[str(one.dtype), list(one.shape[1:])] for one in arrays],
            "scales": [asdict(scale) for scale in self.scales],
            "consumers": _described(consumers),
            "imports": [str(Path(path).absolute()) for path in self.imports],
            "batch_size": batch_size,
            "total": len(order),
        }
        pieces, places = list[Piece](), list[Array]()
        files, first, start = list[list[Any]](), 0, 0
        for place, (low, high) in enumerate(pairwise(ends.tolist())):
            count, path = self.files.counts[place], str(Path(self.files.paths[place]).absolute())
            if high > low:
                whole = high - low == count
                files.append([path, None if whole else (numbers[low:high] - start).tolist()])
            start += count
            last = place == len(self.files.counts) - 1
            if files and (last or high - first >= LEAST):
                part = np.flatnonzero(mask[first:high]).tolist()
                name = files[0][0] if len(files) == 1 else f"{files[0][0]} to {files[-1][0]}"
                pieces.append(
                    Piece(name, f"{__name__}:measure", {**common, "files": files, "held": part})
                )
                places.append(order[first:high])
                files, first = [], high
        return pieces, places


def of_data(data: Dataset, imports: Sequence[str] = ()) -> Shards | None:
    """The calibration samples of a data set by the files that they lie in; None if it is one."""
    part = data.calibration
    if data.shards is None or part.numbers is None:
        return None
    return Shards(data.shards, part.x, part.numbers, data.scales, tuple(imports))


def measure_samples(
    traced: Trace,
    consumers: Sequence[Consumer],
    samples: Samples,
    shards: Shards | None,
    pool: Workers | None,
    *,
    batch_size: int | None,
    progress: bool,
) -> list[Measured]:
    """What consumers receive of some samples, measured by workers where there are any.

    Where samples come in several files, sums are exact to rounding of float64, so that it makes no
    difference whether workers, and how many of them, did it.
    """
    if not consumers:
        return []
    # A model that keeps a state from batch to batch reads all samples in their order.
    if shards is None or (pool is None and states_of(samples.model)):
        exact = shards is not None
        return measure_here(traced, consumers, samples, batch_size, progress, exact=exact)
    return shards.measured(
        pool, traced, consumers, samples, batch_size=batch_size, progress=progress
    )


def in_order(x: Any) -> Any:
    """Data that no worker is asked for: shards as their samples, anything else as it is."""
    shards = as_shards(x)
    return x if shards is None else shards.x


def as_shards(x: Any) -> Shards | None:
    """Shards, also where data is a list of paths of ``.npy`` or ``.npz`` files; else None.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or they hold samples of several shapes.
    """
    if isinstance(x, Shards) or not isinstance(x, (list, tuple)) or not x:
        return x if isinstance(x, Shards) else None
    if not all(isinstance(one, (str, Path)) for one in x):
        return None
    paths = [str(one) for one in x]
    part, shapes, dtype = alike(paths)
    arrays = [_lazy(path, part, shape, dtype) for path, shape in zip(paths, shapes, strict=True)]
    counts = tuple(shape[0] for shape in shapes)
    return Shards(ShardFiles(tuple(paths), counts, part), concatenated(arrays))


def _lazy(path: str, part: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> StreamedArray:
    """The samples of a file that is opened when they are asked for: few of many can be open."""

    def read(index: npt.NDArray[np.intp]) -> Array:
        return np.asarray(_rows(path, index, part, ())[0]).astype(dtype, copy=False)

    return StreamedArray(read, shape, dtype)


def measure(
    files: list[tuple[str, list[int] | None]],
    consumers: list[Any],
    held: list[int],
    shared: bytes,
    *,
    part: str,
    inputs: list[str],
    kinds: list[tuple[str, list[int]]],
    scales: list[dict[str, Any]],
    imports: list[str],
    batch_size: int | None,
    total: int,
) -> tuple[None, dict[str, Array]]:
    """The moments of some files' samples; what a worker runs.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or the model is followed otherwise than where the command runs.
    """
    model, probe = _probe(shared, json.dumps(consumers), tuple(imports))
    read = [_rows(path, rows, part, inputs) for path, rows in files]
    ready = []
    for place, column in enumerate(zip(*read, strict=True)):
        dtype, shape = kinds[place]
        scale = InputScale(**_tuples(scales[place])) if scales else None
        ready.append(
            mapped(partial(_ready, dtype=dtype, shape=shape, scale=scale), concatenated(column))
        )
    x = ready[0] if len(ready) == 1 else dict(zip(inputs, ready, strict=True))
    samples = Samples(model, x, held=np.array(held, np.intp))
    return None, _written(probe.moments(samples, batch_size, total=total))


def _ready(rows: Array, dtype: str, shape: list[int], scale: InputScale | None) -> Array:
    """Samples of one file as they are among those of all files, scaled."""
    if scale is not None:
        # Files may differ in their types; it is the one of all together that was scaled.
        shaped = rows.astype(scale.dtype, copy=False).reshape(len(rows), *shape)
        rows = scale.scaled(shaped)
    return rows.astype(dtype, copy=False)


def _rows(path: str, rows: Any, part: str, inputs: Sequence[str]) -> list[Any]:
    """Samples of a file for each input: all, or those of some numbers."""
    try:
        about = Path(path).stat()
    except OSError as error:
        raise TfpruneError(f"{path}: cannot be read ({error.strerror})") from None
    arrays = _file(path, part, tuple(inputs), (about.st_mtime_ns, about.st_size))
    return arrays if rows is None else [array[np.asarray(rows, np.intp)] for array in arrays]


@lru_cache(maxsize=2)
def _file(path: str, part: str, inputs: tuple[str, ...], state: tuple[int, int]) -> list[Any]:
    """The arrays of samples of a file in this state; left in it where they are large."""
    stream = array_files.held_bytes(Path(path)) > most_held()
    if Path(path).suffix.lower() == ".npy":
        parts, _ = array_files.npy_parts(Path(path), stream)
    else:
        parts, _ = array_files.npz_parts(Path(path), inputs, stream)
    if part not in parts:
        raise TfpruneError(f"{path}: expected an array {part}, as the first file has")
    check_part(path, parts[part])
    return parts[part].arrays


@lru_cache(maxsize=1)
def _probe(content: bytes, wanted: str, imports: tuple[str, ...]) -> tuple[keras.Model, Probe]:
    """A model that was sent, and what measures some of its consumers."""
    try:
        with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(content)
            # It was checked where the command runs, which this process does the work of.
            model = load(path, True, False, None, imported(imports))
    except Exception as error:
        raise TfpruneError(f"a worker cannot load the model ({reason(error)})") from None
    traced = trace(model)
    known = [consumer for group in groups_of(traced) for consumer in group.consumers]
    by_description = dict(zip(map(json.dumps, _described(known)), known, strict=True))
    chosen = [by_description.get(json.dumps(one)) for one in json.loads(wanted)]
    if None in chosen:
        raise TfpruneError("the model's units are followed otherwise by this worker")
    return model, Probe(traced, [one for one in chosen if one is not None], exact=True)


def _described(consumers: Sequence[Consumer]) -> list[list[Any]]:
    """Consumers as plain values by which they are known again: of equal ones the first, second."""
    counts = dict[str, int]()
    made = []
    for one in consumers:
        index = text_digest(one.index.astype("<i8").tobytes())
        about = [one.layer, one.part, len(one.tensors), list(one.index.shape), index]
        same = json.dumps(about)
        counts[same] = counts.get(same, -1) + 1
        made.append([*about, counts[same]])
    return made


def _content(model: keras.Model) -> bytes:
    """A model as the bytes of a ``.keras`` file."""
    with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def _written(pair: Pair) -> dict[str, Array]:
    """Moments as arrays by names."""
    return {
        f"{which}.{place}.{name}": array
        for which, moments in zip((FITTED, HELD), pair, strict=True)
        for place, one in enumerate(moments)
        for name, array in one.state().items()
    }


def _read(arrays: Mapping[str, Array]) -> tuple[list[Moments], list[Moments]]:
    """The moments of :func:`_written`."""
    states: dict[str, dict[int, dict[str, Array]]] = {FITTED: {}, HELD: {}}
    for key, array in arrays.items():
        which, place, name = key.split(".")
        states[which].setdefault(int(place), {})[name] = array
    fitted, held = (
        [Moments.of(states[which][place]) for place in sorted(states[which])]
        for which in (FITTED, HELD)
    )
    return fitted, held


def _added(total: list[Moments], more: list[Moments]) -> list[Moments]:
    if not total or not more:
        return total or more
    return [one + another for one, another in zip(total, more, strict=True)]


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
