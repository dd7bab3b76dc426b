"""Filters, residuals, pooling: planted units whose right answer is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from benchmarks.families import FAMILIES, HEAD, row_of
from benchmarks.fresh import fresh
from tests.support.graphs import fill, outputs
from tfprune.graph.layers import TRANSPOSED


def set_unit(model, name, target, source=None, scale=1.0, bias=None):
    """A filter that is a multiple of another one, or nothing but a bias."""
    layer = model.get_layer(name)
    weights = layer.get_weights()
    kernel = (
        weights[1] if isinstance(layer, (kl.SeparableConv1D, kl.SeparableConv2D)) else weights[0]
    )
    kernel = np.moveaxis(kernel, -2 if isinstance(layer, TRANSPOSED) else -1, 0)
    kernel[target] = 0 if source is None else scale * kernel[source]
    weights[-1][target] = bias if source is None else scale * weights[-1][source]
    layer.set_weights(weights)


def alike(model):
    """Every channel normalised in the same way: copies stay copies only then."""
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            weights = enumerate(layer.get_weights())
            layer.set_weights([np.full_like(w, 0.3 + 0.2 * n) for n, w in weights])
    return model


def changed(model, result, x):
    pairs = zip(outputs(model, x), outputs(result.model, x), strict=True)
    return max(float(np.abs(a - b).max() / max(1, np.abs(a).max())) for a, b in pairs)


def picture(rng, channels=3, size=10):
    return rng.normal(0, 1, (40, size, size, channels)).astype("float32")


AFTER = {
    "nothing": lambda x: x,
    "normalised": lambda x: kl.ReLU()(kl.BatchNormalization()(x)),
    "max pool": kl.MaxPooling2D(2),
    "average pool": kl.AveragePooling2D(2),
    "padding": kl.ZeroPadding2D(1),
    "cropping": kl.Cropping2D(1),
    "upsampling": kl.UpSampling2D(2),
    "dropout": kl.SpatialDropout2D(0.3),
    "depthwise": None,
    "rescaled": kl.Rescaling(2.0),
}


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("after", [name for name in AFTER if name != "depthwise"])
def test_planted_filters_go_without_a_trace(rng, after, padding):
    data = keras.Input((10, 10, 3), name="data")
    x = kl.Conv2D(8, 3, activation="relu", padding=padding, name="a")(data)
    x = AFTER[after](x)
    x = kl.Conv2D(6, 3, strides=2, padding=padding, name="b")(x)
    model = alike(fill(keras.Model(data, kl.Dense(4, name="out")(kl.Flatten()(x))), rng))
    set_unit(model, "a", 0, 5)
    set_unit(model, "a", 2, bias=-0.5)
    set_unit(model, "b", 1, 3)
    images = picture(rng)
    result = tfprune.prune(model, images, 0.5, layers="conv")
    after_units = {layer.name: layer.units_after for layer in result.layers}
    assert after_units["b"] == 5
    # A constant that normalising makes of a dead filter ends at the zeros of a padding.
    gone = {0} if after == "normalised" and padding == "same" else {0, 2}
    assert set(result.layers[0].kept) == set(range(8)) - gone
    assert changed(model, result, images) < 1e-5
    assert result.model.get_layer("b").kernel.shape == (3, 3, after_units["a"], 5)


def test_a_constant_filter_goes_only_where_no_padding_shows_it(rng):
    for padding, stays in (("valid", 7), ("same", 8)):
        data = keras.Input((10, 10, 3), name="data")
        x = kl.Conv2D(8, 3, activation="relu", name="a")(data)
        x = kl.Conv2D(6, 3, padding=padding, name="b")(x)
        model = fill(keras.Model(data, kl.Dense(4, name="out")(kl.Flatten()(x))), rng)
        set_unit(model, "a", 2, bias=0.8)
        images = picture(rng)
        result = tfprune.prune(model, images, 0.1, layers=["a"])
        assert result.layers[0].units_after == stays
        assert changed(model, result, images) < 1e-5


@pytest.mark.parametrize("strides", [1, 2])
def test_a_kernel_of_one_pixel_sees_no_padding(rng, strides):
    """Found on MobileNet, whose pointwise convolutions are all padding="same"."""
    data = keras.Input((9, 9, 3), name="data")
    x = kl.Conv2D(8, 3, activation="relu", name="a")(data)
    x = kl.Conv2D(6, 1, strides=strides, padding="same", use_bias=False, name="b")(x)
    model = fill(keras.Model(data, kl.Dense(4, name="out")(kl.Flatten()(x))), rng)
    set_unit(model, "a", 2, bias=0.8)
    images = picture(rng, size=9)
    result = tfprune.prune(model, images, 0.1, layers=["a"])
    assert result.layers[0].units_after == 7
    assert changed(model, result, images) < 1e-5


@pytest.mark.parametrize(
    ("first", "second", "shape"),
    [
        (kl.Conv1D, kl.Conv1D, (12, 3)),
        (kl.Conv3D, kl.Conv3D, (6, 6, 6, 2)),
        (kl.Conv2DTranspose, kl.Conv2D, (6, 6, 3)),
        (kl.Conv2D, kl.Conv2DTranspose, (8, 8, 3)),
        (kl.SeparableConv2D, kl.Conv2D, (8, 8, 3)),
        (kl.SeparableConv1D, kl.Conv1D, (12, 3)),
    ],
)
def test_every_kind_of_convolution(rng, first, second, shape):
    data = keras.Input(shape, name="data")
    x = first(7, 3, activation="relu", name="a")(data)
    x = second(5, 2, activation="relu", name="b")(x)
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.Flatten()(x))), rng)
    set_unit(model, "a", 0, 5, scale=2.0)
    set_unit(model, "a", 1, bias=-1)
    set_unit(model, "b", 0, 1)
    x = rng.normal(0, 1, (60, *shape)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="all")
    kept = {layer.name: set(layer.kept) for layer in result.layers}
    # Random filters may be dead as well.
    assert not kept["a"] & {0, 1}
    assert not kept["b"] & {0}
    assert changed(model, result, x) < 1e-5


def test_dead_channels_go_through_depthwise_and_separable_convolutions(rng):
    data = keras.Input((10, 10, 3), name="data")
    x = kl.Conv2D(8, 3, activation="relu", name="a")(data)
    x = kl.DepthwiseConv2D(3, activation="relu", name="each")(x)
    x = kl.SeparableConv2D(6, 3, activation="relu", name="b")(x)
    x = kl.GlobalAveragePooling2D()(x)
    model = fill(keras.Model(data, kl.Dense(4, name="out")(x)), rng)
    set_unit(model, "a", 2, bias=-1)
    set_unit(model, "b", 3, 1)
    images = picture(rng)
    result = tfprune.prune(model, images, 0.5, layers="all")
    assert {layer.name: layer.units_after for layer in result.layers} == {"a": 7, "b": 5}
    assert result.model.get_layer("each").kernel.shape == (3, 3, 7, 1)
    assert changed(model, result, images) < 1e-5


def test_residual_layers_are_pruned_together(rng):
    data = keras.Input((8, 8, 3), name="data")
    stem = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(data)
    inner = kl.Conv2D(6, 3, padding="same", activation="relu", name="inner")(stem)
    x = kl.Conv2D(8, 3, padding="same", name="outer")(inner)
    x = kl.ReLU()(kl.Add()([stem, x]))
    gate = kl.Dense(8, activation="sigmoid", name="gate")(kl.GlobalAveragePooling2D()(x))
    x = kl.Multiply()([x, kl.Reshape((1, 1, 8))(gate)])
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.GlobalMaxPooling2D()(x))), rng)
    for name in ("stem", "outer", "gate"):
        set_unit(model, name, 1, 4)
    set_unit(model, "inner", 0, 2)
    images = picture(rng, size=8)
    result = tfprune.prune(model, images, 0.2, layers="all")
    found = {layer.name: (layer.units_after, layer.group) for layer in result.layers}
    together = "stem + outer + gate"
    assert found == {
        "stem": (7, together), "outer": (7, together), "gate": (7, together), "inner": (5, ""),
    }  # fmt: skip
    assert changed(model, result, images) < 1e-5
    dense = tfprune.prune(model, images, 0.2, layers="dense")
    reasons = {s.name: s.reason for s in dense.skipped}
    assert "goes together with stem, outer" in reasons["gate"]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda x: kl.LayerNormalization(name="n")(x), "n (LayerNormalization) mixes the units"),
        (lambda x: x[..., ::2], "picks units that are not next to each other"),
    ],
)
def test_what_cannot_be_followed_is_skipped(rng, build, reason):
    data = keras.Input((6, 6, 2), name="data")
    x = build(kl.Conv2D(4, 3, name="a")(data))
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.Flatten()(x))), rng)
    result = tfprune.prune(model, picture(rng, 2, 6), 30, layers="all")
    assert reason in {s.name: s.reason for s in result.skipped}["a"]
    assert result.model.get_layer("a").filters == 4


def test_a_shared_layer_that_also_reads_the_input_keeps_its_filters(rng):
    """Found by the random graphs: the second call's units were cut, the first call's input not."""
    data = keras.Input((8, 3), name="data")
    shared = kl.Conv1D(3, 3, padding="same", name="shared")
    model = fill(keras.Model(data, kl.Dense(2, name="out")(shared(shared(data)))), rng)
    set_unit(model, "shared", 1, 0)
    x = rng.normal(0, 1, (30, 8, 3)).astype("float32")
    result = tfprune.prune(model, x, 30, layers="all")
    assert "cannot be pruned" in {s.name: s.reason for s in result.skipped}["shared"]
    assert changed(model, result, x) == 0


def test_an_input_laid_over_units_keeps_them(rng):
    data = keras.Input((6, 6, 4), name="data")
    x = kl.Add()([data, kl.Conv2D(4, 3, padding="same", name="a")(data)])
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.Flatten()(x))), rng)
    set_unit(model, "a", 1, 0)
    result = tfprune.prune(model, picture(rng, 4, 6), 30, layers="all")
    assert "lays it over something" in {s.name: s.reason for s in result.skipped}["a"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_real_architectures_lose_what_was_planted(family):
    row = dict(zip(HEAD, fresh(row_of, family), strict=True))
    gone, planted = row["planted filters gone"].split(" of ")
    assert gone == planted
    assert row["skipped, and why"] == "1 output layer"
    assert float(row["output change"]) < 1e-4


def test_operations_on_tensors_are_followed(rng):
    """The gates of MobileNetV3 are written so, and so are many residuals."""
    data = keras.Input((8, 8, 3), name="data")
    stem = kl.Conv2D(6, 3, padding="same", name="stem")(data)
    branch = keras.ops.relu(kl.Conv2D(6, 3, padding="same", name="branch")(stem))
    both = stem + 0.5 * branch
    gate = kl.Conv2D(6, 1, name="gate")(kl.GlobalAveragePooling2D(keepdims=True)(both))
    gated = both * (kl.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0))
    model = keras.Model(data, kl.Dense(3, name="out")(kl.Flatten()(gated)))
    fill(model, rng)
    for name in ("stem", "branch", "gate"):
        set_unit(model, name, 0, 4)
    images = picture(rng, size=8)
    result = tfprune.prune(model, images, 0.2, layers="all")
    assert {layer.name: layer.units_after for layer in result.layers} == {
        "stem": 5, "branch": 5, "gate": 5,
    }  # fmt: skip
    assert changed(model, result, images) < 1e-5


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x + np.arange(4, dtype="float32"),
        lambda x: keras.ops.roll(x, 1, axis=-1),
        lambda x: keras.ops.softmax(x),
        lambda x: keras.ops.cumsum(x, axis=-1),
    ],
)
def test_other_operations_are_walls(rng, build):
    data = keras.Input((6, 6, 2), name="data")
    x = build(kl.Conv2D(4, 3, name="a")(data))
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.Flatten()(x))), rng)
    result = tfprune.prune(model, picture(rng, 2, 6), 80, layers="all")
    assert "which is not handled" in {s.name: s.reason for s in result.skipped}["a"]
