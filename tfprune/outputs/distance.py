"""The distance between two models' outputs, which healing lessens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from scipy import special

from tfprune.errors import TfpruneError
from tfprune.graph.clone import functional
from tfprune.graph.compile_settings import only_loss
from tfprune.graph.layers import FEEDFORWARD, MOVING, activation_name, is_operation
from tfprune.graph.predictions import outputs_of
from tfprune.graph.registry import hands_on
from tfprune.graph.wrappers import is_nested
from tfprune.utils.arrays import Array

# Of an output's mean square: the least that counts as its variance.
LEAST_SHARE = 1e-6
# What logits are divided by before they are compared as probabilities.
TEMPERATURE = 2.0
# Of a probability, the least whose logarithm is taken.
LEAST_PROBABILITY = 1e-7
# By what logits are multiplied to find the temperature at which they fit best.
SCALES = tuple(np.geomspace(0.25, 4.0, 33))


@dataclass(frozen=True)
class Match:
    """How one output is compared with the teacher's.

    Attributes
    ----------
    kind : {"softmax", "sigmoid", "logits", "values"}
    weight : float
        The weight of its loss.
    """

    kind: str
    weight: float = 1.0

    def loss(self, target: Any, output: Any) -> Any:
        """The loss of each sample; 0 where outputs are equal.

        Of logits and of the probabilities of a softmax the Kullback-Leibler divergence at a
        temperature of 2, so that classes which are not the answer count as well; of a sigmoid's the
        divergence as it is; of values the squared difference.

        References
        ----------
        Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".
        """
        if self.kind in ("softmax", "logits"):
            if self.kind == "softmax":
                # Logits up to a constant, which a softmax does not see.
                target, output = (
                    keras.ops.log(keras.ops.maximum(one, LEAST_PROBABILITY))
                    for one in (target, output)
                )
            soft, ours = keras.ops.softmax(target / TEMPERATURE), output / TEMPERATURE
            entropy = keras.losses.categorical_crossentropy
            return TEMPERATURE**2 * (entropy(soft, ours, from_logits=True) - entropy(soft, soft))
        if self.kind == "values":
            return keras.losses.mean_squared_error(target, output)
        entropy = keras.losses.binary_crossentropy
        return entropy(target, output) - entropy(target, target)


def confidence_free(kind: str, target: Array, output: Array) -> float:
    """How far outputs are from a teacher's, whatever the confidence they speak with.

    Of probabilities and logits the mean Kullback-Leibler divergence at the temperature of the
    output at which it is least, so that a model that is less sure than the teacher, but of the same
    things, is near to it; of values the mean squared difference.

    Parameters
    ----------
    kind : {"softmax", "sigmoid", "logits", "values"}
    target, output : array of shape (samples, ...)

    References
    ----------
    Guo et al. (2017), "On calibration of modern neural networks", for the temperature.

    Examples
    --------
    >>> sure, unsure = np.array([[0.9, 0.1]]), np.array([[0.7, 0.3]])
    >>> bool(confidence_free("softmax", sure, unsure) < 0.001)
    True
    """
    if kind == "values":
        return float(np.mean(np.square(output - target), dtype=np.float64))
    target, output = np.asarray(target, np.float64), np.asarray(output, np.float64)
    if kind == "logits":
        target, output = special.log_softmax(target, axis=-1), special.log_softmax(output, axis=-1)
        target, kind = np.exp(target), "softmax"
    elif kind == "softmax":
        output = np.log(np.maximum(output, LEAST_PROBABILITY))
    else:
        pair = np.clip(output, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        output = np.log(pair) - np.log1p(-pair)
    entropy = special.xlogy(target, target)
    if kind == "sigmoid":
        entropy = entropy + special.xlogy(1 - target, 1 - target)

    def divergence(scale: float) -> float:
        if kind == "softmax":
            return float(
                np.mean(np.sum(entropy - target * special.log_softmax(scale * output, -1), -1))
            )
        cross = target * special.log_expit(scale * output)
        cross = cross + (1 - target) * special.log_expit(-scale * output)
        return float(np.mean(entropy - cross))

    return min(divergence(scale) for scale in SCALES)


def difference(
    model: keras.Model, teacher: keras.Model, x: Sequence[Array], logits: bool | None = None
) -> float:
    """The loss that :func:`heal` minimises, on these samples.

    Parameters
    ----------
    model, teacher : keras.Model
    x : sequence of arrays of shape (samples, ...)
        One for each of the model's inputs.
    logits : bool, optional
        See :func:`tfprune.heal`.
    """
    ours, theirs = ([np.asarray(out) for out in outputs_of(one, x)] for one in (model, teacher))
    spreads = [Spread() for _ in theirs]
    for spread, out in zip(spreads, theirs, strict=True):
        spread.add(out)
    pairs = matches(model, teacher, [spread.variance for spread in spreads], logits)
    return sum(
        match.weight * float(np.mean(keras.ops.convert_to_numpy(match.loss(target, output))))
        for match, output, target in zip(pairs, ours, theirs, strict=True)
    )


def matches(
    model: keras.Model,
    teacher: keras.Model,
    variances: Sequence[float],
    logits: bool | None = None,
) -> list[Match]:
    """How each output is compared with the teacher's, by the activations of both.

    Parameters
    ----------
    model, teacher : keras.Model
    variances : sequence of float
        Of the teacher's outputs.
    logits : bool, optional
        See :func:`tfprune.heal`.
    """
    classes = _from_logits(teacher) if logits is None else logits
    several = [tensor.shape[-1] != 1 for tensor in teacher.outputs]
    result = []
    kinds = zip(kinds_of(model), kinds_of(teacher), several, variances, strict=True)
    for ours, theirs, units, variance in kinds:
        if ours == theirs and ours in ("softmax", "sigmoid"):
            result.append(Match(ours))
        elif ours == theirs == "linear" and classes and units:
            result.append(Match("logits"))
        else:
            result.append(Match("values", 1 / variance if variance > 0 else 1.0))
    return result


class Spread:
    """The variance of an output, batch by batch."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Any = 0.0
        self._square = 0.0

    def add(self, output: Array) -> None:
        """Adds a batch.

        Raises
        ------
        TfpruneError
            If it is not finite.
        """
        values = output.astype(np.float64)
        if not np.isfinite(values).all():
            raise TfpruneError("teacher: expected finite outputs, received NaN or infinity")
        self._count += len(values)
        self._sum = self._sum + values.sum(axis=0)
        self._square += float((values**2).mean(axis=tuple(range(1, values.ndim))).sum())

    @property
    def variance(self) -> float:
        """The variance, or a small share of the mean square where outputs hardly vary."""
        square = self._square / self._count
        return max(square - float(((self._sum / self._count) ** 2).mean()), LEAST_SHARE * square)


