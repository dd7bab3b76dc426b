"""Keras 3 models in tf_keras: the same outputs, the weights back, and refusals by name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import layers as kl

from tests.support.graphs import build, fill, outputs, recipes
from tfprune.errors import TfpruneError
from tfprune.tfmot import bridge
from tfprune.tfmot.bridge import to_tf_keras, weights_from
from tfprune.tfmot.distillation import tools
from tfprune.tfmot.layer_configs import translated

REFUSED = {"gru", "lstm", "rnn", "attention", "plus", "scalars"}


def twin_outputs(twin, x):
    with tools():
        made = twin([np.asarray(data) for data in x], training=False)
    return [np.asarray(out) for out in (made if isinstance(made, list) else [made])]


def carried(recipe):
    """A recipe without what cannot be carried."""
    return {**recipe, "steps": [s for s in recipe["steps"] if s["kind"] not in REFUSED]}


@settings(max_examples=10)
@given(recipes.map(carried))
def test_any_graph_of_the_allowed_layers_computes_the_same(recipe):
    model = build(recipe)
    x = np.random.default_rng(0).normal(0, 1, (20, *recipe["shape"])).astype("float32")
    expected = outputs(model, x)
    twin = to_tf_keras(model, [x])
    for ours, theirs in zip(twin_outputs(twin, [x]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + np.abs(theirs).max()))
    back = weights_from(twin, model)
    for ours, theirs in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(outputs(back, x), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


PICTURES = [
    kl.Conv2D(4, 3, strides=2, activation="leaky_relu"),
    kl.Conv2D(6, 3, groups=3, dilation_rate=2, padding="same", activation="relu6"),
    kl.Conv2DTranspose(4, 3, strides=2, activation="silu"),
    kl.DepthwiseConv2D(3, depth_multiplier=2, activation="gelu"),
    kl.SeparableConv2D(5, 3, depth_multiplier=2, activation="tanh", padding="same"),
    kl.BatchNormalization(epsilon=0.1, scale=False),
    kl.LayerNormalization(epsilon=0.1),
    kl.LeakyReLU(0.7),
    kl.ReLU(2.0, negative_slope=0.3, threshold=0.1),
    kl.ELU(0.4),
    kl.PReLU(shared_axes=[1, 2]),
    kl.Softmax(axis=2),
    kl.Activation("mish"),
    kl.AveragePooling2D(3, strides=2, padding="same"),
    kl.GlobalMaxPooling2D(keepdims=True),
    kl.UpSampling2D(2, interpolation="bilinear"),
    kl.Rescaling(0.5, -0.25),
    kl.Permute((3, 1, 2)),
    kl.Reshape((3, -1)),
    kl.Dense(4, activation="softplus", use_bias=False),
]


@pytest.mark.parametrize("layer", PICTURES, ids=lambda layer: type(layer).__name__)
def test_each_layer_keeps_its_settings(layer, rng):
    data = keras.Input((8, 8, 3))
    model = fill(keras.Model(data, kl.Flatten()(layer(data))), rng)
    x = rng.normal(0, 1, (30, 8, 8, 3)).astype("float32")
    (received,) = twin_outputs(to_tf_keras(model, [x]), [x])
    (expected,) = outputs(model, x)
    assert expected.std() > 0
    np.testing.assert_allclose(received, expected, atol=1e-5 * (1 + np.abs(expected).max()))


def test_what_is_trained_there_comes_back(rng):
    data = keras.Input((8, 8, 2))
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), kl.SeparableConv2D(4, 3, padding="same", name="a_b")], name="in"
    )
    shared = kl.Conv2D(4, 3, padding="same", name="in_a_b")
    x = kl.BatchNormalization()(kl.Conv2D(4, 3)(data))
    x = kl.Concatenate()([inner(x), shared(kl.Dropout(0.5)(shared(x)))])
    model = fill(keras.Model(data, kl.Dense(3)(kl.Flatten()(x)), name="whole"), rng)
    samples = rng.normal(0, 1, (20, 8, 8, 2)).astype("float32")
    before = [weight.copy() for weight in model.get_weights()]
    twin = to_tf_keras(model, [samples])
    twin.set_weights([0.9 * weight + 0.01 for weight in twin.get_weights()])
    back = weights_from(twin, model)
    np.testing.assert_allclose(
        outputs(back, samples)[0], twin_outputs(twin, [samples])[0], rtol=1e-3, atol=1e-3
    )
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(shared._inbound_nodes) == 2, "the model's own graph has grown"


def test_several_inputs_and_outputs_of_half_precision(rng):
    one = keras.Input((4,), name="zeta", dtype="float16")
    two = keras.Input((3,), name="alpha")
    hidden = kl.Dense(5, activation="relu", dtype="mixed_float16")(one)
    outs = {"b": kl.Dense(2)(kl.Concatenate()([hidden, two])), "a": kl.Dense(3)(two)}
    model = fill(keras.Model({"zeta": one, "alpha": two}, outs), rng)
    x = [rng.normal(0, 1, (20, tensor.shape[1])).astype("float32") for tensor in model.inputs]
    made = twin_outputs(to_tf_keras(model, x), x)
    packed = dict(zip(("alpha", "zeta"), sorted(x, key=lambda data: data.shape[1]), strict=True))
    expected = keras.tree.flatten(model(packed, training=False))
    for ours, theirs in zip(made, expected, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=0.02)


def squared(x):
    return x**2


class Own(kl.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


STRANGE = {
    "gru": (kl.GRU(2, name="odd"), r"odd \(GRU\).*not one of the layers"),
    "operation": (keras.ops.sin, r"\(Sin\).*an operation on tensors"),
    "subclass": (Own(2, name="odd"), r"odd \(Own\).*not one of the layers"),
    "hard": (kl.Dense(2, activation="hard_sigmoid", name="odd"), "activation hard_sigmoid"),
    "function": (kl.Dense(2, activation=squared, name="odd"), "activation .*not Keras' own"),
    "instance": (kl.Dense(2, activation=kl.LeakyReLU(0.7), name="odd"), "activation leaky_relu"),
    "renorm": (kl.BatchNormalization(renorm=True, name="odd"), "renorm=True"),
    "constraint": (kl.Dense(2, kernel_constraint="non_neg", name="odd"), "kernel_constraint="),
    "training": (lambda x: kl.Dropout(0.5, name="odd")(x, training=True), r"more than .*training"),
    "nested": (keras.Sequential([kl.Dense(2), kl.GRU(2, name="odd")], name="o"), r"odd \(GRU\)"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_cannot_be_carried_is_named(case):
    strange, says = STRANGE[case]
    data = keras.Input((5, 4))
    model = keras.Model(data, kl.Dense(3)(kl.Flatten()(strange(data))))
    with pytest.raises(TfpruneError, match=says) as told:
        to_tf_keras(model, [np.zeros((4, 5, 4), "float32")])
    assert "cannot be carried to tf_keras" in str(told.value)


def test_a_twin_that_computes_something_else_is_refused(monkeypatch, rng):
    """As if a setting had been dropped on the way."""
    data = keras.Input((4,))
    model = fill(keras.Model(data, kl.LeakyReLU(0.7)(kl.Dense(3)(data))), rng)
    x = rng.normal(0, 1, (20, 4)).astype("float32")
    to_tf_keras(model, [x])
    monkeypatch.setattr(
        bridge, "translated", lambda layer: {**translated(layer), "alpha": 0.3}
        if isinstance(layer, kl.LeakyReLU) else translated(layer),
    )  # fmt: skip
    with pytest.raises(TfpruneError, match=r"computes something else: output 0 is off by [\d.]+%"):
        to_tf_keras(model, [x])
