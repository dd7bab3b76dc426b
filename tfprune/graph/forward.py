"""Runs a model batch by batch: as it is where it is small, compiled where it is large."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfprune.graph.batches import fixed_batch, padded, states_of
from tfprune.graph.inputs import packed
from tfprune.utils.arrays import Array

# Numbers that a model computes of a sample, in all its tensors together, above which it is large.
LARGE = 2**21
# Numbers that a compiled model computes for a batch, a fifth of which it holds at a time, and those
# in the largest tensor: the C library gives memory of over 32 MiB back to the system each time, and
# to have it cleared anew costs more than the computing.
IN_BATCH, IN_TENSOR = 2**28, 2**23

Index = npt.NDArray[np.intp]


class Forward:
    """A model's outputs, batch by batch, in inference.

    A small model is called as it is: compiling it would take longer than its passes. A large one is
    compiled, so that each tensor is let go when nothing needs it any more, and where only some
    positions of an output are asked for, the others never leave the device.

    Parameters
    ----------
    model : keras.Model
    most : int
        Samples in a batch, at most.
    large : bool, optional
        Whether it is part of a large model; by default it is looked at by itself.

    Attributes
    ----------
    size : int or None
        The batch size that the model insists on.
    large : bool
        Whether it is compiled; never if it insists on a batch size or keeps a state.
    step : int
        Samples in a batch, for which there is memory.
    """

    def __init__(self, model: keras.Model, most: int, large: bool | None = None) -> None:
        self.model, self.size = model, fixed_batch(model)
        wanted = numbers_of(model) > LARGE if large is None else large
        self.large = wanted and self.size is None and not states_of(model)
        self.step = self.size or (_step(model, most) if self.large else most)
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(
        self, batch: Sequence[Array], index: Sequence[Index | None] | None = None
    ) -> list[Array]:
        """The outputs for a batch; of each all, or the features at some positions.

        Parameters
        ----------
        batch : sequence of arrays of shape (samples, ...)
            In the order of the model's inputs.
        index : sequence of arrays or None, optional
            See :func:`taken`.
        """
        index = index or [None] * len(self.model.outputs)
        if self.large:
            ranks = tuple(-1 if one is None else one.ndim for one in index)
            if ranks not in self._compiled:
                self._compiled[ranks] = _compiled(self.model, ranks)
            made = self._compiled[ranks](
                [tf.constant(data) for data in batch],
                [tf.constant(one, tf.int32) for one in index if one is not None],
            )
            return [np.asarray(out) for out in made]
        made = keras.tree.flatten(
            self.model(packed(self.model, padded(batch, self.size)), training=False)
        )
        values = [keras.ops.convert_to_numpy(out)[: len(batch[0])] for out in made]
        return [
            out if one is None else taken(out, one) for out, one in zip(values, index, strict=True)
        ]

    def batches(self, x: Sequence[Array]) -> Iterator[list[Array]]:
        """The outputs for samples, in batches of ``step``."""
        for at in range(0, len(x[0]), self.step):
            yield self([np.asarray(data[at : at + self.step]) for data in x])


def batch_for(model: keras.Model, most: int) -> int:
    """Samples in a batch for which there is memory: as many as are asked for of a small model."""
    return _step(model, most) if numbers_of(model) > LARGE else most


def _step(model: keras.Model, most: int) -> int:
    sizes = _sizes(model)
    return max(1, min(most, IN_BATCH // max(sum(sizes), 1), IN_TENSOR // max(sizes, default=1)))


def numbers_of(model: keras.Model) -> int:
    """The numbers that a model computes of a sample, in all its tensors; unknown sizes are 1."""
    return sum(_sizes(model))


def _sizes(model: keras.Model) -> list[int]:
    """Numbers of a sample in each of a model's tensors."""
    sizes = []
    for operation in getattr(model, "operations", model.layers):
        try:
            made = keras.tree.flatten(operation.output)
        except (AttributeError, ValueError):  # It was never called by itself.
            continue
        sizes += [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in made]
    return sizes


def taken(values: Array, index: Index) -> Array:
    """The features at some positions.

    Parameters
    ----------
    values : array of shape (samples, ..., features)
    index : array of int
        Positions, counted through all samples; -1 is a place outside, where all features are 0.

    Returns
    -------
    array of the shape of the index, and features

    Examples
    --------
    >>> taken(np.arange(8).reshape(2, 2, 2), np.array([3, -1]))
    array([[6, 7],
           [0, 0]])
    """
    made = values.reshape(-1, values.shape[-1])[index]
    outside = index < 0
    if outside.any():
        made[outside] = 0
    return made


def _compiled(model: keras.Model, ranks: Sequence[int]) -> Any:
    """A function of a batch and indices of these ranks; -1 for an output that is given whole."""
    inputs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    places = [tf.TensorSpec([None] * rank, tf.int32) for rank in ranks if rank >= 0]

    def outputs(batch: list[Any], index: list[Any]) -> list[Any]:
        made = keras.tree.flatten(model(packed(model, batch), training=False))
        left = iter(index)
        return [
            out if rank < 0 else _gathered(out, next(left))
            for out, rank in zip(made, ranks, strict=True)
        ]

    # Made at once: the warning of functions that are traced often is for those made by mistake.
    made = tf.function(outputs, input_signature=[inputs, places], autograph=False)
    return made.get_concrete_function()


def _gathered(values: Any, index: Any) -> Any:
    """As :func:`taken`, in TensorFlow."""
    flat = tf.reshape(values, [-1, values.shape[-1]])
    made = tf.gather(flat, tf.maximum(index, 0))
    return tf.where((index >= 0)[..., None], made, tf.zeros([], made.dtype))
