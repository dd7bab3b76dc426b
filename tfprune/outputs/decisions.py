"""How outputs decide: by the largest unit, or each unit alone above a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.graph.layers import (
    ACTIVATION_LAYERS,
    FEEDFORWARD,
    MOVING,
    RESIZING,
    activation_name,
    is_operation,
)
from tfprune.graph.registry import hands_on
from tfprune.graph.wrappers import is_nested
from tfprune.outputs.distance import Call, graph_of
from tfprune.utils.arrays import Array

# Above what units decide by the activation that makes them: the middle of its range.
MIDDLES = {
    **dict.fromkeys(("sigmoid", "hard_sigmoid", "sparse_sigmoid", "softmax"), 0.5),
    **dict.fromkeys(("tanh", "hard_tanh", "softsign"), 0.0),
}
_LOSSES = keras.losses
BINARY = (
    _LOSSES.BinaryCrossentropy, _LOSSES.BinaryFocalCrossentropy,
    _LOSSES.binary_crossentropy, _LOSSES.binary_focal_crossentropy,
)  # fmt: skip
HINGES = (_LOSSES.Hinge, _LOSSES.SquaredHinge, _LOSSES.hinge, _LOSSES.squared_hinge)
OF_VALUES = (
    _LOSSES.MeanSquaredError, _LOSSES.MeanAbsoluteError, _LOSSES.Huber, _LOSSES.LogCosh,
    _LOSSES.mean_squared_error, _LOSSES.mean_absolute_error, _LOSSES.huber, _LOSSES.log_cosh,
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """How one output decides.

    Attributes
    ----------
    alone : bool
        Whether each unit decides for itself; else the largest along the last axis does.
    threshold : float
        Above which a unit that decides alone says yes.
    reason : str
        Why that threshold, in words.
    binary : bool
        Whether what is known of the output says that its units answer yes or no.
    values : bool
        Whether what is known of the output says that it decides nothing unless labels do.
    guessed : bool
        Whether neither its activation nor its loss says what it is.
    """

    alone: bool
    threshold: float
    reason: str
    binary: bool = False
    values: bool = False
    guessed: bool = False

    def decisions(self, output: Array) -> Array:
        """The classes that an output decides for.

        Parameters
        ----------
        output : array of shape (samples, ...)

        Returns
        -------
        array of shape (samples, ...)
            Without the last axis where the largest along it decides or it has one unit; 0 or 1
            for each unit that decides alone.
        """
        if output.ndim < 2:
            output = output[:, None]
        if not self.alone:
            return output.argmax(axis=-1)
        above = (output > self.threshold).astype(np.intp)
        return above if output.shape[-1] > 1 else above[..., 0]


def rule_of(output: Array, activation: str = "", loss: Any = None) -> Rule:
    """How an output decides: by its activation, its loss, or else the range of its values.

    Parameters
    ----------
    output : array of shape (samples, ...)
    activation : str
        Its name in Keras, "" if it is not known.
    loss : Keras loss, function or name, optional
        That the output was compiled with.
    """
    alone = output.ndim < 2 or output.shape[-1] == 1
    sigmoid = activation in MIDDLES and MIDDLES[activation] == 0.5
    if activation in MIDDLES:
        return Rule(
            alone, MIDDLES[activation], f"its activation is {activation}",
            binary=sigmoid and activation != "softmax",
        )  # fmt: skip
    name, logits = _known(loss)
    if name in BINARY:
        takes = "logits" if logits else "probabilities"
        return Rule(alone, 0.0 if logits else 0.5, f"its loss takes {takes}", binary=True)
    for kinds, threshold, reason in (
        (HINGES, 0.0, "its loss is a hinge"),
        (OF_VALUES, 0.5, "its loss compares it with 0 and 1 as values"),
    ):
        if name in kinds:
            return Rule(alone, threshold, reason, values=kinds is OF_VALUES)
    if activation == "linear":
        one_side = alone and (output.min() > 0 or output.max() < 0)
        reason = "its activation is linear, so it is taken for a logit"
        return Rule(alone, 0.0, reason, values=bool(one_side), guessed=name is None)
    if output.min() < 0 or output.max() > 1:
        return Rule(alone, 0.0, "its values do not lie between 0 and 1", guessed=name is None)
    sums = output.reshape(len(output), -1).sum(axis=1)
    one = np.allclose(sums, 1, atol=1e-3)
    reason = "its values lie between 0 and 1"
    return Rule(alone, 0.5, reason, binary=not one, guessed=name is None)


def rules_of(
    model: keras.Model,
    outputs: Sequence[Array],
    losses: Callable[[], Sequence[Any]] | None = None,
) -> list[Rule]:
    """How each output of a model decides.

    Parameters
    ----------
    model : keras.Model
    outputs : sequence of arrays of shape (samples, ...)
        What it computes for some samples.
    losses : callable, optional
        Gives the loss of each output; called only where an activation does not tell. By default
        those that the model is compiled with.
    """
    activations = activations_of(model)
    known: Sequence[Any] = []
    if any(name not in MIDDLES for name in activations):
        known = (losses or (lambda: losses_of(model)))()
    if len(known) != len(outputs):
        known = [None] * len(outputs)
    return [rule_of(*each) for each in zip(outputs, activations, known, strict=True)]


def losses_of(model: keras.Model) -> list[Any]:
    """The loss that each output is compiled with; none if it is unknown."""
    loss = model.loss if model.compiled else None
    if loss is None:
        return []
    if isinstance(loss, dict):
        return [loss.get(name) for name in model.output_names]
    return list(loss) if isinstance(loss, (list, tuple)) else [loss] * len(model.outputs)


def _known(loss: Any) -> tuple[Any, bool]:
    """A loss as Keras' class or function, and whether it takes logits."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # The name of a function that only its author has.
            return None, False
    if isinstance(loss, keras.Loss):
        return type(loss), bool(loss.get_config().get("from_logits"))
    return loss, False


