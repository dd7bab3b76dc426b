"""What a rule is: a function that says what a layer's output holds of the units that it takes.

A rule is given a :class:`Call`. It returns what the output's features hold, or None where they hold
nobody's units, and notes in the ledger which weights read the units, which are cut with them, and
what is in the way. Those of Keras' layers are in :mod:`tfprune.graph.keras_rules`; which layer has
which is said by :mod:`tfprune.graph.registry`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.graph.features import Features, shape_of
from tfprune.graph.trace import Ledger


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, as a rule sees it.

    Attributes
    ----------
    layer : keras.Layer or keras.Operation
        A copy of the model's layer, with the same configuration.
    args, kwargs : tuple, dict
        What it is called with, tensors and all.
    inputs : list of KerasTensor
        The tensors among these, in order.
    features : list of Features
        What each of the inputs holds.
    output : KerasTensor
        What the layer returns.
    ledger : Ledger
        Where the trace is noted.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Any]
    features: list[Features]
    output: Any
    ledger: Ledger

    @property
    def name(self) -> str:
        """The layer's path and class, for messages."""
        return self.ledger.describe(self.layer)

    @property
    def is_last_axis(self) -> bool:
        """Whether the layer's ``axis`` is the last one of its input."""
        return self.layer.axis in (-1, len(self.inputs[0].shape) - 1)

    def unitwise(self) -> Features:
        """The layer treats every feature of the last axis alone: see :func:`unitwise`."""
        return unitwise(self)

    def identity(self) -> Features:
        """The layer returns its input's values: see :func:`same_values`."""
        return same_values(self)

    def block(self, reason: str) -> None:
        """Keeps the units of all inputs: ``reason`` follows the layer's name in the results."""
        for features in self.features:
            self.ledger.block(features.labels, f"feeds {self.name}, which {reason}")


def unknown(call: Call) -> None:
    """What is not on a list may do anything with its units."""
    call.block("is not handled")


def unitwise(call: Call) -> Features:
    """A user's layer that treats every feature of the last axis alone.

    Weights that have the features on their last axis are cut with the units, others stay.

    Raises
    ------
    TfpruneError
        If it takes several tensors, or its output has another number of features.
    """
    features = _only_input(call, slice(-1, None))
    if call.ledger.row(call.layer, features) is None:
        return call.ledger.features_of(call.output)
    _cut_weights(call)
    return call.ledger.after(features, 0.0, shape_of(call.output))


def same_values(call: Call) -> Features:
    """A user's layer that returns its input's values in inference; weights as of :func:`unitwise`.

    Raises
    ------
    TfpruneError
        If it takes several tensors, or its output has another shape.
    """
    _only_input(call, slice(1, None))
    _cut_weights(call)
    return identity(call)


def _only_input(call: Call, axes: slice) -> Features:
    """What the only input holds; the output has the same size on these axes."""
    shapes = [tuple(tensor.shape) for tensor in call.inputs]
    made = tuple(getattr(call.output, "shape", ()))
    if len(shapes) != 1 or len(made) < 2 or made[axes] != shapes[0][axes]:
        raise TfpruneError(
            f"layer {call.name}: the rule registered for its class takes one tensor and keeps its "
            f"features, and it makes {made or 'several tensors'} "
            f"of {' and '.join(map(str, shapes))}"
        )
    return call.features[0]


def _cut_weights(call: Call) -> None:
    """Notes that weights with the features on their last axis go with the units."""
    width = tuple(call.inputs[0].shape[-1:])
    if any(tuple(weight.shape[-1:]) == width for weight in call.layer.weights):
        per_unit_weights(call, call.features[0], is_last_axis=True)


def identity(call: Call) -> Features:
    """Hands its input's values on."""
    return call.features[0]


def per_unit_weights(call: Call, features: Features, is_last_axis: bool) -> bool:
    """Notes that a layer has weights per feature, which go with their units."""
    layer, ledger = call.layer, call.ledger
    row = ledger.row(layer, features)
    if row is None:
        return False
    if not is_last_axis:
        ledger.refuse(layer, row, "does not work along the last axis")
        return False
    views = features.rows()[1]
    if max(Counter(zip(row[row > 0], views[row > 0], strict=True)).values()) > 1:
        ledger.refuse(layer, row, "treats one unit differently at each position")
        return False
    ledger.cut(ledger.path(layer), row)
    return True
