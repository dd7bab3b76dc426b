"""The kernels of attention by heads, and products of them in fewer dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from tfprune.core.arrays import Array
from tfprune.core.low_rank import factors, lost, root
from tfprune.graph.layers import weights_of

# What a product may lose to be the same but for rounding.
SAME = 1e-3


class Reaching(Protocol):
    """What reaches a layer: arrays of shape (samples, positions, features)."""

    @property
    def query(self) -> Array: ...
    @property
    def key(self) -> Array: ...
    @property
    def value(self) -> Array: ...


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """What attention multiplies with, in float64; heads of queries share those of keys and values.

    Attributes
    ----------
    query, key, value : arrays of shape (features, heads, width)
    output : array of shape (query heads, width, outputs)
    query_bias : array of shape (heads, width)
    value_bias : array of shape (heads, width)
    bias : array of shape (outputs,) or None
        Of the output; None without biases. The keys' bias changes no attention and is left out.
    """

    query: Array
    key: Array
    value: Array
    output: Array
    query_bias: Array
    value_bias: Array
    bias: Array | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Heads of the queries, width of queries and keys, and of values."""
        return self.query.shape[1], self.query.shape[2], self.value.shape[2]

    def heads_of(self, head: int) -> range:
        """The heads of queries that share a head of keys."""
        each = self.query.shape[1] // self.key.shape[1]
        return range(head * each, (head + 1) * each)


def read_weights(layer: Any) -> HeadWeights:
    arrays = {
        name: array.astype(np.float64)
        for name, array in zip(weights_of(layer), layer.get_weights(), strict=True)
    }
    query, value = arrays["query/kernel"], arrays["value/kernel"]
    output = arrays["attention_output/kernel"]
    nothing = np.zeros(query.shape[1:]), np.zeros(value.shape[1:])
    bias = arrays.get("attention_output/bias")
    return HeadWeights(
        query, arrays["key/kernel"], value, output.reshape(*output.shape[:2], -1),
        arrays.get("query/bias", nothing[0]), arrays.get("value/bias", nothing[1]),
        None if bias is None else bias.ravel(),
    )  # fmt: skip


def written(weights: HeadWeights, copy: Any) -> list[Array]:
    """The weights as a layer of these sizes takes them."""
    arrays = {
        "query/kernel": weights.query, "key/kernel": weights.key, "value/kernel": weights.value,
        "attention_output/kernel": weights.output, "query/bias": weights.query_bias,
        "key/bias": np.zeros(weights.key.shape[1:]), "value/bias": weights.value_bias,
        "attention_output/bias": np.zeros(0) if weights.bias is None else weights.bias,
    }  # fmt: skip
    return [np.reshape(arrays[name], one.shape) for name, one in weights_of(copy).items()]


def narrowed(
    weights: HeadWeights, seen: Reaching, share: float | None, multiple: int | None
) -> HeadWeights:
    """Queries and keys, and values, in fewer dimensions."""
    if share is None:
        return weights
    _, of_keys, of_values = weights.sizes
    query, key = seen.query, seen.key
    if weights.bias is not None:  # With a one, which the biases are multiplied with.
        query = np.concatenate([query, np.ones((*query.shape[:-1], 1), query.dtype)], axis=-1)
    # The same for all keys changes no attention.
    about_query, about_key = root(_products(query)), root(_products(key, centred=True))
    about_value = root(_products(seen.value, centred=weights.bias is not None))
    scores, sums = [], []
    for head in range(weights.key.shape[1]):
        group = weights.heads_of(head)
        asked = [np.concatenate([weights.query[:, h], weights.query_bias[None, h]]) for h in group]
        asked = asked if weights.bias is not None else [weights.query[:, h] for h in group]
        left = np.concatenate([about_query @ one for one in asked])
        scores.append(factors(left, about_key @ weights.key[:, head]))
        out = np.concatenate([weights.output[h].T for h in group])
        sums.append(factors(about_value @ weights.value[:, head], out))
    rank = _rank([strengths for *_, strengths in scores], of_keys, share, multiple)
    width = _rank([strengths for *_, strengths in sums], of_values, share, multiple)
    if len(weights.key[0]) != len(weights.query[0]) and of_keys == of_values:
        rank = width = max(rank, width)  # Grouped queries have one width for all.
    narrow = weights
    if rank < of_keys:
        narrow = _fewer_keys(narrow, scores, rank)
    if width < of_values:
        mean = seen.value.reshape(-1, seen.value.shape[-1]).mean(axis=0, dtype=np.float64)
        narrow = _fewer_values(narrow, sums, width, mean)
    return narrow


def sizes_after(
    sizes: tuple[int, int, int], share: float, multiple: int | None
) -> tuple[int, int, int]:
    """The sizes of weights that :func:`narrowed` makes where a share of the widths goes."""
    heads, of_keys, of_values = sizes
    return heads, _rank((), of_keys, share, multiple), _rank((), of_values, share, multiple)


Factors = list[tuple[Array, Array, Array]]


def _fewer_keys(weights: HeadWeights, scores: Factors, rank: int) -> HeadWeights:
    # Scores are divided by the root of the width.
    scale = math.sqrt(rank / weights.query.shape[2])
    heads = weights.query.shape[1]
    of = [head for head in range(weights.key.shape[1]) for _ in weights.heads_of(head)]
    down = [scale * scores[of[head]][0][:, :rank] for head in range(heads)]
    return replace(
        weights,
        query=np.stack([weights.query[:, h] @ down[h] for h in range(heads)], axis=1),
        query_bias=np.stack([weights.query_bias[h] @ down[h] for h in range(heads)]),
        key=np.stack(
            [weights.key[:, h] @ c[:, :rank] for h, (_, c, _) in enumerate(scores)], axis=1
        ),
    )


def _fewer_values(weights: HeadWeights, sums: Factors, width: int, mean: Array) -> HeadWeights:
    values, outputs = [], []
    for head, (b, c, _) in enumerate(sums):
        values.append(weights.value[:, head] @ b[:, :width])
        outputs += [c[:, :width].T @ weights.output[h] for h in weights.heads_of(head)]
    value, output = np.stack(values, axis=1), np.stack(outputs)
    bias = weights.bias
    if bias is not None:
        # The weights of a mean add up to 1, so that a constant comes through as it is.
        for head in range(weights.value.shape[1]):
            for h in weights.heads_of(head):
                constant = mean @ weights.value[:, head] + weights.value_bias[head]
                bias = bias + constant @ weights.output[h] - mean @ value[:, head] @ output[h]
    return replace(
        weights, value=value, output=output, bias=bias,
        value_bias=np.zeros((value.shape[1], width)),
    )  # fmt: skip


def _rank(strengths: Sequence[Array], whole: int, share: float, multiple: int | None) -> int:
    """How many dimensions stay; with a share of 0 so many that nothing is lost."""
    if share:
        rank = max(round((1 - share) * whole), 1)
    else:
        rank = max(
            next((r for r in range(1, whole) if lost(one, r) <= SAME), whole) for one in strengths
        )
    return min(whole, -(-rank // multiple) * multiple) if multiple else rank


def _products(x: Array, centred: bool = False) -> Array:
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    rows = rows - rows.mean(axis=0) if centred else rows
    return np.asarray(rows.T @ rows / max(len(rows), 1))