@dataclass(frozen=True)
class Call:
    """One call of a layer in a graph: the tensors that it takes and returns.

    ``args`` and ``kwargs`` are those of the call, constants included.
    """

    layer: Any
    inputs: list[Any]
    outputs: list[Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def graph_of(model: keras.Model) -> tuple[keras.Model, list[Call]]:
    """A graph of the model's own layers, and the calls in it in order; weights are shared."""
    calls: list[Call] = []

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        calls.append(Call(layer, _tensors((args, kwargs)), _tensors(outputs), args, kwargs))
        return outputs

    graph = keras.models.clone_model(
        functional(model), clone_function=lambda layer: layer, call_function=called
    )
    return graph, calls


def _tensors(structure: Any) -> list[Any]:
    return [t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)]


def kinds_of(model: keras.Model) -> list[str]:
    """The kind of each output by its activation: softmax, sigmoid, linear, or "values"."""
    graph, calls = graph_of(model)
    return [_kind(tensor, calls) for tensor in graph.outputs]


def _kind(tensor: Any, calls: Sequence[Call]) -> str:
    call = next((c for c in calls if any(output is tensor for output in c.outputs)), None)
    if call is None:
        return "values"
    layer = call.layer
    while type(layer) is kl.TimeDistributed:
        layer = layer.layer
    if is_nested(layer):
        position = next(n for n, output in enumerate(call.outputs) if output is tensor)
        return kinds_of(layer)[position]
    if hands_on(layer) or type(layer) in MOVING:
        kinds = {_kind(tensor, calls) for tensor in call.inputs}
        # Moved values may lie along another axis than the one that softmax sums to 1.
        kept = kinds <= ({"softmax", "sigmoid"} if hands_on(layer) else {"sigmoid"})
        return kinds.pop() if kept and len(kinds) == 1 else "values"
    if getattr(layer, "axis", -1) not in (-1, len(tensor.shape) - 1):
        return "values"
    if is_operation(layer):
        name = type(layer).__name__.lower()
    elif type(layer) in (*FEEDFORWARD, kl.Activation):
        name = activation_name(layer.activation)
    else:
        name = activation_name(layer)
    return name if name in ("softmax", "sigmoid", "linear") else "values"


def _from_logits(model: keras.Model) -> bool:
    """Whether a model of one output was compiled with a loss that takes logits of classes."""
    loss = only_loss(model) if model.compiled else None
    kinds = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
    return isinstance(loss, kinds) and bool(loss.get_config().get("from_logits"))