def activations_of(model: keras.Model) -> list[str]:
    """The name of each output's activation; "" if it is unknown.

    Layers that move values, or compute a mean or the greatest of some, are looked through.
    """
    graph, calls = graph_of(model)
    return [_activation(tensor, calls) for tensor in graph.outputs]


def _activation(tensor: Any, calls: Sequence[Call]) -> str:
    call = next((c for c in calls if any(output is tensor for output in c.outputs)), None)
    if call is None:
        return ""
    layer = call.layer
    while type(layer) is kl.TimeDistributed:
        layer = layer.layer
    if is_nested(layer):
        position = next(n for n, output in enumerate(call.outputs) if output is tensor)
        return activations_of(layer)[position]
    through = (*MOVING, *RESIZING, kl.Resizing)
    linear = isinstance(layer, kl.Activation) and activation_name(layer.activation) == "linear"
    if type(layer) in through or linear or hands_on(layer):
        names = {_activation(tensor, calls) for tensor in call.inputs}
        return names.pop() if len(names) == 1 else ""
    if is_operation(layer):
        name = type(layer).__name__.lower()
    elif type(layer) in (*FEEDFORWARD, kl.Activation):
        name = activation_name(layer.activation)
    elif type(layer) in ACTIVATION_LAYERS:
        name = activation_name(layer)
    else:
        return ""
    return name if name in (*MIDDLES, "linear") else ""


def commonest(decisions: Array, each: bool = False) -> float:
    """The share of decisions that are the commonest one; with ``each`` unit's own, their mean.

    Parameters
    ----------
    decisions : array of shape (samples, ...)
        Whole numbers from 0.
    each : bool
        Whether the last axis is of units that decide alone.

    Examples
    --------
    >>> commonest(np.array([0, 0, 0, 2])), commonest(np.array([[0, 1], [0, 1]]), each=True)
    (0.75, 1.0)
    """
    columns = decisions.reshape(-1, decisions.shape[-1] if each else 1).T
    return float(np.mean([np.bincount(column).max() / len(column) for column in columns]))
