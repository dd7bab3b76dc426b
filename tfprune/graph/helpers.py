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
