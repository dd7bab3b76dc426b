"""Finds the preprocessing that a model does itself, before its first weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.data.scales import InputSpec, OwnScaling
from tfprune.graph.inputs import input_shapes
from tfprune.graph.layers import ACTIVATION_LAYERS, ARITHMETIC, is_operation
from tfprune.graph.wrappers import is_nested
from tfprune.outputs.distance import Call, graph_of

# Layers that take indices, whatever type their input is declared with.
INDEXING = (
    kl.Embedding, kl.CategoryEncoding, kl.IntegerLookup, kl.Hashing, kl.HashedCrossing,
)  # fmt: skip
# Layers that shift and scale by weights that no training changes.
SCALING = (kl.Rescaling, kl.Normalization)
# How keras.applications calls models without scaling of their own, and what they are trained with.
FAMILIES = {
    r"(resnet(50|101|152)|vgg(16|19))": "imagenet-caffe",
    r"(resnet(50|101|152)v2|xception|inception_v3|inception_resnet_v2|nasnet_(mobile|large)"
    r"|mobilenet(v2)?_\d\.\d+_\d+)": "-1..1",
    r"densenet(121|169|201)": "imagenet-torch",
}
# In place of a size that the model leaves open.
OPEN = 32
# A change of the values, relative to the largest byte, that is none.
NEXT_TO_NOTHING = 1e-3


@dataclass(frozen=True)
class _Values:
    """How a tensor depends on an input: ``x * factor + offset``.

    ``followed`` is False of the other inputs, whose values no layer with weights has met either.
    """

    factor: float = 1.0
    offset: float = 0.0
    layer: str = ""
    followed: bool = True


class _Index:
    """Marks an input that a layer takes as indices."""


def input_specs(model: keras.Model) -> list[InputSpec]:
    """What each input of a model takes, in the order of ``model.inputs``.

    Each input is followed through the layers without weights of the graph (augmentation,
    Resizing, Reshape, a nested model of preprocessing): what they, Rescaling, Normalization and
    arithmetic with constants do to the range is found out by calling them with 0 and 255.
    """
    specs = []
    family = _family(model) if len(model.inputs) == 1 else None
    names = zip(input_shapes(model).items(), model.inputs, strict=True)
    for place, ((name, shape), tensor) in enumerate(names):
        start = [_Values(followed=other == place) for other in range(len(model.inputs))]
        ends, outputs = _followed(model, start)
        index = any(isinstance(end, _Index) for end in ends)
        values = [end for end in (*ends, *outputs) if isinstance(end, _Values) and end.layer]
        # Of several branches the one that scales down most says which range is expected.
        own = min(values, key=lambda one: abs(one.factor), default=None)
        specs.append(
            InputSpec(
                name,
                shape,
                floats="float" in tensor.dtype and not index,
                scaling=None if own is None else OwnScaling(own.layer, own.factor, own.offset),
                family=family,
            )
        )
    return specs


def _family(model: keras.Model) -> tuple[str, str] | None:
    """The family that a model, or one nested in it, is called by."""
    for name in (model.name, *(layer.name for layer in model.layers if is_nested(layer))):
        for pattern, scale in FAMILIES.items():
            if re.fullmatch(pattern, name):
                return name, scale
    return None


def _followed(
    model: keras.Model, start: Sequence[_Values | None], prefix: str = ""
) -> tuple[list[_Values | _Index], list[_Values | None]]:
    """Follows one input: what reaches layers with weights, and what reaches the outputs."""
    graph, calls = graph_of(model)
    values = {id(tensor): value for tensor, value in zip(graph.inputs, start, strict=True) if value}
    ends: list[_Values | _Index] = []
    for call in calls:
        layer, reached = call.layer, [values.get(id(tensor)) for tensor in call.inputs]
        followed = [value for value in reached if value and value.followed]
        after: Sequence[_Values | None]
        if is_nested(layer) and any(reached):
            inner, after = _followed(layer, reached, f"{prefix}{layer.name}/")
            ends += inner
        elif None in reached or not reached:
            ends += followed
            continue
        elif type(layer) in INDEXING or type(layer).__name__ == "OneHot":
            ends += [_Index()] * len(followed)
            continue
        elif getattr(layer, "weights", None) and type(layer) not in SCALING:
            ends += followed
            continue
        else:
            change = _change(call) if followed and len(reached) == 1 else (1.0, 0.0)
            before = followed[0] if followed else _Values(followed=False)
            after = [_after(before, *change, prefix + layer.name)] * len(call.outputs)
        values |= {
            id(tensor): value for tensor, value in zip(call.outputs, after, strict=True) if value
        }
    return ends, [values.get(id(tensor)) for tensor in graph.outputs]


def _after(before: _Values, factor: float, offset: float, layer: str) -> _Values:
    unchanged = abs(factor - 1) < NEXT_TO_NOTHING and abs(offset) < NEXT_TO_NOTHING
    if unchanged:
        return before
    return _Values(before.factor * factor, before.offset * factor + offset, before.layer or layer)


def _change(call: Call) -> tuple[float, float]:
    """A layer's factor and offset, from its outputs for 0 and 255."""
    layer = call.layer
    if type(layer) in (kl.Activation, *ACTIVATION_LAYERS):
        return 1.0, 0.0
    if is_operation(layer) and type(layer).__name__ not in ARITHMETIC:
        return 1.0, 0.0

    def made_of(value: float) -> Any:
        def constant(leaf: Any) -> Any:
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            shape = (1, *(size or OPEN for size in leaf.shape[1:]))
            return keras.ops.full(shape, value, leaf.dtype)

        args, kwargs = keras.tree.map_structure(constant, (call.args, call.kwargs))
        outputs = keras.tree.flatten(layer(*args, **kwargs))
        return np.asarray(keras.ops.convert_to_numpy(outputs[0]), np.float64)

    try:
        low, high = made_of(0.0), made_of(255.0)
        factor, offset = float(np.median(high - low)) / 255, float(np.median(low))
    except Exception:  # Code of the user's own may raise anything.
        return 1.0, 0.0
    # What makes all values equal, or none, says nothing of a range.
    return (factor, offset) if factor and np.isfinite([factor, offset]).all() else (1.0, 0.0)
