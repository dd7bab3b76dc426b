"""Rules of Keras' layers: see :mod:`tfprune.graph.rules`."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.graph import layers as known
from tfprune.graph.calls import Attended
from tfprune.graph.configs import config_of
from tfprune.graph.features import Features, shape_of
from tfprune.graph.rules import Call, per_unit_weights, unknown


def dense(call: Call) -> Features:
    """A Dense layer."""
    call.ledger.read(call.layer, call.inputs[0], call.features[0])
    return _made(call, "dense", call.layer.units)


def _made(call: Call, kind: str, units: int) -> Features:
    """What a layer makes, after its activation."""
    return _activated(call, call.ledger.produce(call.layer, kind, units, call.output))


def attention(call: Call) -> None:
    """Multi-head attention reads query, key and value with a kernel for each."""
    if config_of(call.layer).get("use_gate"):
        unknown(call)
        return
    arguments = _bound(call)
    query, value = arguments["query"], arguments["value"]
    key = arguments.get("key")
    read = {"query": query, "key": value if key is None else key, "value": value}
    for part, tensor in read.items():
        call.ledger.read(call.layer, tensor, call.ledger.features_of(tensor), part=part)
    for tensor, features in zip(call.inputs, call.features, strict=True):
        if all(tensor is not other for other in read.values()):
            call.ledger.block(features.labels, f"is a mask of {call.name}")
    if type(call.layer) is kl.GroupQueryAttention:
        what = f"{call.name} makes as many features as its query has"
        call.ledger.block(call.ledger.features_of(query).labels, what)
        # Keras refuses another number.
        same = f"{call.name} takes as many features of values as of queries"
        call.ledger.block(call.ledger.features_of(value).labels, same)
    if arguments.get("return_attention_scores", False):
        # They are of every head, so all heads stay, whatever other calls of it do.
        call.ledger.result.scored.add(call.ledger.path(call.layer))
    causal = bool(arguments.get("use_causal_mask", False))
    call.ledger.result.attended.append(
        Attended(call.ledger.path(call.layer), query, read["key"], value, causal)
    )


def comparing(call: Call) -> Features | None:
    """Attention without kernels compares queries and keys; values pass, each feature for itself."""
    arguments = _bound(call)
    given = arguments["inputs"]
    query, value, *key = given
    values = call.ledger.features_of(value)
    for tensor, features in zip(call.inputs, call.features, strict=True):
        if tensor is not value or not key or key[0] is value or query is value:
            call.ledger.block(features.labels, f"{call.name} compares units of queries and keys")
    if call.ledger.joined_row(values) is None or isinstance(call.output, (list, tuple)):
        unknown(call)
        return None
    return call.ledger.after(values, 0.0, shape_of(call.output))


def _bound(call: Call) -> dict[str, Any]:
    """What a layer is called with, by the names of its arguments."""
    signature = inspect.signature(type(call.layer).call)
    return dict(signature.bind(call.layer, *call.args, **call.kwargs).arguments)


def embedding(call: Call) -> Features | None:
    """An embedding makes a unit of each column; in reverse it reads as many by a table."""
    layer, ledger = call.layer, call.ledger
    made = ledger.produce(layer, "embedding", layer.output_dim, call.output)
    if not _in_reverse(call):
        if getattr(layer, "tie_weights", False):
            ledger.result.tied.setdefault(ledger.path(layer), []).append(ledger.whole(call.output))
        return made
    labels = made.rows()[0]
    # What it reads is as wide as what it makes.
    row = ledger.row(layer, call.features[0], known.REVERSE)
    if row is None or not (row > 0).all():
        ledger.block(labels, f"{call.name} reads what cannot be pruned")
    if row is not None:
        ledger.lay_over(call.name, [labels, row])
        ledger.read(layer, call.inputs[0], call.features[0], no_offset=True, part=known.REVERSE)
    return None


def _in_reverse(call: Call) -> bool:
    return bool(_bound(call).get("reverse", False))


def convolution(call: Call) -> Features:
    """A convolution, transposed or not."""
    layer, features = call.layer, call.features[0]
    # Inside a transposed convolution outputs near the border sum over fewer inputs.
    padded = type(layer) in known.TRANSPOSED or (
        # A kernel of one pixel never reaches beyond the border.
        layer.padding != "valid" and set(layer.kernel_size) != {1}
    )
    groups = known.groups_in(layer)
    if groups > 1:
        return _in_groups(call, groups, padded)
    call.ledger.read(layer, call.inputs[0], features, no_offset=padded)
    return _made(call, "conv", layer.filters)


def _in_groups(call: Call, groups: int, padded: bool) -> Features:
    """A convolution in groups: whole groups go, or as many channels and filters of each.

    Whole ones where there are more of them than channels in each, as then they are the smaller
    units.
    """
    layer, ledger, features = call.layer, call.ledger, call.features[0]
    row = ledger.row(layer, features)
    channels, filters = features.labels.shape[-1] // groups, layer.filters // groups
    if row is not None and (row > 0).all() and groups > channels:
        for each in row.reshape(groups, channels):
            ledger.result.labels.join(np.full(channels - 1, each[0]), each[1:])
        ledger.cut(ledger.path(layer), row)
        views = np.repeat(features.rows()[1][::channels], filters)
        views = ledger.next_views(views, np.tile(np.arange(filters), groups))
        labels = np.repeat(row[::channels], filters)
        return _activated(call, Features.spread(labels, views, 0.0, shape_of(call.output)))
    if row is not None:
        ledger.cut(ledger.path(layer), row)
        ledger.lay_over(call.name, list(row.reshape(groups, channels)))
        place = np.repeat(np.arange(groups), channels)
        for group in range(groups):
            own = np.where(place == group, row, 0)
            mine = Features.spread(own, *features.rows()[1:], features.labels.shape)
            ledger.read(
                layer, call.inputs[0], mine, no_offset=padded, part=f"{known.GROUP}{group}",
                cuts=False,
            )  # fmt: skip
    made = _made(call, "conv", layer.filters)
    ledger.lay_over(call.name, list(made.rows()[0].reshape(groups, filters)))
    return made


def separable(call: Call) -> Features:
    """A separable convolution, which reads its channels after its depthwise half."""
    part = known.depthwise_part(call.layer)
    between = part(call.inputs[0])
    call.ledger.alive.append(between)
    call.ledger.inner.append((call.ledger.path(call.layer), part))
    halfway = _depthwise_channels(call, between)
    if halfway is not None:
        call.ledger.read(call.layer, between, halfway, cuts=False)
    return _made(call, "conv", call.layer.filters)


def depthwise(call: Call) -> Features | None:
    """A depthwise convolution."""
    channels = _depthwise_channels(call, call.output)
    return None if channels is None else _activated(call, channels)


def _depthwise_channels(call: Call, output: Any) -> Features | None:
    """Channels after a depthwise kernel, before an activation."""
    features, layer = call.features[0], call.layer
    if call.ledger.row(layer, features) is None:
        return None
    if not per_unit_weights(call, features, is_last_axis=True):
        return None
    # Every channel makes so many, each by a filter of its own.
    times = layer.depth_multiplier
    labels, views, _ = (np.repeat(array, times) for array in features.rows())
    views = views * times + np.tile(np.arange(times), len(views) // times)
    return Features.spread(labels, call.ledger.next_views(views), 0.0, shape_of(output))


def activation(call: Call) -> Features:
    """A layer that applies the function in its ``activation``."""
    return _activated(call, call.features[0])


def nonlinear(call: Call) -> Features:
    """A layer that applies one function without weights to every unit alone."""
    return call.ledger.after(call.features[0])


def _activated(call: Call, features: Features) -> Features:
    """Features after a layer's activation."""
    name = known.activation_name(call.layer.activation)
    if name == "linear":
        return features
    if name in known.MIXING_ACTIVATIONS:
        call.ledger.block(features.labels, f"{name} of {call.name} mixes the units")
        return features
    if name not in known.UNITWISE_ACTIVATIONS:
        what = f"activation {name} of {call.name}"
        call.ledger.block(features.labels, f"{what} is not known to treat units alone")
        return features
    return call.ledger.after(features, known.UNITWISE_ACTIVATIONS[name])


