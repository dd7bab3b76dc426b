"""Layers that stand in a traced copy alone: they take apart what wrappers and cells do inside."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


class _Helper(keras.Layer):  # type: ignore[misc]  # Keras is untyped
    """Leaves the types of its inputs alone, and says which shape it makes."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, autocast=False)
        self.supports_masking = True

    def compute_output_spec(self, inputs: Any) -> Any:
        first = keras.tree.flatten(inputs)[0]
        return keras.KerasTensor(self.made(inputs), dtype=first.dtype)

    def made(self, inputs: Any) -> tuple[int | None, ...]:
        """The shape of the output."""
        return tuple(keras.tree.flatten(inputs)[0].shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return keras.tree.flatten(previous_mask)[0] if previous_mask is not None else None


class StepsAside(_Helper):
    """Makes samples of the steps that a TimeDistributed hands to its layer one by one.

    Parameters
    ----------
    name : str
    axes : int
        How many axes of steps there are: one for each TimeDistributed around another.
    """

    def __init__(self, name: str, axes: int) -> None:
        super().__init__(name)
        self._axes = axes

    def made(self, inputs: Any) -> tuple[int | None, ...]:
        first, rest = inputs.shape[: 1 + self._axes], inputs.shape[1 + self._axes :]
        return (None if None in first else math.prod(first), *rest)

    def call(self, inputs: Any) -> Any:
        sizes = ops.shape(inputs)[1 + self._axes :]
        return ops.reshape(inputs, (-1, *sizes))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        # A mask of the steps says nothing within a step.
        if previous_mask is None or len(previous_mask.shape) <= 1 + self._axes:
            return None
        return ops.reshape(previous_mask, (-1, *ops.shape(previous_mask)[1 + self._axes :]))


class StepsBack(_Helper):
    """Gives back the axes that :class:`StepsAside` took; called on ``[made, before]``.

    Parameters
    ----------
    name : str
    axes : int
    """

    def __init__(self, name: str, axes: int) -> None:
        super().__init__(name)
        self._axes = axes

    def made(self, inputs: Any) -> tuple[int | None, ...]:
        made, before = inputs
        return (*before.shape[: 1 + self._axes], *made.shape[1:])

    def call(self, inputs: Any) -> Any:
        made, before = inputs
        return ops.reshape(made, (*ops.shape(before)[: 1 + self._axes], *ops.shape(made)[1:]))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        made, before = previous_mask or (None, None)
        if made is not None:
            sizes = ops.shape(inputs[1])[: 1 + self._axes]
            return ops.reshape(made, (*sizes, *ops.shape(made)[1:]))
        return before if before is not None and len(before.shape) <= 1 + self._axes else None


class PreviousStates(_Helper):
    """The state in front of each step, of those after it; called on ``[states]`` or with a start.

    Without a start the first state is zero.
    """

    def call(self, inputs: Any) -> Any:
        states, *start = inputs
        first = start[0][:, None] if start else ops.zeros_like(states[:, :1])
        return ops.concatenate([ops.cast(first, states.dtype), states[:, :-1]], axis=1)


class ResetStates(_Helper):
    """What a GRU that resets its state first multiplies with its last kernel.

    Called on ``[before, sequence]``: the state in front of each step, in the order in which the
    layer goes through them, and what the layer takes.

    Parameters
    ----------
    name : str
    layer : keras.layers.GRU
    """

    def __init__(self, name: str, layer: Any) -> None:
        super().__init__(name)
        # Not as a part of this layer: it has its own place in the model.
        self.__dict__["_gru"] = layer

    def call(self, inputs: Any) -> Any:
        before, sequence = inputs
        cell = self._gru.cell
        if self._gru.go_backwards:
            sequence = ops.flip(sequence, axis=1)
        own = slice(cell.units, 2 * cell.units)
        sums = ops.matmul(ops.cast(sequence, before.dtype), cell.kernel[:, own])
        sums += ops.matmul(before, cell.recurrent_kernel[:, own])
        if cell.use_bias:
            sums += cell.bias[own]
        return before * cell.recurrent_activation(sums)


class BothWays(_Helper):
    """What a Bidirectional makes of what its two layers make, the second of which goes backwards.

    Parameters
    ----------
    name : str
    mode : {"concat", "sum", "ave", "mul"} or None
        None turns the second round alone; called on that alone.
    axis : int or None
        Of the steps, where both return sequences.
    """

    stands_for = "Bidirectional"

    def __init__(self, name: str, mode: str | None, axis: int | None) -> None:
        super().__init__(name)
        self._mode, self._axis = mode, axis

    def made(self, inputs: Any) -> tuple[int | None, ...]:
        shapes = [tuple(one.shape) for one in keras.tree.flatten(inputs)]
        if self._mode != "concat":
            return shapes[0]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def call(self, inputs: Any) -> Any:
        *first, second = keras.tree.flatten(inputs)
        if self._axis is not None:
            second = ops.flip(second, axis=self._axis)
        if self._mode is None:
            return second
        if self._mode == "concat":
            return ops.concatenate([*first, second], axis=-1)
        if self._mode == "mul":
            return first[0] * second
        return (first[0] + second) / (2 if self._mode == "ave" else 1)
