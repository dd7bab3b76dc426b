"""Shards that are data sets of TensorFlow: as a graph that a worker runs, and as samples here."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import TfpruneError
from tfprune.graph.data_kinds import flat_batches
from tfprune.graph.inputs import Samples, input_shapes
from tfprune.utils.arrays import Array
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import Held, Index, Scratch, StreamedArray, concatenated

# Samples in a batch, and bytes of a graph that are sent: of a larger one the samples are a part.
BATCH, MOST_SENT = 256, 2**24
# As TensorFlow counts the ways to serialize a graph: to fail where one holds a state.
FAIL_ON_STATE = 2


class NotSentError(TfpruneError):
    """A data set that another process cannot run, or not with the same samples."""


@dataclass(frozen=True)
class SentDataSet:
    """A data set as JSON can hold it.

    Attributes
    ----------
    graph : str
        What TensorFlow serializes it to, in base 64.
    kinds : list of (str, list of int)
        The dtype and shape of a sample for each input.
    count : int
        How many samples there are.
    """

    graph: str
    kinds: list[Any]
    count: int


def shards_of(
    data_sets: Sequence[tf.data.Dataset], model: keras.Model
) -> tuple[list[SentDataSet], Any]:
    """Data sets as workers get them, and their samples as the model takes them.

    Parameters
    ----------
    data_sets : sequence of tf.data.Dataset
    model : keras.Model

    Returns
    -------
    sent : list of SentDataSet
    x : array, or dict of arrays by the names of inputs
        Read as they are asked for.

    Raises
    ------
    NotSentError
        If one cannot run in another process, or comes in another order each time.
    TfpruneError
        If one does not fit the model, or is endless or empty.
    """
    inputs = input_shapes(model)
    sent, columns = [], []
    for number, data_set in enumerate(data_sets):
        Samples(model, data_set)  # Refuses what does not fit the model.
        flat = flat_batches(data_set, inputs, BATCH)
        made = _sent(flat, number)
        sent.append(made)
        if made.kinds != sent[0].kinds:
            raise TfpruneError(
                f"data set {number}: expected samples as in the first one ({_said(sent[0])}), "
                f"received {_said(made)}"
            )
        read = _Reader(flat)
        columns.append(
            [
                StreamedArray(read.of(place), (made.count, *shape), np.dtype(dtype))
                for place, (dtype, shape) in enumerate(made.kinds)
            ]
        )
    ready = [concatenated(column) for column in zip(*columns, strict=True)]
    return sent, ready[0] if len(ready) == 1 else dict(zip(inputs, ready, strict=True))


def samples_of(sent: SentDataSet) -> list[Array]:
    """All samples of a data set that was sent, for each input; where large in a scratch file."""
    return _samples(sent.graph, tuple((kind, tuple(shape)) for kind, shape in sent.kinds))


@lru_cache(maxsize=2)
def _samples(graph: str, kinds: tuple[tuple[str, tuple[int, ...]], ...]) -> list[Array]:
    spec = tuple(tf.TensorSpec((None, *shape), kind) for kind, shape in kinds)
    variant = tf.raw_ops.DatasetFromGraph(graph_def=base64.b64decode(graph))
    data_set = tf.data.experimental.from_variant(variant, spec)
    kept: list[Held | Scratch] = [Held() for _ in kinds]
    size = 0
    for batch in _batches(data_set):
        size += sum(one.nbytes for one in batch)
        if size > most_held() and isinstance(kept[0], Held):
            kept = [_moved(one) for one in kept if isinstance(one, Held)]
        for one, array in zip(kept, batch, strict=True):
            one.add(array)
    return [one.rows() for one in kept]


def _moved(held: Held) -> Scratch:
    """The same samples in a scratch file."""
    scratch = Scratch("a data set")
    for part in held.parts():
        scratch.add(part)
    return scratch


def _sent(flat: tf.data.Dataset, number: int) -> SentDataSet:
    what = f"data set {number}"
    try:
        graph = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(flat),
            external_state_policy=FAIL_ON_STATE,
            strip_device_assignment=True,
        ).numpy()
    except tf.errors.FailedPreconditionError:
        raise NotSentError(
            f"{what}: it calls Python code or random numbers, which another process has not; "
            "save its samples as .npy or .tfrecord files and give their paths"
        ) from None
    if len(graph) > MOST_SENT:
        raise NotSentError(
            f"{what}: its samples are in the data set itself ({len(graph):,} bytes), at most "
            f"{MOST_SENT:,} are sent to a worker; save them as .npy files and give their paths"
        )
    first, count = None, 0
    for batch in _batches(flat):
        first = first or batch
        count += len(batch[0])
    assert first is not None, "it was read before"
    again = next(_batches(flat))
    if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(first, again, strict=True)):
        raise NotSentError(
            f"{what}: its samples come in another order each time; shuffle(..., "
            "reshuffle_each_iteration=False) keeps it"
        )
    kinds = [[str(one.dtype), list(one.shape[1:])] for one in first]
    return SentDataSet(base64.b64encode(graph).decode(), kinds, count)


def _batches(data_set: tf.data.Dataset) -> Iterator[list[Array]]:
    return (list(batch) for batch in data_set.as_numpy_iterator())


def _said(sent: SentDataSet) -> str:
    return ", ".join(f"{kind} of {tuple(shape)}" for kind, shape in sent.kinds)


class _Reader:
    """Samples of a data set by their numbers; those that follow on the last ones are read on."""

    def __init__(self, flat: tf.data.Dataset) -> None:
        self._flat = flat
        self._at, self._waiting = 0, list[Array]()
        self._batches: Iterator[list[Array]] = iter(())
        self._last: tuple[bytes, list[Array]] = (b"", [])

    def of(self, place: int) -> Any:
        """What reads one of the inputs."""
        return lambda index: self._read(index)[place]

    def _read(self, index: Index) -> list[Array]:
        key = index.tobytes()
        if self._last[0] != key:  # Each input asks for the same.
            order = np.argsort(index, kind="stable")
            ascending = self._ascending(index[order])
            back = np.argsort(order, kind="stable")
            self._last = key, [one[back] for one in ascending]
        return self._last[1]

    def _ascending(self, index: Index) -> list[Array]:
        """Samples at numbers that grow."""
        if not self._waiting or index[0] < self._at:
            self._at, self._batches = 0, _batches(self._flat)
            self._waiting = next(self._batches)
        parts, done = list[list[Array]](), 0
        while True:
            end = self._at + len(self._waiting[0])
            stop = int(np.searchsorted(index, end))
            if stop > done:
                parts.append([one[index[done:stop] - self._at] for one in self._waiting])
                done = stop
            if done == len(index):
                return [np.concatenate(each) for each in zip(*parts, strict=True)]
            self._at, self._waiting = end, next(self._batches)
