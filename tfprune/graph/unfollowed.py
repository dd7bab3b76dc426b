"""Finds layers with units that are never pruned: attention, custom layers, inside these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers as kl

from tfprune.graph.attention import can_be_reduced
from tfprune.graph.clone import walk
from tfprune.graph.groups import Group, followers
from tfprune.graph.layers import (
    ATTENTION,
    CONVOLUTIONS,
    DEPTHWISE,
    EMBEDDINGS,
    MAKERS,
    SEPARABLE,
    describe,
)
from tfprune.graph.trace import Trace
from tfprune.graph.user_rules import user_rule

# Why layers of Keras with units stay as they are, wherever they stand.
_REASONS: dict[tuple[type, ...], str] = {
    (kl.ConvLSTM1D, kl.ConvLSTM2D, kl.ConvLSTM3D): "the filters of a ConvLSTM are not pruned",
    (kl.RNN,): "the units of the cells of an RNN are not pruned",
    ATTENTION: "heads of attention go by degrees, by a share of least effect, or for a budget",
    (kl.EinsumDense,): "the units of an EinsumDense are not pruned",
}


@dataclass(frozen=True)
class Unfollowed:
    """A layer whose units are never pruned.

    Attributes
    ----------
    name : str
        Its path: ``wrapper/layer`` inside another layer.
    kind : str
        ``dense``, ``conv`` or ``embedding`` where it is of these kinds, else empty.
    layer : str
        The name of its class.
    reason : str
    """

    name: str
    kind: str
    layer: str
    reason: str


def unfollowed(
    model: keras.Model, traced: Trace | None = None, groups: Sequence[Group] = ()
) -> list[Unfollowed]:
    """The layers of a model that have units and are no plain Dense layer or convolution of it.

    With a trace of it, and its groups of layers, those too whose units go with others', and what it
    tells of the reasons.
    """
    layers: dict[str, Unfollowed] = {}
    for path, layer in walk(model):
        if type(layer) not in (*MAKERS, *EMBEDDINGS):
            layers |= {one.name: one for one in _within(path, layer, "")}
    if traced is None:
        return list(layers.values())
    for path in traced.scored & set(layers):
        layers[path] = replace(layers[path], reason="its scores are read, so its heads stay")
    for path, together in followers(traced, groups).items():
        whole = " and ".join(group.name for group in together)
        reason = f"no choice of its own: whole groups of its filters go with those of {whole}"
        layers[path] = Unfollowed(path, "conv", type(traced.layers[path]).__name__, reason)
    return list(layers.values())


def _within(path: str, layer: Any, holder: str) -> Iterator[Unfollowed]:
    """The layer itself, if it has units, or those inside it that have."""
    inside = f"inside {holder}, which is not looked into" if holder else ""
    keras_own = type(layer).__module__.split(".")[0] == "keras"
    reason = next((why for kinds, why in _REASONS.items() if isinstance(layer, kinds)), "")
    if isinstance(layer, ATTENTION):
        reason = can_be_reduced(layer) or reason
    kind = _kind(layer)
    if keras_own and (reason or kind):
        yield Unfollowed(path, kind, type(layer).__name__, inside or reason)
        return
    parts = _parts(layer)
    if not keras_own and user_rule(layer) is None and _has_kernel(layer, parts):
        own = f"{type(layer).__name__} is not one of Keras' layers"
        yield Unfollowed(path, kind, type(layer).__name__, inside or own)
    for part in parts:
        yield from _within(f"{path}/{part.name}", part, holder or describe(layer))


def _kind(layer: Any) -> str:
    if isinstance(layer, kl.Dense):
        return "dense"
    if isinstance(layer, kl.Embedding):
        return "embedding"
    makes_filters = isinstance(layer, (*CONVOLUTIONS, *SEPARABLE))
    return "conv" if makes_filters and not isinstance(layer, DEPTHWISE) else ""


def _parts(layer: Any) -> list[Any]:
    """The layers inside a layer, once each."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    if not isinstance(layer, keras.Layer):
        return []  # An operation.
    # No public attribute has the layers that a custom layer holds.
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _has_kernel(layer: Any, parts: list[Any]) -> bool:
    """Whether a layer multiplies with weights of its own."""
    if isinstance(layer, keras.Model):
        return False
    others = {id(weight) for part in parts for weight in part.weights}
    weights = getattr(layer, "trainable_weights", [])
    return any(len(weight.shape) > 1 and id(weight) not in others for weight in weights)
