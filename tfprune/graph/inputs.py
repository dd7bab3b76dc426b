"""Checks data against a model's inputs and reads it in batches, whatever it comes as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch, many_models, padded, rebatched
from tfprune.graph.data_kinds import (
    BATCH,
    Shape,
    are_data_sets,
    batched,
    is_files,
    joined,
    read_files,
)
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import StreamedArray, as_rows, mapped

# What may be held back of calibration data: one sample in so many, and at most so many. Of a stream
# whose length is not known, after the first so many, one in so many.
HELD_BACK, MOST_HELD_BACK = 5, 256
STREAM_SURE, STREAM_HELD_BACK = 64, 16

# How many samples of a stream are kept where all have to be in memory.
MOST_COLLECTED = 1000


def input_shapes(model: keras.Model) -> dict[str, Shape]:
    """The shape of one sample for each of the model's inputs, by the input's name."""
    structure = _structure(model)
    if isinstance(structure, dict) and len(structure) == len(model.inputs):
        names = sorted(structure)  # As Keras flattens them.
    else:
        names = [tensor.name for tensor in model.inputs]
    return {name: tuple(tensor.shape[1:]) for name, tensor in zip(names, model.inputs, strict=True)}


def fits(sample: tuple[int, ...], shape: Shape) -> bool:
    """Whether a sample has this shape, in which None stands for any size."""
    return len(sample) == len(shape) and all(
        want in (None, size) for size, want in zip(sample, shape, strict=True)
    )


def packed(model: keras.Model, arrays: Sequence[Any]) -> Any:
    """Puts arrays in the order of ``model.inputs`` into the structure that the model takes."""
    return keras.tree.pack_sequence_as(_structure(model), list(arrays))


@many_models()
def predicted(model: keras.Model, batch: Sequence[Array]) -> list[Array]:
    """A model's outputs for one batch, padded if the model takes a fixed size."""
    outputs = model.predict_on_batch(packed(model, padded(batch, fixed_batch(model))))
    return [np.asarray(out)[: len(batch[0])] for out in keras.tree.flatten(outputs)]


def _structure(model: keras.Model) -> Any:
    # A Sequential that was never called has inputs and outputs, but no input.
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def check_inputs(model: keras.Model, x: Any) -> list[Array]:
    """Returns data in memory as arrays of the model's input types.

    Parameters
    ----------
    model : keras.Model
    x : array, sequence of arrays or dict of arrays
        Several inputs as a list in the order of ``model.inputs``, or by their names.

    Returns
    -------
    list of arrays
        In the order of ``model.inputs``; what is streamed stays so, and is checked when it is read.

    Raises
    ------
    TfpruneError
        If it is empty, of another shape than the model takes, not numbers, NaN or infinite.
    """
    return _checked(model, _apart(model, x))


def collected(model: keras.Model, x: Any) -> list[Array]:
    """As :func:`check_inputs`, of whatever :class:`Samples` takes.

    Of a file, a data set or a function no more than the first 1,000 samples are read.
    """
    if not is_files(x) and not are_data_sets(x) and not _streams(x):
        return check_inputs(model, x)
    parts, count = list[list[Array]](), 0
    for batch in Samples(model, x).batches(BATCH):
        parts.append([data[: MOST_COLLECTED - count] for data in batch])
        count += len(parts[-1][0])
        if count == MOST_COLLECTED:
            break
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _streams(x: Any) -> bool:
    """Whether data comes in batches of its own; refuses what can be read once only."""
    if isinstance(x, Iterator):
        raise TfpruneError(
            f"data: expected data that can be read more than once, received a {type(x).__name__}; "
            "give the function that makes it, without calling it"
        )
    data_set = isinstance(x, (tf.data.Dataset, keras.utils.PyDataset))
    return data_set or (callable(x) and not hasattr(x, "__array__"))


