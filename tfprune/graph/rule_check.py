"""Rules that users registered, tried on a model before units are cut by them.

Some units are cut in one copy of the model. In another, which keeps them, the weights that read
these units are zero (the masked original). Both compute the same if every rule is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.core.fold import Fold
from tfprune.errors import TfpruneError
from tfprune.graph.batches import from_zero_state
from tfprune.graph.clone import clone_layer
from tfprune.graph.groups import Consumer, Group
from tfprune.graph.inputs import predicted
from tfprune.graph.layers import arrays_of, kernel_of, stored
from tfprune.graph.registry import hands_on
from tfprune.graph.shrink import Cut, kept_features, shrink
from tfprune.graph.trace import RegisteredCall, Trace
from tfprune.graph.tracer import trace
from tfprune.utils.arrays import Array

# Largest difference, as a share of the largest value, that rounding may make.
SINGLE_PRECISION, HALF_PRECISION = 1e-3, 3e-2


def check_rules(
    model: keras.Model, traced: Trace, groups: Sequence[Group], samples: Sequence[Array]
) -> None:
    """Tries the rules of registered layers that take units of the groups.

    Parameters
    ----------
    model : keras.Model
    traced : Trace
        Of the model.
    groups : sequence of Group
        Those that may lose units.
    samples : sequence of arrays of shape (samples, ...)
        One for each of the model's inputs.

    Raises
    ------
    TfpruneError
        If a layer does not do what the rule of its class says.
    """
    calls = traced.registered
    concerned = [group for group in groups if any(_takes(traced, call, group) for call in calls)]
    if not concerned:
        return
    masked = trace(model)
    expected = _values(masked, samples)
    for call, inputs, output in zip(calls, expected.inputs, expected.outputs, strict=True):
        layer = traced.layers[call.layer]
        if hands_on(layer) and not _alike(layer, inputs, output):
            raise _refusal(traced, [call], "it does not return its input's values")
    for cuts in _trials(concerned):
        _mask(masked, cuts)
        expected = _values(masked, samples)
        try:
            smaller = trace(shrink(model, traced, cuts))
            received = _values(smaller, samples)
        except TfpruneError:  # Names the layer.
            raise
        except Exception as error:  # The layer's class may do anything.
            reason = str(error).strip().partition("\n")[0]
            failing = [call for call in calls if _fails(traced, call, cuts)] or calls
            raise _refusal(traced, failing, f"it cannot be made smaller ({reason})") from error
        pairs = zip(calls, expected.outputs, received.outputs, strict=True)
        for call, wanted, output in pairs:
            if call.labels is None:
                continue
            # An axis of any size has one entry among the labels.
            keep = np.broadcast_to(kept_features(traced, call.labels, cuts), wanted.shape[1:])
            if not _alike(traced.layers[call.layer], wanted[:, keep], output):
                raise _refusal(traced, [call], "its output depends on units that were cut")
        for wanted, output in zip(expected.model_outputs, received.model_outputs, strict=True):
            if not _alike(model, wanted, output):
                raise _refusal(traced, calls, "the model computes something else without units")


@dataclass(frozen=True, eq=False)
class _Values:
    """What the registered calls take and return, and the model's outputs."""

    inputs: list[Array]
    outputs: list[Array]
    model_outputs: list[Array]


def _values(traced: Trace, samples: Sequence[Array]) -> _Values:
    calls, outputs = traced.registered, traced.model.outputs
    tensors = [call.inputs[0] for call in calls]
    tensors += [keras.tree.flatten(call.output)[0] for call in calls]
    probe = keras.Model(traced.model.inputs, [*tensors, *outputs])
    with from_zero_state(probe):
        values = predicted(probe, samples)
    count = len(calls)
    return _Values(values[:count], values[count : 2 * count], values[2 * count :])


def _takes(traced: Trace, call: RegisteredCall, group: Group) -> bool:
    """Whether units of the group reach a registered layer."""
    labels = np.unique(np.concatenate([np.unique(array) for array in call.input_labels]))
    return bool((group.units_of(traced.labels.find(labels[labels > 0])) >= 0).any())


def _fails(traced: Trace, call: RegisteredCall, cuts: Sequence[Cut]) -> bool:
    """Whether a registered layer by itself cannot be called on fewer features."""
    keep = kept_features(traced, call.input_labels[0], cuts)
    size = int(keep[(0,) * (keep.ndim - 1)].sum())
    tensor = call.inputs[0]
    try:
        data = keras.Input((*tensor.shape[1:-1], size), dtype=tensor.dtype)
        clone_layer(traced.layers[call.layer])(data)
    except Exception:  # Each layer has an error of its own.
        return True
    return False


def _trials(groups: Sequence[Group]) -> Iterator[list[Cut]]:
    """Every unit goes once, and others go in an order that no permutation leaves as it is."""
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(len(group.unit_ids)) for group in groups]
    halves = [len(order) // 2 for order in shuffled]
    for kept in (
        [
            np.arange(len(order)) < max(half, 1)
            for order, half in zip(shuffled, halves, strict=True)
        ],
        [order < half for order, half in zip(shuffled, halves, strict=True)],
        [order >= half for order, half in zip(shuffled, halves, strict=True)],
    ):
        yield [_cut(group, each) for group, each in zip(groups, kept, strict=True)]


def _cut(group: Group, kept: npt.NDArray[np.bool_]) -> Cut:
    for units in (*group.producers.values(), *(one.units for one in group.consumers)):
        if not kept[units].any():
            kept[units[0]] = True
    chosen = np.flatnonzero(kept)
    return Cut(
        group,
        chosen,
        np.eye(len(kept))[:, chosen],
        [(r, _nothing(r, kept)) for r in group.consumers],
    )


def _nothing(consumer: Consumer, kept: npt.NDArray[np.bool_]) -> Fold:
    """Readers get nothing for the units that go."""
    stay = np.flatnonzero(kept[consumer.units])
    return Fold(stay, np.eye(len(consumer.units))[stay], np.zeros(len(consumer.units)))


def _mask(masked: Trace, cuts: Sequence[Cut]) -> None:
    """Zeroes the weights that read units which are cut."""
    reads = [(consumer, fold) for cut in cuts for consumer, fold in cut.folds]
    for path in {consumer.layer for consumer, _ in reads}:
        original, copy = masked.layers[path], masked.copies[path]
        weights = arrays_of(original)
        for consumer, fold in reads:
            if consumer.layer == path:
                kernel = kernel_of(original, consumer.part)
                gone = np.delete(consumer.index, fold.kept, axis=1).ravel()
                np.moveaxis(weights[kernel.name], kernel.axis, 0)[gone] = 0
        copy.set_weights(stored(copy, weights))


def _alike(layer: Any, wanted: Array, received: Array) -> bool:
    half = "16" in str(getattr(layer, "compute_dtype", ""))
    wanted, received = (array.astype(np.float64).ravel() for array in (wanted, received))
    most = np.abs(wanted).max(initial=0)
    limit = (HALF_PRECISION if half else SINGLE_PRECISION) * most
    return wanted.shape == received.shape and bool((np.abs(wanted - received) <= limit).all())


def _refusal(traced: Trace, calls: Sequence[RegisteredCall], reason: str) -> TfpruneError:
    layers = dict.fromkeys(call.layer for call in calls)
    names = ", ".join(f"{path} ({type(traced.layers[path]).__name__})" for path in layers)
    return TfpruneError(
        f"layer {names}: the rule registered for its class does not hold, {reason}; "
        "register another one"
    )
