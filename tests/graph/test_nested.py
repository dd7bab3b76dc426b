"""Models inside models, recurrent and attention readers: planted units whose answer is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tfprune.graph.clone import walk


def filled(model, rng):
    fill(model, rng)
    for path, layer in walk(model):
        if "/" in path:
            fill(keras.Sequential([layer]), rng)
    return model


def at(model, path):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def copy_unit(layer, source, target):
    weights = layer.get_weights()
    for weight in weights:
        weight[..., target] = weight[..., source]
    layer.set_weights(weights)


def still(layer, target, bias):
    kernel, biases = layer.get_weights()
    kernel[..., target], biases[target] = 0, bias
    layer.set_weights([kernel, biases])


def check(model, x, paths, layers="all"):
    """Plants a copy (0 of 1) in every path; it goes, and nothing else changes."""
    for path in paths:
        copy_unit(at(model, path), 1, 0)
    result = tfprune.prune(model, x, 0.5, layers=layers)
    kept = {layer.name: set(layer.kept) for layer in result.layers}
    for path in paths:
        assert 0 not in kept[path]
        layer, before = at(result.model, path), at(model, path)
        assert layer.kernel.shape[-1] == len(kept[path]) < before.kernel.shape[-1]
    for ours, theirs in zip(outputs(result.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))
    return result


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (60, 8, 8, 3)).astype("float32")


def backbone(name="backbone"):
    data = keras.Input((8, 8, 3), name="image")
    x = kl.Conv2D(6, 3, padding="same", name="conv1")(data)
    x = kl.ReLU(name="relu")(kl.BatchNormalization(name="bn")(x))
    x = kl.Conv2D(5, 3, activation="relu", name="conv2")(x)
    return keras.Model(data, x, name=name)


def head(channels=5):
    layers = [kl.GlobalAveragePooling2D(), kl.Dense(7, activation="relu", name="hidden")]
    return keras.Sequential([keras.Input((6, 6, channels)), *layers], name="head")


def alike(model):
    """Every channel normalised in the same way: copies stay copies only then."""
    for _, layer in walk(model):
        if isinstance(layer, kl.BatchNormalization):
            weights = enumerate(layer.get_weights())
            layer.set_weights([np.full_like(w, 0.3 + 0.2 * n) for n, w in weights])
    return model


def test_a_frozen_backbone_and_a_head(rng, pictures, tmp_path):
    base = backbone()
    base.trainable = False
    data = keras.Input((8, 8, 3))
    made = kl.Dense(3, name="out")(head()(base(data, training=False)))
    model = alike(filled(keras.Model(data, made), rng))
    model.compile("adam", "mse")
    result = check(model, pictures, ["backbone/conv1", "backbone/conv2", "head/hidden"])
    smaller = result.model
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert [name for name, _ in walk(smaller)] == [name for name, _ in walk(model)]
    assert not smaller.get_layer("backbone").trainable_weights
    assert len(smaller.trainable_weights) == len(model.trainable_weights)
    assert type(smaller.get_layer("head")) is keras.Sequential
    frozen = smaller.get_layer("backbone").get_weights()
    smaller.fit(pictures, np.zeros((60, 3)), verbose=0)
    for before, after in zip(frozen, smaller.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    smaller.save(tmp_path / "smaller.keras")
    again = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(again(pictures), smaller(pictures))


def test_models_in_models_in_a_sequential(rng, pictures):
    inner = keras.Sequential([backbone("deepest"), head()], name="inner")
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, kl.Dense(3, name="out")])
    model = alike(filled(model, rng))
    check(model, pictures, ["inner/deepest/conv1", "inner/deepest/conv2", "inner/head/hidden"])


def test_a_nested_model_that_is_called_twice(rng):
    """Widths go in step where it is entered: units of a and b lie over each other."""
    twin = keras.Sequential([kl.Dense(6, activation="relu", name="in"), kl.ReLU()], name="twin")
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    a = kl.Dense(5, activation="relu", name="a")(first)
    b = kl.Dense(5, activation="relu", name="b")(second)
    model = keras.Model([first, second], kl.Dense(2)(kl.Subtract()([twin(a), twin(b)])))
    filled(model, rng)
    x = [rng.normal(0, 1, (80, 4)).astype("float32") for _ in range(2)]
    copy_unit(at(model, "twin/in"), 1, 0)
    copy_unit(at(model, "a"), 1, 0)
    stays = tfprune.prune(model, x, 0.1)
    units = {layer.name: layer.units_after for layer in stays.layers}
    assert (units["a"], units["b"]) == (5, 5)
    result = check(model, x, ["a", "b"])
    assert {"a", "b"} in [set(layer.group.split(" + ")) for layer in result.layers]


def test_a_nested_model_without_weights_called_on_two_widths_that_could_differ(rng):
    gate = keras.Sequential([keras.Input((5,)), kl.ReLU()], name="gate")
    data = keras.Input((4,))
    a, b = kl.Dense(5, name="a")(data), kl.Dense(5, name="b")(data)
    made = [kl.Dense(2, name="out1")(gate(a)), kl.Dense(2, name="out2")(gate(b))]
    model = filled(keras.Model(data, made), rng)
    check(model, rng.normal(0, 1, (80, 4)).astype("float32"), ["a", "b"])


def test_a_nested_model_of_dicts_and_one_that_shares_a_layer_with_the_outside(rng):
    shared = kl.Dense(6, activation="relu", name="shared")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    both = {"sum": kl.Add()([shared(left), shared(right)]), "left": shared(left)}
    inner = keras.Model({"left": left, "right": right}, both, name="inner")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    made = inner({"left": a, "right": b})
    outs = [kl.Dense(2, name="one")(made["sum"]), kl.Dense(2, name="two")(made["left"])]
    outs.append(kl.Dense(3, name="three")(shared(b)))
    model = filled(keras.Model({"a": a, "b": b}, outs), rng)
    x = {name: rng.normal(0, 1, (80, 4)).astype("float32") for name in "ab"}
    copy_unit(shared, 1, 0)
    result = tfprune.prune(model, x, 0.5)
    assert 0 not in result.layers[0].kept
    for ours, theirs in zip(outputs(result.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_layers_of_nested_models_are_named_by_their_path(rng, pictures):
    data = keras.Input((8, 8, 3))
    model = alike(filled(keras.Model(data, kl.Dense(3)(head()(backbone()(data)))), rng))
    result = check(model, pictures, ["head/hidden"], layers=["head/hidden"])
    assert [layer.name for layer in result.layers] == ["head/hidden"]
    with pytest.raises(tfprune.TfpruneError, match="'hidden' is no layer of the model with"):
        tfprune.prune(model, pictures, layers=["hidden"])


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "reader",
    [
        lambda bias: kl.GRU(4, use_bias=bias),
        lambda bias: kl.GRU(4, use_bias=bias, reset_after=False),
        lambda bias: kl.LSTM(4, use_bias=bias, return_sequences=True),
        lambda bias: kl.SimpleRNN(4, use_bias=bias),
    ],
)
def test_recurrent_layers_read_what_is_left(rng, reader, use_bias):
    data = keras.Input((9, 3))
    x = kl.Conv1D(8, 2, activation="relu", name="conv")(data)
    x = kl.Dense(7, activation="tanh", name="dense")(x)
    x = kl.Dense(3, name="out")(kl.Flatten()(reader(use_bias)(x)))
    model = filled(keras.Model(data, x), rng)
    still(model.get_layer("dense"), 4, 0.7)
    x = rng.normal(0, 1, (60, 9, 3)).astype("float32")
    result = check(model, x, ["conv", "dense"])
    assert 4 not in result.layers[1].kept


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("key", [True, False])
def test_attention_reads_what_is_left(rng, use_bias, key):
    data = keras.Input((9, 3))
    query = kl.Dense(6, activation="tanh", name="query")(data)
    value = kl.Dense(7, activation="relu", name="value")(data)
    keys = {"key": kl.Dense(5, activation="tanh", name="key")(data)} if key else {}
    attended = kl.MultiHeadAttention(2, 4, use_bias=use_bias)(query, value, **keys)
    model = filled(keras.Model(data, kl.Dense(2, name="out")(attended)), rng)
    still(model.get_layer("value"), 4, 0.7)
    still(model.get_layer("query"), 3, -0.4)
    x = rng.normal(0, 1, (60, 9, 3)).astype("float32")
    result = check(model, x, ["query", "value", *keys])
    kept = {layer.name: set(layer.kept) for layer in result.layers}
    assert 4 not in kept["value"] and 3 not in kept["query"]


def test_units_that_are_repeated(rng):
    data = keras.Input((3,))
    x = kl.RepeatVector(4)(kl.Dense(8, activation="relu", name="once")(data))
    model = keras.Model(data, kl.Dense(2)(kl.GRU(5)(x)))
    check(filled(model, rng), rng.normal(0, 1, (60, 3)).astype("float32"), ["once"])


def test_a_mask_made_of_units_stays_and_a_state_goes_with_its_layer(rng):
    data = keras.Input((9, 3))
    state = kl.Dense(4, name="state")(kl.Flatten()(data))
    mask = kl.Dense(9, name="mask")(data)
    x = kl.GRU(4, return_sequences=True, name="gru")(data, initial_state=state)
    x = kl.MultiHeadAttention(2, 4, name="attention")(x, x, attention_mask=mask)
    model = filled(keras.Model(data, kl.Dense(2, name="out")(x)), rng)
    result = tfprune.prune(model, rng.normal(0, 1, (60, 9, 3)), 80)
    reasons = {skipped.name: skipped.reason for skipped in result.skipped}
    groups = {row.name: row.group for row in result.layers if row.name != "attention"}
    assert groups == dict.fromkeys(("state", "gru"), "state + gru")
    assert "mask of attention" in reasons["mask"]


@pytest.mark.parametrize("separable", [True, False])
def test_depthwise_layers_that_make_several_channels_of_one(rng, pictures, separable):
    data = keras.Input((8, 8, 3))
    x = kl.Conv2D(6, 3, activation="relu", name="conv")(data)
    if separable:
        x = kl.SeparableConv2D(5, 3, depth_multiplier=3, activation="relu", name="sep")(x)
    else:
        x = kl.DepthwiseConv2D(3, depth_multiplier=3, activation="relu", name="depth")(x)
    model = filled(keras.Model(data, kl.Dense(2, name="out")(kl.GlobalMaxPooling2D()(x))), rng)
    layer = model.get_layer("sep" if separable else "depth")
    weights = layer.get_weights()
    weights[0][:, :, 0] = weights[0][:, :, 1]
    if not separable:
        weights[1][:3] = weights[1][3:6]
    layer.set_weights(weights)
    check(model, pictures, ["conv"], layers=["conv"])


def test_a_subclassed_model_inside_is_a_wall(rng):
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.deep = kl.Dense(4, name="deep")

        def call(self, x):
            return self.deep(x)

    data = keras.Input((4,))
    x = kl.Dense(5, activation="relu", name="before")(data)
    model = keras.Model(data, kl.Dense(2)(kl.Dense(6, name="after")(Own(name="own")(x))))
    filled(model, rng)
    result = tfprune.prune(model, rng.normal(0, 1, (80, 4)), 60)
    reasons = {skipped.name: skipped.reason for skipped in result.skipped}
    assert "own (Own)" in reasons["before"]
    assert "own (Own)" in reasons["own/deep"]
    assert [layer.name for layer in result.layers] == ["after"]


@pytest.mark.parametrize("calls", [2, 3])
def test_a_nested_model_that_is_called_on_what_it_made(rng, calls):
    """Two hidden units inside are copies, so that one goes without a trace."""
    data = keras.Input((8,))
    hidden = kl.Dense(6, "tanh", name="hidden")
    inner = keras.Model(data, kl.Dense(8, "relu", name="back")(hidden(data)), name="inner")
    x = outside = keras.Input((8,))
    for _ in range(calls):
        x = inner(x)
    model = filled(keras.Model(outside, kl.Dense(2, name="out")(x)), rng)
    kernel, bias = hidden.get_weights()
    kernel[:, 1], bias[1] = kernel[:, 0], bias[0]
    hidden.set_weights([kernel, bias])
    samples = rng.normal(size=(300, 8)).astype("float32")
    result = tfprune.prune(model, samples, 0.1, layers=["inner/hidden"])
    assert result.model.get_layer("inner").get_layer("hidden").units == 5
    new = rng.normal(size=(50, 8)).astype("float32")
    np.testing.assert_allclose(
        result.model.predict(new, verbose=0), model.predict(new, verbose=0), atol=1e-4
    )