def mixing(call: Call) -> Features:
    """Mixes the units but keeps their order."""
    call.ledger.block(call.features[0].labels, f"{call.name} mixes the units")
    return call.features[0]


def over_units(call: Call) -> Features:
    """Normalisation over units: it changes with them, so only where that was asked for.

    Its weights, or those of what reads it, then make up for it: see
    :mod:`tfprune.graph.rescaling`.
    """
    layer, ledger, features = call.layer, call.ledger, call.features[0]
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    last = [axis % len(call.inputs[0].shape) for axis in axes] == [len(call.inputs[0].shape) - 1]
    if not (ledger.approximate and last):
        return mixing(call)
    if not per_unit_weights(call, features, is_last_axis=True):
        return features
    ledger.result.approximated.append(ledger.path(layer))
    return ledger.after(features)


def over_groups(call: Call) -> Features:
    """Normalisation over groups of channels: whole groups go, and the others stay as they are."""
    layer, features, ledger = call.layer, call.features[0], call.ledger
    if not call.is_last_axis or not layer.weights:
        return mixing(call)
    if not per_unit_weights(call, features, is_last_axis=True):
        return features
    row = ledger.joined_row(features)
    if row is not None:
        ledger.lay_over(call.name, list(row.reshape(layer.groups, -1).T))
    return ledger.after(features)