class Samples:
    """Calibration data of any kind, as batches for one model.

    Parameters
    ----------
    model : keras.Model
    x : array, list or dict of arrays, path of a file, list of paths, tf.data.Dataset or PyDataset
        Arrays may be memory-mapped: no more than a batch of them is held; a list of paths names
        .npy, .npz, .csv, .parquet or .tfrecord files, of which one at a time is held; a column
        or feature ``label`` is left out. Data sets, also a list of them, come in
        batches of their own (a tf.data.Dataset of single samples is put in batches of 32); so does
        what a function returns that makes an iterator anew at each call, a generator function,
        say. Labels that come with them, (inputs, labels), are left out.
    hold_back : bool
        Whether a few of them, drawn at random, are held back to try out what was fitted on the
        others: see :meth:`divided`.
    held : array of int, optional
        In place of ``hold_back`` the numbers of the samples that are held back, in order.

    Attributes
    ----------
    model : keras.Model
    total : int or None
        Number of samples, where that is known before they are read.
    head : list of arrays
        The first batch, of at most 8 samples where batches are not the data's or the model's own.

    Raises
    ------
    TfpruneError
        If it is of another kind, never ends, is empty, or its first batch does not fit the model.
    """

    def __init__(
        self, model: keras.Model, x: Any, hold_back: bool = False, held: Array | None = None
    ) -> None:
        self.model = self._model = model
        self._hold_back, self._numbers = hold_back, held
        self._held: list[list[Array]] = []
        self._arrays: list[Array] | None = None
        self.total: int | None = None
        x, shapes = joined(x), list(input_shapes(model).values())
        self._source = batched(x, shapes)
        self._batch = fixed_batch(model)
        if _streams(x):
            self._check_ends()
        else:
            self._arrays = _apart(model, read_files(x, shapes))
            _check_shapes(model, self._arrays)
            self.total = len(self._arrays[0])
        first = next(self._whole(8), None)
        if first is None:
            raise TfpruneError("data: expected at least one sample, received none")
        self.head = first

    def batches(self, size: int) -> Iterator[list[Array]]:
        """Checked batches without the samples held back, arrays in the order of ``model.inputs``.

        Parameters
        ----------
        size : int
            Samples in a batch, at most; data sets keep their own. A model of a fixed batch size is
            given batches of that, the last of which may be smaller.
        """
        if not self._hold_back:
            yield from self._whole(size)
        elif self._batch is None:
            yield from self._left(size)
        else:
            yield from rebatched(self._left(size), self._batch)

    def _left(self, size: int) -> Iterator[list[Array]]:
        for batch, held in self.divided(size):
            if not held.all():
                yield [data[~held] for data in batch] if held.any() else batch

    def divided(self, size: int) -> Iterator[tuple[list[Array], npt.NDArray[np.bool_]]]:
        """All batches, each with a mask of the samples that are held back.

        Of data whose length is known a fifth is, at most 256; of a stream a fifth up to 64, then
        one in sixteen up to 256. They are the same in every pass over the same data.
        """
        rng = np.random.default_rng(0)
        indices = self.held_numbers()
        start = held_so_far = 0
        first = not self._held
        for batch in self._whole(size):
            held = np.zeros(len(batch[0]), bool)
            if self.total is not None:
                ends = np.searchsorted(indices, [start, start + len(held)])
                held[indices[slice(*ends)] - start] = True
            elif self._hold_back:
                share = HELD_BACK if held_so_far < STREAM_SURE else STREAM_HELD_BACK
                candidates = rng.random(len(held)) < 1 / share
                held = candidates & (np.cumsum(candidates) <= MOST_HELD_BACK - held_so_far)
            start, held_so_far = start + len(held), held_so_far + int(held.sum())
            if first and held.any():
                self._held.append([data[held] for data in batch])
            yield batch, held

    def held_numbers(self) -> Array:
        """The numbers of the samples that are held back, where all are known; else none."""
        if self._numbers is not None:
            return self._numbers
        if not self._hold_back or self.total is None:
            return np.zeros(0, np.intp)
        count = min(self.total // HELD_BACK, MOST_HELD_BACK)
        return np.sort(np.random.default_rng(0).choice(self.total, count, replace=False))

    def hold(self) -> None:
        """Reads the samples held back, where others make the pass that would have met them."""
        numbers = self.held_numbers()
        if len(numbers) and not self._held:
            self._held.append(self.at(numbers))

    @property
    def streamed(self) -> bool:
        """Whether the samples are not in memory."""
        return self._arrays is None or any(isinstance(a, StreamedArray) for a in self._arrays)

    def held_back(self) -> list[Array] | None:
        """The samples that the first complete pass of :meth:`divided` held back, or None."""
        if not self._held:
            return None
        return [np.concatenate(parts) for parts in zip(*self._held, strict=True)]

    def _whole(self, size: int) -> Iterator[list[Array]]:
        if self._batch is None:
            yield from self._batches(size)
        else:
            yield from rebatched(self._batches(self._batch), self._batch)

    def _batches(self, size: int) -> Iterator[list[Array]]:
        if self._arrays is not None:
            for start in range(0, len(self._arrays[0]), size):
                some = [np.asarray(a[start : start + size]) for a in self._arrays]
                yield _checked(self._model, some)
            return
        for batch in self._batches_of_its_own():
            inputs = batch[0] if isinstance(batch, tuple) else batch
            yield _checked(self._model, _apart(self._model, inputs))

    def at(self, index: Any) -> list[Array]:
        """The checked samples at an index; only for data whose ``total`` is known."""
        assert self._arrays is not None, "a data set has no samples by number"
        return _checked(self._model, [np.asarray(data[index]) for data in self._arrays])

    def _batches_of_its_own(self) -> Iterator[Any]:
        if isinstance(self._source, tf.data.Dataset):
            yield from self._source.as_numpy_iterator()
        elif not isinstance(self._source, keras.utils.PyDataset):
            yield from self._source()
        else:
            for number in range(self._source.num_batches):
                yield self._source[number]

    def _check_ends(self) -> None:
        if not isinstance(self._source, (tf.data.Dataset, keras.utils.PyDataset)):
            return
        if isinstance(self._source, tf.data.Dataset):
            endless = int(self._source.cardinality()) == tf.data.INFINITE_CARDINALITY
        else:
            endless = self._source.num_batches is None
        if endless:
            raise TfpruneError(
                "data: expected a data set that ends, received an endless one; take(N) of it"
            )


def _apart(model: keras.Model, x: Any) -> list[Array]:
    """Data as one array for each input."""
    shapes = input_shapes(model)
    names = ", ".join(shapes)
    if isinstance(x, Mapping):
        if set(x) != set(shapes):
            raise TfpruneError(
                f"data: expected arrays by the names of the inputs of model {model.name} "
                f"({names}), received {', '.join(map(str, x)) or 'none'}"
            )
        parts = [x[name] for name in shapes]
    elif len(shapes) == 1:
        parts = [x]
    elif isinstance(x, (list, tuple)) and len(x) == len(shapes):
        parts = list(x)
    else:
        received = f"{len(x)}" if isinstance(x, (list, tuple)) else type(x).__name__
        raise TfpruneError(
            f"data: expected {len(shapes)} arrays, one for each input of model {model.name} "
            f"({names}), received {received}"
        )
    try:
        return [as_rows(part) for part in parts]
    except ValueError as error:
        raise TfpruneError(
            f"data: expected an array, received {type(x).__name__}: {error}"
        ) from None


def _check_shapes(model: keras.Model, arrays: Sequence[Array]) -> None:
    several = len(arrays) > 1
    for (name, shape), data in zip(input_shapes(model).items(), arrays, strict=True):
        what = f"data for input {name}" if several else "data"
        if not np.issubdtype(data.dtype, np.number) and data.dtype != bool:
            raise TfpruneError(f"{what}: expected numbers, received an array of {data.dtype}")
        if not fits(data.shape[1:], shape):
            raise TfpruneError(
                f"{what}: expected samples of shape {shape} as model {model.name} takes them, "
                f"received {data.shape[1:]}"
            )
        if not len(data):
            raise TfpruneError(f"{what}: expected at least one sample, received none")
        if len(data) != len(arrays[0]):
            raise TfpruneError(
                f"{what}: expected {len(arrays[0])} samples as for the first input, "
                f"received {len(data)}"
            )


def _checked(model: keras.Model, arrays: Sequence[Array]) -> list[Array]:
    _check_shapes(model, arrays)
    return [
        mapped(partial(_as_taken, tensor.dtype), data)
        for tensor, data in zip(model.inputs, arrays, strict=True)
    ]


def _as_taken(dtype: str, data: Array) -> Array:
    """Samples in the type that an input takes."""
    with np.errstate(over="ignore"):
        array = np.asarray(data).astype(dtype, copy=False)
    # Looked at as the model takes it: a large float64 may be no float32.
    if array.dtype.kind not in "iub" and not np.isfinite(array).all():
        raise TfpruneError(f"data: expected finite numbers, received NaN or infinity (as {dtype})")
    return array
