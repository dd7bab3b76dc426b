"""What a model is made of, from its layers alone: costs, and the groups of units in it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph.clone import walk
from tfprune.graph.costs import layer_costs, multiply_accumulates, parameters
from tfprune.graph.groups import Group, groups_of
from tfprune.graph.trace import Trace
from tfprune.graph.tracer import trace
from tfprune.graph.unfollowed import unfollowed
from tfprune.inspection.records import GroupInfo, LayerInfo

BIAS_BYTES = 4


def structure_of(
    model: keras.Model,
) -> tuple[tuple[LayerInfo, ...], tuple[GroupInfo, ...]]:
    """The layers of a model and its groups of units, those that stay as well.

    Raises
    ------
    TfpruneError
        If the model is neither Sequential nor Functional, or has no shapes yet.
    """
    traced = trace(model)
    by_path = dict(walk(model))
    layers = tuple(
        LayerInfo(path, one.layer, one.shape, one.parameters, one.macs, int8_bytes(by_path[path]))
        for path, one in layer_costs(model).items()
    )
    groups = groups_of(traced)
    savings = iter(_savings(traced, [group for group in groups if group.blocked is None]))
    infos = []
    for group in groups:
        saved = next(savings) if group.blocked is None else (None, None)
        consumers = tuple(dict.fromkeys(one.layer for one in group.consumers))
        kind = " + ".join(dict.fromkeys(group.kinds.values()))
        infos.append(
            GroupInfo(
                tuple(group.producers), kind, len(group.unit_ids), consumers, group.blocked, *saved
            )
        )
    infos += [
        GroupInfo((one.name,), one.kind or one.layer, _units(model, one.name), (), one.reason)
        for one in unfollowed(model, traced, groups)
    ]
    return layers, tuple(infos)


def int8_bytes(layer: Any) -> int:
    """About what the weights of a layer take in an int8 file.

    A weight takes one byte and a bias four; BatchNormalization takes none, as a converter
    multiplies it into the layer in front. What a file has around its weights is not counted.

    Examples
    --------
    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> int8_bytes(layer)
    14
    """
    if isinstance(layer, kl.BatchNormalization):
        return 0
    return sum(
        math.prod(weight.shape) * (BIAS_BYTES if weight.name == "bias" else 1)
        for weight in getattr(layer, "weights", ())
    )


def _units(model: keras.Model, path: str) -> int:
    """The units of a layer that is not followed, where it says how many; else 0."""
    layer = dict(walk(model)).get(path)
    return int(getattr(layer, "units", 0) or getattr(layer, "filters", 0) or 0)


def _savings(traced: Trace, groups: Sequence[Group]) -> list[tuple[int | None, int | None]]:
    """Parameters and multiply-accumulates that go with half of each group's units."""
    costs = [parameters(traced, groups)]
    with contextlib.suppress(TfpruneError):  # An axis has no size.
        costs.append(multiply_accumulates(traced, groups))
    savings = []
    for place, group in enumerate(groups):
        left = np.ones(len(groups))
        units = len(group.unit_ids)
        left[place] = (units - units // 2) / units
        saved: list[int | None] = [
            round(cost.total(np.ones(len(groups))) - cost.total(left)) for cost in costs
        ]
        savings.append((saved[0], saved[1] if len(saved) > 1 else None))
    return savings
