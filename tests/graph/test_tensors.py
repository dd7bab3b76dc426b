"""Operations on tensors and convolutions in groups, against a masked original; planted units."""

from __future__ import annotations

import keras
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed, set_unit
from tests.graph.test_shrink import check
from tests.support.graphs import fill
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace

ops = keras.ops


def dense(x, name="a", units=8):
    return kl.Dense(units, activation="relu", name=name)(x)


def conv(x, name="a", filters=8, **more):
    return kl.Conv2D(filters, 3, padding="same", activation="relu", name=name, **more)(x)


def shuffled(x, r=2):
    """A pixel shuffle of Reshape and Permute, in TensorFlow's order of channels."""
    _, h, w, c = x.shape
    x = kl.Reshape((h, w, r, r, c // r**2))(x)
    x = kl.Permute((1, 3, 2, 4, 5))(x)
    return kl.Reshape((h * r, w * r, c // r**2))(x)


def shuffled_by_channel(x, r=2):
    """In the order of other frameworks: the r * r places of a channel stand together."""
    _, h, w, c = x.shape
    x = kl.Reshape((h, w, c // r**2, r, r))(x)
    x = kl.Permute((1, 4, 2, 5, 3))(x)
    return kl.Reshape((h * r, w * r, c // r**2))(x)


def shuffled_by_operations(x, r=2):
    _, h, w, c = x.shape
    x = ops.reshape(x, (-1, h, w, r, r, c // r**2))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h * r, w * r, c // r**2))


# Each takes the input; the units of every layer of the name "a" can go, and so on.
MADE = {
    "slices": ((6,), lambda x: [dense(x)[:, :5], dense(x, "b")[:, 2:]]),
    "both halves": ((6,), lambda x: [(y := dense(x))[:, :3], ops.tanh(y[:, 3:])]),
    "a part from the end": ((6,), lambda x: [dense(x)[..., -5:]]),
    "slices of positions": ((5, 6), lambda x: [dense(x)[:, 1:3], dense(x, "b")[:, ::2]]),
    "the last step": ((5, 6), lambda x: [dense(x)[:, -1]]),
    "a new axis": ((6,), lambda x: [dense(x)[:, None]]),
    "split": ((6,), lambda x: ops.split(dense(x), 2, axis=-1)),
    "split at": ((6,), lambda x: ops.split(dense(x), [2, 5], axis=1)),
    "split positions": ((4, 6), lambda x: ops.split(dense(x), 2, axis=1)),
    "halves added": ((6,), lambda x: [(y := dense(x))[:, :4] + y[:, 4:]]),
    "gated": ((6,), lambda x: [(y := ops.split(dense(x), 2, axis=-1))[0] * ops.sigmoid(y[1])]),
    "stacked": ((6,), lambda x: [ops.stack([dense(x), dense(x, "b")], axis=1)]),
    "one behind the other": ((3, 6), lambda x: [ops.concatenate([dense(x), dense(x, "b")], 1)]),
    "Concatenate behind": ((3, 6), lambda x: [kl.Concatenate(axis=1)([dense(x), dense(x, "b")])]),
    "concatenated": ((6,), lambda x: [ops.concatenate([dense(x), x, dense(x, "b")], axis=-1)]),
    "mean": ((5, 5, 3), lambda x: [ops.mean(conv(x), axis=(1, 2)), ops.max(conv(x, "b"), axis=2)]),
    "sum kept": ((5, 6), lambda x: [ops.sum(dense(x), axis=1, keepdims=True)]),
    "reshape": ((4, 6), lambda x: [ops.reshape(dense(x), (-1, 2, 2, 8))]),
    "reshape flat": ((4, 6), lambda x: [ops.reshape(dense(x), (-1, 32))]),
    "transpose": ((4, 5, 3), lambda x: [ops.transpose(conv(x), (0, 2, 1, 3))]),
    "expanded": ((4, 6), lambda x: [ops.squeeze(ops.expand_dims(dense(x), 1), 1)]),
    "pad": ((5, 5, 3), lambda x: [ops.pad(conv(x), ((0, 0), (1, 1), (2, 0), (0, 0)))]),
    "pad features": ((6,), lambda x: [ops.pad(dense(x), ((0, 0), (1, 2)))]),
    "depth to space": ((4, 4, 3), lambda x: [ops.depth_to_space(conv(x, filters=12), 2)]),
    "shuffle": ((4, 4, 3), lambda x: [shuffled(conv(x, filters=12))]),
    "shuffle by channel": ((4, 4, 3), lambda x: [shuffled_by_channel(conv(x, filters=12))]),
    "shuffle by operations": ((4, 4, 3), lambda x: [shuffled_by_operations(conv(x, filters=12))]),
    "shuffle, normalised": (
        (4, 4, 3), lambda x: [kl.ReLU()(kl.BatchNormalization()(shuffled(conv(x, filters=12))))]
    ),
    "shuffle, added": (
        (4, 4, 3), lambda x: [shuffled(conv(x, filters=12)) + conv(kl.UpSampling2D()(x), "b", 3)]
    ),
    "two groups": ((6, 6, 3), lambda x: [conv(conv(x), "b", 6, groups=2)]),
    "many groups": ((6, 6, 3), lambda x: [conv(conv(x), "g", 16, groups=4), conv(x, "b")]),
    "groups of input": ((6, 6, 4), lambda x: [conv(x, "a", 8, groups=2)]),
    "groups without bias": ((6, 6, 3), lambda x: [conv(conv(x), "b", 6, groups=2, use_bias=False)]),
}  # fmt: skip


def model_of(name, rng):
    keras.backend.clear_session()
    shape, make = MADE[name]
    data = keras.Input(shape, name="data")
    ends = []
    for place, x in enumerate(make(data)):
        pictures = len(x.shape) == 4
        read = (
            kl.Conv2D(4, 2, padding="same", name=f"r{place}")
            if pictures
            else kl.Dense(4, name=f"r{place}")
        )(x)
        ends.append(kl.Dense(2, name=f"out{place}")(kl.Flatten()(read)))
    return fill(keras.Model(data, ends), rng)


@pytest.mark.parametrize("name", MADE)
def test_a_smaller_model_is_the_masked_original(rng, name):
    model = model_of(name, rng)
    able = {layer for group in groups_of(trace(model)) if not group.blocked
            for layer in group.producers}  # fmt: skip
    assert {"a", "b"} & {layer.name for layer in model.layers} <= able
    cuts = [cut for seed in range(2) for cut in check(model, seed)]
    assert any("a" in cut.group.producers and len(cut.kept) < len(cut.group.unit_ids)
               for cut in cuts)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "group", "units"),
    [
        ("depth to space", "a", 3),
        ("shuffle by channel", "a", 3),
        ("halves added", "a", 4),
        ("stacked", "a + b", 8),
        ("groups of input", "a", 4),
        ("many groups", "a", 4),
    ],
)
def test_what_goes_together_is_one_unit(rng, name, group, units):
    found = {one.name: len(one.unit_ids) for one in groups_of(trace(model_of(name, rng)))}
    assert found[group] == units


def test_a_planted_channel_goes_from_a_super_resolution_net(rng):
    """Of any size of picture; the four filters of a channel that is another one's copy go."""
    data = keras.Input((None, None, 3), name="data")
    x = kl.Conv2D(12, 3, padding="same", activation="relu", name="a")(data)
    x = kl.Conv2D(16, 3, padding="same", name="b")(x)
    x = kl.ReLU()(ops.depth_to_space(x, 2))
    model = fill(keras.Model(data, kl.Conv2D(3, 3, padding="same", name="out")(x)), rng)
    set_unit(model, "a", 2, 7)
    for place in range(4):
        set_unit(model, "b", 4 * place + 1, 4 * place + 3)
    x = rng.normal(size=(20, 6, 5, 3)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="conv")
    kept = {layer.name: layer.units_after for layer in result.layers}
    assert kept == {"a": 11, "b": 12}
    assert changed(model, result, x) < 1e-5


@pytest.mark.parametrize("groups", [2, 8])
def test_planted_channels_go_from_convolutions_in_groups(rng, groups):
    """From two groups a channel of each; of many groups one that is another one's copy, whole."""
    data = keras.Input((6, 6, 3), name="data")
    x = kl.Conv2D(16, 3, activation="relu", name="a")(data)
    x = kl.Conv2D(16, 3, groups=groups, activation="relu", name="g")(x)
    model = fill(keras.Model(data, kl.Conv2D(3, 1, name="out")(x)), rng)
    if groups == 2:
        set_unit(model, "a", 1, 4)
        set_unit(model, "a", 9, 12)
        set_unit(model, "g", 2, 3)
        set_unit(model, "g", 10, 11)
        expected = {"a": 14, "g": 14}
    else:
        for place in range(2):
            set_unit(model, "a", 4 + place, 8 + place)
            set_unit(model, "g", 4 + place, 8 + place)
        expected = {"a": 14}
    x = rng.normal(size=(60, 6, 6, 3)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="conv")
    assert {one.name: one.units_after for one in result.layers} == expected
    assert result.model.get_layer("g").filters == 14
    assert changed(model, result, x) < 1e-5


def test_a_convolution_of_many_groups_has_a_row_and_can_be_named(rng):
    data = keras.Input((6, 6, 3), name="data")
    x = kl.Conv2D(8, 3, activation="relu", name="a")(data)
    x = kl.Conv2D(16, 3, groups=8, activation="relu", name="g")(x)
    model = fill(keras.Model(data, kl.Conv2D(3, 1, name="out")(x)), rng)
    x = rng.normal(size=(60, 6, 6, 3)).astype("float32")

    def reasons(**options):
        result = tfprune.prune(model, x, remove=0.5, refit=0, **options)
        return {one.name: one.reason for one in result.skipped}, result.model.get_layer("g")

    why, layer = reasons(layers="all")
    assert why["g"] == "no choice of its own: whole groups of its filters go with those of a"
    assert (layer.filters, layer.groups) == (8, 4)
    why, layer = reasons(layers="all", skip=["g"])
    assert why["g"] == "asked to skip"
    assert why["a"] == "goes together with g, which is to be skipped"
    assert (layer.filters, layer.groups) == (16, 8)
    assert list(reasons(layers=["g"])[0]) == ["g"]
    assert "g" in {name for one in tfprune.inspect(model).groups for name in one.layers}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: dense(x)[:, ::2], "picks units that are not next to each other"),
        (lambda x: dense(kl.RepeatVector(4)(x))[:, :, 3], "picks a single unit"),
        (lambda x: ops.mean(dense(x), axis=-1, keepdims=True), "computes one value of several"),
        (lambda x: kl.Flatten()(kl.Reshape((2, 4))(dense(x))), "splits the units over several"),
        (lambda x: ops.roll(dense(x), 1, axis=-1), "which is not handled"),
    ],
)
def test_what_cannot_be_followed_is_named_with_the_reason(rng, make, reason):
    data = keras.Input((6,), name="data")
    model = fill(keras.Model(data, kl.Dense(2, name="out")(make(data))), rng)
    (found,) = (one for one in groups_of(trace(model)) if "a" in one.producers)
    assert reason in (found.blocked or "")


def test_every_part_that_is_read_keeps_a_unit(rng):
    """All units of a slice may be those of least effect."""
    data = keras.Input((6,), name="data")
    first, second = ops.split(dense(data), [3], axis=-1)
    reads = [kl.Dense(2, name=f"r{n}")(part) for n, part in enumerate((first, second))]
    model = fill(keras.Model(data, reads), rng)
    kernel, bias = model.get_layer("r0").get_weights()
    model.get_layer("r0").set_weights([kernel * 1e-6, bias])
    x = rng.normal(size=(80, 6)).astype("float32")
    result = tfprune.prune(model, x, remove=0.75, refit=0)
    assert result.model.get_layer("r0").kernel.shape[0] == 1
    result.model(x)
