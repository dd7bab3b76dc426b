"""Fewer heads and narrower ones in attention, by the algebra of its kernels.

Scores are products of a query's and a key's projection, so that only the product of their kernels
counts: it is brought to fewer dimensions. The values' projection and the output's likewise, as what
lies between is a weighted mean of positions. Whole heads are made up for by the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.core.arrays import Array
from tfprune.graph.calls import Attended
from tfprune.graph.clone import clone_layer, copy_weights, rebuild, walk
from tfprune.graph.compile_settings import compile_as
from tfprune.graph.features import Index
from tfprune.graph.head_weights import (
    SAME,
    HeadWeights,
    narrowed,
    read_weights,
    sizes_after,
    written,
)
from tfprune.graph.inputs import Samples, predicted
from tfprune.graph.tracer import trace
from tfprune.results import LayerResult

# Samples that are measured at most, fewer where their numbers would be more; a part is held back.
SAMPLES, NUMBERS, HELD_BACK = 512, 2**24, 4
# Widths of all heads up to which whole heads are looked at: a matrix of that size is solved for.
MOST_HEADS = 2048
# Shares of heads' widths that are tried to see what a budget costs.
LEVELS = (0.25, 0.5, 0.75)
# Relative ridge of the regression of removed heads on those that stay.
RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class _Seen:
    """What reaches a layer: arrays of shape (samples, positions, features)."""

    query: Array
    key: Array
    value: Array
    causal: bool

    def some(self, rows: Any) -> _Seen:
        return _Seen(self.query[rows], self.key[rows], self.value[rows], self.causal)

    def through(self, layer: Any) -> Array:
        """What a layer makes of it."""
        causal = {"use_causal_mask": True} if self.causal else {}
        made = layer(self.query, self.value, key=self.key, training=False, **causal)
        return np.asarray(keras.ops.convert_to_numpy(made), np.float64)


def can_be_reduced(layer: Any) -> str:
    """Why the algebra does not hold for a layer; empty where it does."""
    if type(layer) not in (kl.MultiHeadAttention, kl.GroupQueryAttention):
        return "it is not one of Keras' own attention layers"
    if layer.get_config().get("use_gate"):
        return "its heads are gated"
    return ""


def reduce_attention(
    model: keras.Model,
    shares: Mapping[str, float | None],
    samples: Samples,
    multiple: int | None = None,
    *,
    whole_heads: bool = True,
) -> tuple[keras.Model, list[LayerResult]]:
    """A model whose attention has fewer or narrower heads.

    Parameters
    ----------
    model : keras.Model
        It stays as it is.
    shares : mapping of str to float or None
        By the attention layers' paths, how much goes of the widths of each, or of its heads, or of
        both: what changes its output least. None removes only what the rest makes up for.
    samples : Samples
    multiple : int, optional
        What widths of heads are multiples of.
    whole_heads : bool
        Whether heads may go whole; else they are as wide as those of :func:`resized`.

    Returns
    -------
    model : keras.Model
    results : list of LayerResult
        Without indices and angles; ``units`` are the widths of all heads together.
    """
    if not shares:
        return model, []
    attended = [one for one in trace(model).attended if one.path in shares]
    layers = dict(walk(model))
    chosen: dict[int, HeadWeights] = {}
    results = []
    for path, seen in _inputs(model, attended, samples):
        layer, share = layers[path], shares[path]
        before = read_weights(layer)
        if share == 0:
            results.append(replace(_row(path, before, before, 0.0), note=""))
            continue
        ways = _ways(share)[: None if whole_heads else 1]
        after, error = _best(layer, before, seen, ways, multiple)
        results.append(_row(path, before, after, error))
        if after.sizes != before.sizes:
            chosen[id(layer)] = after
    sizes = {key: weights.sizes for key, weights in chosen.items()}
    return (_rebuilt(model, sizes, chosen) if chosen else model), results


def resized(
    model: keras.Model, shares: Mapping[str, float | None], multiple: int | None = None
) -> keras.Model:
    """A model with narrower heads, to count what it has: nobody has fitted their weights.

    Parameters
    ----------
    model, shares, multiple
        As of :func:`reduce_attention`.
    """
    sizes = {
        id(layer): sizes_after(read_weights(layer).sizes, share, multiple)
        for path, layer in walk(model)
        if (share := shares.get(path))
    }
    return _rebuilt(model, sizes, {}) if sizes else model


def head_errors(model: keras.Model, paths: Sequence[str], samples: Samples) -> dict[str, Array]:
    """What is wrong with attention's output once its heads have lost so many of their dimensions.

    Parameters
    ----------
    model, samples
        As of :func:`reduce_attention`.
    paths : sequence of str
        Of the attention layers.

    Returns
    -------
    dict of str to array of shape (dimensions - 1,)
        The mean squared error relative to the output's variance, for 1, 2, ... of them, never less
        for more; it is measured for some, and a line between these.
    """
    layers, errors = dict(walk(model)), {}
    attended = [one for one in trace(model).attended if one.path in paths]
    for path, seen in _inputs(model, attended, samples):
        before = read_weights(layers[path])
        whole = max(before.sizes[1:])
        shares = sorted({*LEVELS, 1 - 1 / whole}) if whole > 1 else []
        found = [_best(layers[path], before, seen, [(None, one)])[1] ** 2 for one in shares]
        gone = np.arange(1, whole) / whole
        errors[path] = np.interp(gone, [0.0, *shares], np.maximum.accumulate([0.0, *found]))
    return errors


def _rebuilt(
    model: keras.Model,
    sizes: Mapping[int, tuple[int, int, int]],
    weights: Mapping[int, HeadWeights],
) -> keras.Model:
    """The model with other heads in some layers, by identity; weights as far as there are any."""
    copies: list[tuple[Any, Any]] = []

    def change(layer: Any) -> Any:
        changes = _settings(layer, sizes[id(layer)]) if id(layer) in sizes else {}
        copies.append((layer, clone_layer(layer, **changes)))
        return copies[-1][1]

    smaller = rebuild(model, change)
    for layer, copy in copies:
        if id(layer) in weights:
            copy_weights(layer, copy, written(weights[id(layer)], copy))
        elif getattr(layer, "weights", None) and id(layer) not in sizes:
            copy_weights(layer, copy)
    compile_as(model, smaller)
    return smaller


def _inputs(
    model: keras.Model, attended: Sequence[Attended], samples: Samples
) -> Iterator[tuple[str, _Seen]]:
    """What reaches each layer, the calls of a shared one together where they are alike."""
    each = sum(
        math.prod(size or 1 for size in tensor.shape[1:])
        for one in attended for tensor in one.tensors
    )  # fmt: skip
    most = max(min(SAMPLES, NUMBERS // max(each, 1)), 2 * HELD_BACK)
    batches: list[list[Array]] = []
    for batch in samples.batches(min(most, 64)):
        batches.append(batch)
        if sum(len(part[0]) for part in batches) >= most:
            break
    x = [np.concatenate(parts)[:most] for parts in zip(*batches, strict=True)]
    for path in dict.fromkeys(one.path for one in attended):
        # Of a layer that is called again the first call speaks for all.
        one = next(call for call in attended if call.path == path)
        probe = keras.Model(one.inputs, [one.query, one.key, one.value])
        query, key, value = predicted(probe, x)
        yield path, _Seen(query, key, value, one.causal)


def _best(
    layer: Any,
    before: HeadWeights,
    seen: _Seen,
    ways: Sequence[tuple[float | None, float | None]],
    multiple: int | None = None,
) -> tuple[HeadWeights, float]:
    """The weights that change the output least, and by how much, relative to its spread."""
    held = np.arange(len(seen.query)) % HELD_BACK == HELD_BACK - 1
    fit, check = (seen.some(~held), seen.some(held)) if held.any() else (seen, seen)
    goal = check.through(layer)
    best: tuple[float, HeadWeights] | None = None
    for heads, width in ways:
        fewer = _without_heads(layer, before, fit, heads)
        if heads and fewer is before:
            continue
        after = narrowed(fewer, fit, width, multiple)
        if after.sizes == before.sizes and best is not None:
            continue
        made = check.through(_built(layer, after, check))
        error = float(
            np.sqrt(np.mean((made - goal) ** 2) / max(np.var(goal), np.finfo(float).tiny))
        )
        if best is None or error < best[0]:
            best = error, after
    assert best is not None, "the first way always is one"
    return best[1], best[0]


def _ways(share: float | None) -> list[tuple[float | None, float | None]]:
    """Shares of heads and of widths that together make the one asked for; 0 for what is free."""
    if share is None:
        return [(0.0, 0.0)]
    both = 1 - math.sqrt(1 - share)
    return [(None, share), (share, None), (both, both)]


def _without_heads(
    layer: Any, weights: HeadWeights, seen: _Seen, share: float | None
) -> HeadWeights:
    """Whole heads removed whose output the others make up for, by least squares.

    With 0 only those that nothing is lost with.
    """
    heads, _, width = weights.sizes
    if share is None or weights.key.shape[1] != heads or heads * width > MOST_HEADS:
        return weights
    made = seen.through(_bare(layer, weights, seen)).reshape(-1, heads * width)
    mean = made.mean(axis=0) if weights.bias is not None else np.zeros(heads * width)
    centred = made - mean
    products = centred.T @ centred / len(centred)
    out = weights.output.reshape(heads * width, -1)
    whole = max(float(np.sum((centred @ out) ** 2)) / len(centred), np.finfo(float).tiny)
    count = heads - max(round((1 - share) * heads), 1) if share else heads - 1
    kept = list(range(heads))
    for _ in range(count):
        errors = [(_missed(products, out, [k for k in kept if k != head], width), head)
                  for head in kept]  # fmt: skip
        error, head = min(errors)
        if not share and error > SAME**2 * whole:
            break
        kept.remove(head)
    if len(kept) == heads:
        return weights
    rows, gone = _places(kept, width), _places([h for h in range(heads) if h not in kept], width)
    fold = _solved(products, rows, gone)
    bias = weights.bias
    if bias is not None:
        bias = bias + (mean[gone] - mean[rows] @ fold) @ out[gone]
    return replace(
        weights,
        query=weights.query[:, kept], key=weights.key[:, kept], value=weights.value[:, kept],
        output=(out[rows] + fold @ out[gone]).reshape(len(kept), width, -1),
        query_bias=weights.query_bias[kept], value_bias=weights.value_bias[kept], bias=bias,
    )  # fmt: skip


def _places(heads: Sequence[int], width: int) -> Index:
    return (np.array(heads, np.intp)[:, None] * width + np.arange(width)).ravel()


def _solved(products: Array, rows: Index, gone: Index) -> Array:
    inner = products[np.ix_(rows, rows)]
    ridge = RIDGE * max(float(np.mean(np.diagonal(inner))), np.finfo(float).tiny)
    solved = np.linalg.solve(inner + ridge * np.eye(len(rows)), products[np.ix_(rows, gone)])
    return np.asarray(solved)


def _missed(products: Array, out: Array, kept: Sequence[int], width: int) -> float:
    """The mean square of the output that is missed with some heads alone."""
    rows = _places(kept, width)
    gone = np.setdiff1d(np.arange(len(products)), rows)
    fold = _solved(products, rows, gone)
    rest = products[np.ix_(gone, gone)] - products[np.ix_(gone, rows)] @ fold
    return max(float(np.sum(out[gone] * (rest @ out[gone]))), 0.0)


def _settings(layer: Any, sizes: tuple[int, int, int]) -> dict[str, Any]:
    heads, of_keys, of_values = sizes
    if type(layer) is kl.GroupQueryAttention:
        return {"head_dim": of_keys}
    return {"num_heads": heads, "key_dim": of_keys, "value_dim": of_values}


def _built(layer: Any, weights: HeadWeights, seen: _Seen, **more: Any) -> Any:
    """A layer of these weights, called on what reaches it."""
    copy = clone_layer(layer, **(_settings(layer, weights.sizes) | more))
    copy.build(seen.query.shape, seen.value.shape, seen.key.shape)
    copy.set_weights(written(weights, copy))
    return copy


def _bare(layer: Any, weights: HeadWeights, seen: _Seen) -> Any:
    """A layer that hands out what its heads make, one beside the other."""
    heads, _, width = weights.sizes
    size = heads * width
    identity = np.eye(size).reshape(heads, width, size)
    bias = None if weights.bias is None else np.zeros(size)
    bare = replace(weights, output=identity, bias=bias)
    return _built(layer, bare, seen, output_shape=(size,))


def _row(path: str, before: HeadWeights, after: HeadWeights, error: float) -> LayerResult:
    words = [
        f"{what} {old} to {new}"
        for what, old, new in zip(
            ("heads", "key_dim", "value_dim"), before.sizes, after.sizes, strict=True
        )
        if old != new
    ]
    note = f"{', '.join(words)}; output error {100 * error:.2g} %" if words else ""
    nothing = np.zeros((0, 0), np.float32)
    return LayerResult(
        path, _width(before), _width(after), 0, 0, 0, np.zeros(0, np.intp), nothing,
        note=note or "nothing that the rest makes up for",
    )  # fmt: skip


def _width(weights: HeadWeights) -> int:
    heads, of_keys, of_values = weights.sizes
    return heads * (of_keys + of_values)
