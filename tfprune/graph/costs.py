"""Parameters and multiply-accumulates of a model's layers, by the widths of its groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.core.arrays import Array
from tfprune.errors import TfpruneError
from tfprune.graph.clone import walk
from tfprune.graph.features import Index
from tfprune.graph.groups import Group
from tfprune.graph.layers import (
    ATTENDED,
    ATTENTION,
    CONVOLUTIONS,
    DEPTHWISE,
    READERS,
    SEPARABLE,
    TRANSPOSED,
    describe,
    kernel_of,
    weights_of,
)
from tfprune.graph.trace import Trace, slot
from tfprune.graph.tracer import trace
from tfprune.results import LayerCost


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs as sums of products: a weight's size times its shares of inputs and units left.

    Attributes
    ----------
    sizes : array of shape (weights,)
        What each weight costs in the original model.
    inputs, units : arrays of shape (weights, 1 + groups)
        The shares of a weight's input features, and of its units, that belong to no group that
        can shrink (the first column), and to each group that can. A group may be the heads of an
        attention layer.
    """

    sizes: Array
    inputs: Array
    units: Array

    def total(self, left: Array) -> float:
        """The total cost with these shares of the groups left, of shape (groups,)."""
        shares = np.concatenate([[1.0], left])
        return float(np.sum(self.sizes * (self.inputs @ shares) * (self.units @ shares)))

    def slopes(self, left: Array) -> Array:
        """The derivative of the total by each group's share, shape (groups,)."""
        shares = np.concatenate([[1.0], left])
        slopes = (self.sizes * (self.units @ shares)) @ self.inputs
        slopes += (self.sizes * (self.inputs @ shares)) @ self.units
        return np.asarray(slopes[1:])


def parameters(trace: Trace, groups: Sequence[Group], heads: Sequence[str] = ()) -> Costs:
    """Costs in parameters: the numbers that layers hold.

    The heads of attention layers, by their paths, count as groups behind the others.
    """
    terms = [
        (math.prod(weight.shape), *_shares(trace, groups, path, name, weight, heads=heads))
        for path, layer in trace.layers.items()
        for name, weight in _weights(layer).items()
    ]
    return _costs(terms, len(groups) + len(heads))


def multiply_accumulates(trace: Trace, groups: Sequence[Group], heads: Sequence[str] = ()) -> Costs:
    """Costs in multiply-accumulates: products of an activation and a weight for one sample.

    Every kernel of a Dense, convolution, recurrent or attention layer counts once for each place
    where it is used; products between activations (of queries and keys, say) do not count.

    Raises
    ------
    TfpruneError
        If a layer's input has an axis without a size.
    """
    terms = [
        (
            math.prod(weight.shape) * _places(layer, inputs, trace.steps.get(path, 0)),
            *_shares(trace, groups, path, name, weight, heads=heads),
        )
        for path, calls in trace.call_inputs.items()
        if type(layer := trace.layers.get(path)) in READERS
        for inputs in calls
        for name, weight in _weights(layer).items()
        if name.endswith("kernel")
    ]
    return _costs(terms, len(groups) + len(heads))


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one sample: see :func:`multiply_accumulates`."""
    return round(multiply_accumulates(trace(model), []).total(np.zeros(0)))


def layer_macs(traced: Trace) -> dict[str, int | None]:
    """Multiply-accumulates of one sample for each layer that has any, by its path.

    See :func:`multiply_accumulates`; None where an axis of the layer's input has no size.
    """
    costs: dict[str, int | None] = {}
    for path, calls in traced.call_inputs.items():
        layer = traced.layers.get(path)
        if type(layer) not in READERS:
            continue
        kernels = [w for name, w in _weights(layer).items() if name.endswith("kernel")]
        each = sum(math.prod(kernel.shape) for kernel in kernels)
        try:
            steps = traced.steps.get(path, 0)
            costs[path] = each * sum(_places(layer, inputs, steps) for inputs in calls)
        except TfpruneError:
            costs[path] = None
    return costs


def layer_costs(model: keras.Model) -> dict[str, LayerCost]:
    """What each layer of a model has and costs, by its path.

    Raises
    ------
    TfpruneError
        See :func:`parameters`.
    """
    traced = trace(model)
    macs = layer_macs(traced)
    return {
        path: LayerCost(
            type(layer).__name__, _shape(traced, path, layer),
            sum(math.prod(weight.shape) for weight in getattr(layer, "weights", ())),
            macs.get(path, 0),
        )
        for path, layer in dict(walk(model)).items()
    }  # fmt: skip


def _shape(traced: Trace, path: str, layer: Any) -> tuple[int | None, ...]:
    """As :func:`output_shape`; inside a TimeDistributed with its steps."""
    if path in traced.steps:
        return tuple(traced.call_outputs[path][0][0].shape[1:])
    return output_shape(layer)


def output_shape(layer: Any) -> tuple[int | None, ...]:
    """The shape of a layer's output for one sample, at its first call; of several the first."""
    try:
        output = keras.tree.flatten(layer.output)[0]
    except (AttributeError, ValueError, IndexError):  # A layer that nothing calls.
        return ()
    return tuple(output.shape[1:])


