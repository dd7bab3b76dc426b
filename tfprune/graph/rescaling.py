"""Normalisation over units of which some went: scaled so that it makes what it made of all.

Mean and variance of the units that stay are not those of all. What the layer makes of them is
brought to what it made in the original by a factor and a constant for each unit, in its weights;
where it has none, by a factor in the weights of what reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.core.arrays import Array
from tfprune.graph.clone import walk
from tfprune.graph.inputs import Samples, predicted
from tfprune.graph.layers import GROUP, arrays_of, kernel_of, stored
from tfprune.graph.shrink import Cut, kept_features
from tfprune.graph.trace import Trace, slot
from tfprune.graph.tracer import trace

# Samples that are measured at most, fewer where their numbers would be more; a part is held back.
SAMPLES, NUMBERS, HELD_BACK = 512, 2**24, 4


def rescale(
    smaller: keras.Model, traced: Trace, cuts: Sequence[Cut], samples: Samples
) -> dict[str, float]:
    """Fits the weights of normalisation that units were cut in front of, in place.

    Parameters
    ----------
    smaller : keras.Model
    traced : Trace
        Of the original, with approximations.
    cuts : sequence of Cut
    samples : Samples

    Returns
    -------
    dict of str to float
        By the layer's path how far its output is off on samples held back, relative to its spread.
    """
    keeps = {
        path: kept_features(traced, traced.input_labels[slot(path)], cuts)
        for path in traced.approximated
    }
    paths = [path for path, keep in keeps.items() if not keep.all()]
    if not paths:
        return {}
    ours = trace(smaller, approximate=True)
    layers = dict(walk(smaller))
    ends = [(traced, path) for path in paths]
    theirs = [one.call_outputs[path][0][0] for one, path in ends]
    x = _first(samples, theirs)
    goals = predicted(keras.Model(traced.model.inputs, theirs), x)
    held = np.arange(len(x[0])) % HELD_BACK == HELD_BACK - 1
    off = {}
    # From the input on: what one layer is brought to, the next one takes.
    for path, goal in zip(paths, goals, strict=True):
        out = ours.call_outputs[path][0][0]
        (made,) = predicted(keras.Model(ours.model.inputs, [out]), x)
        wanted = goal[..., keeps[path]].astype(np.float64)
        factor, constant = _fitted(
            made[~held].astype(np.float64), wanted[~held], _has_constant(layers[path])
        )
        if layers[path].weights:
            for layer in (layers[path], ours.copies[path]):
                _apply(layer, factor, constant)
        for reader, part in _kernels(traced, path):
            for layer in (layers[reader], ours.copies[reader]):
                _read_scaled(layer, part, factor)
        rest = (made[held] * factor + constant - wanted[held]) if held.any() else made * 0
        spread = max(float(np.var(wanted[held] if held.any() else wanted)), np.finfo(float).tiny)
        off[path] = math.sqrt(float(np.mean(rest**2)) / spread)
    return off


def _first(samples: Samples, tensors: Sequence[Any]) -> list[Array]:
    each = sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
    most = max(min(SAMPLES, NUMBERS // max(each, 1)), 2 * HELD_BACK)
    batches: list[list[Array]] = []
    for batch in samples.batches(min(most, 64)):
        batches.append(batch)
        if sum(len(part[0]) for part in batches) >= most:
            break
    return [np.concatenate(parts)[:most] for parts in zip(*batches, strict=True)]


def _fitted(made: Array, wanted: Array, with_constant: bool) -> tuple[Array, Array]:
    """For each unit the factor and the constant by which one is nearest to the other."""
    made, wanted = (array.reshape(-1, array.shape[-1]) for array in (made, wanted))
    means = made.mean(axis=0), wanted.mean(axis=0)
    if not with_constant:
        means = np.zeros_like(means[0]), np.zeros_like(means[1])
    ours, theirs = made - means[0], wanted - means[1]
    square = np.sum(ours**2, axis=0)
    tiny = 1e-12 * max(float(square.max(initial=0)), 1e-30)
    factor = np.where(square > tiny, np.sum(ours * theirs, axis=0) / np.maximum(square, tiny), 1.0)
    return factor, means[1] - factor * means[0]


def _kernels(traced: Trace, path: str) -> set[tuple[str, str]]:
    """The layers, and their parts, that make up for one without weights; each kernel once."""
    readers = traced.unweighted.get(path, ())
    return {(reader, "" if part.startswith(GROUP) else part) for reader, part in readers}


def _read_scaled(layer: Any, part: str, factor: Array) -> None:
    """Multiplies the weights by which a layer reads each feature."""
    weights, where = arrays_of(layer), kernel_of(layer, part)
    kernel = np.moveaxis(weights[where.name], where.axis, 0)
    scaled = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    weights[where.name] = np.moveaxis(scaled.astype(kernel.dtype), 0, where.axis)
    layer.set_weights(stored(layer, weights))


def _has_constant(layer: Any) -> bool:
    return "beta" in _names(layer)


def _names(layer: Any) -> Mapping[str, Any]:
    return {weight.name: weight for weight in layer.weights}


def _apply(layer: Any, factor: Array, constant: Array) -> None:
    weights = []
    for name, value in zip(_names(layer), layer.get_weights(), strict=True):
        more = constant if name == "beta" else 0.0
        weights.append((value * factor + more).astype(value.dtype))
    layer.set_weights(weights)