def resizing(call: Call) -> Features:
    """Pooling, padding, cropping, upsampling, rescaling: every channel for itself."""
    if call.ledger.row(call.layer, call.features[0]) is None:
        return call.ledger.features_of(call.output)
    return call.ledger.after(call.features[0], 0.0, shape_of(call.output))


def meeting(call: Call) -> Features:
    """Layers that meet in one: what lies over each other goes together."""
    ledger, out = call.ledger, call.output
    if not any(features.labels.any() for features in call.features):
        return ledger.features_of(out)
    rows = []
    size = out.shape[-1]
    for tensor, features in zip(call.inputs, call.features, strict=True):
        row = ledger.joined_row(features)
        if row is None:
            ledger.block(features.labels, f"{call.name} meets units across several axes")
            return ledger.features_of(out)
        if len(row) == size:
            rows.append(row)
        elif tensor.shape[-1] == 1 and row.any():
            ledger.block(row, f"{call.name} spreads it over all channels")
    together = ledger.lay_over(call.name, rows)
    wide = [features.rows()[1] for features in call.features if features.labels.shape[-1] == size]
    return Features.spread(together, ledger.next_views(*wide), 0.0, shape_of(out))


def normalisation(call: Call) -> Features:
    """Batch normalisation."""
    features = call.features[0]
    if not per_unit_weights(call, features, call.is_last_axis):
        return features
    # The centre goes the way of the values: gamma * (centre - mean) / deviation + beta.
    centre = features.rows()[2].reshape((1,) * features.labels.ndim + (-1,))
    values = keras.ops.convert_to_tensor(centre.astype("float32"))
    normalised = call.ledger.original(call.layer)(values, training=False)
    return call.ledger.after(features, keras.ops.convert_to_numpy(normalised).ravel())


def prelu(call: Call) -> Features:
    """A PReLU, with a slope for each channel or one for all of them."""
    last = len(call.inputs[0].shape) - 1
    shared = last in (call.layer.shared_axes or [])
    per_unit_weights(call, call.features[0], is_last_axis=not shared)
    return call.ledger.after(call.features[0])