def _weights(layer: Any) -> dict[str, Any]:
    if type(layer) in READERS:
        return weights_of(layer)
    # Layers inside a user's own may name theirs alike; operations such as x[:, 0] have none.
    return {str(number): each for number, each in enumerate(getattr(layer, "weights", ()))}


def _costs(terms: Sequence[tuple[float, Array, Array]], groups: int) -> Costs:
    width = 1 + groups
    return Costs(
        np.array([size for size, _, _ in terms], float),
        np.array([inputs for _, inputs, _ in terms]).reshape(-1, width),
        np.array([units for _, _, units in terms]).reshape(-1, width),
    )


def _shares(
    trace: Trace,
    groups: Sequence[Group],
    path: str,
    name: str,
    weight: Any,
    *,
    heads: Sequence[str],
) -> tuple[Array, Array]:
    """Rows of :class:`Costs` for one weight."""
    layer = trace.layers[path]
    reads = units = np.zeros(0, np.intp)
    part = name.partition("/")[0] if type(layer) in ATTENTION else ""
    if name == "recurrent_kernel":
        part = "recurrent"
    own = type(layer) not in READERS or type(layer) in DEPTHWISE or name == "depthwise_kernel"
    if part in (*ATTENDED, "recurrent", "") and (own or name == kernel_of(layer, part).name):
        reads = trace.input_labels.get(slot(path, part), reads)
    if type(layer) not in READERS and weight.shape[-1:] != reads.shape:
        reads = np.zeros(0, np.intp)  # It does not depend on the number of features.
    if path in trace.producers and name != "depthwise_kernel":
        units = trace.producers[path].labels
    more = np.zeros(len(heads))
    inputs = np.concatenate([_by_group(trace, groups, reads), more])
    if path in heads and name != "attention_output/bias":
        return inputs, np.eye(1 + len(groups) + len(heads))[1 + len(groups) + heads.index(path)]
    return inputs, np.concatenate([_by_group(trace, groups, units), more])


def _by_group(trace: Trace, groups: Sequence[Group], labels: Index) -> Array:
    """The share of labels that belong to no group, then to each group."""
    shares = np.zeros(1 + len(groups))
    unit_ids = trace.labels.find(labels)
    for place, group in enumerate(groups, 1):
        if len(labels):
            shares[place] = np.mean((group.units_of(unit_ids) >= 0) & (labels > 0))
    shares[0] = 1 - shares.sum()
    return shares


def _places(layer: Any, inputs: Sequence[Any], steps: int) -> int:
    """How often a layer uses its kernels for one sample; ``steps`` axes are a wrapper's."""
    shape = tuple(inputs[0].shape)
    outside, shape = shape[1 : 1 + steps], (shape[0], *shape[1 + steps :])
    if type(layer) in (*CONVOLUTIONS, *DEPTHWISE, *SEPARABLE) and type(layer) not in TRANSPOSED:
        shape = tuple(layer.compute_output_shape(shape))
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    axes = (*outside, *(shape[2:] if first else shape[1:-1]))
    if None in axes:
        raise TfpruneError(
            f"multiply-accumulates: {describe(layer)} has an axis without a size; "
            "build the model for inputs of one size"
        )
    return math.prod(axes)
