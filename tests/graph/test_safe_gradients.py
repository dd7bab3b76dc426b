"""Training strided convolutions of one position without oneDNN's faulty kernel."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers as kl

import tfprune
from tests.support.paths import ROOT
from tfprune.graph.safe_gradients import has_unsafe_gradient, safe_gradients

KINDS = {
    "1-D": ("Conv1D", {"strides": 3}, (17,)),
    "causal": ("Conv1D", {"strides": 2, "padding": "causal"}, (17,)),
    "2-D": ("Conv2D", {"strides": 2, "padding": "same", "activation": "relu"}, (7, 8)),
    "no bias": ("Conv2D", {"strides": (2, 1), "use_bias": False}, (7, 8)),
    "transposed": ("Conv2DTranspose", {"strides": (2, 3), "activation": "tanh"}, (7, 8)),
    "transposed 1-D": ("Conv1DTranspose", {"strides": 2, "padding": "same"}, (7,)),
}


# The faulty kernel itself is right, and safe to compare with, from so many channels on.
WIDE = 16


def network(kind, library=keras):
    name, settings, shape = KINDS[kind]
    inputs = library.Input((*shape, WIDE))
    outputs = getattr(library.layers, name)(WIDE, 1, **settings)(inputs)
    return library.Model(inputs, outputs)


def step(model, x):
    """Outputs and gradients of a weighted sum of them, and the operations that made them."""
    weights = [getattr(weight, "value", weight) for weight in model.trainable_weights]
    if callable(weights[0]):
        weights = model.trainable_weights  # Of tf_keras: variables of TensorFlow's own.

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            order = tf.cast(tf.reshape(tf.range(tf.size(outputs)), tf.shape(outputs)), tf.float32)
            total = tf.reduce_sum(tf.sin(order) * outputs * outputs)
        return [outputs, *tape.gradient(total, weights)]

    values = [np.asarray(value) for value in gradients(x)]
    return values, gradients.get_concrete_function(x).graph.get_operations()


def strided_filter_gradients(operations):
    return [
        operation.name
        for operation in operations
        if operation.type == "Conv2DBackpropFilter" and max(operation.get_attr("strides")) > 1
    ]


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_without_the_faulty_operation(kind, library, rng):
    model = network(kind, library)
    x = rng.normal(size=(5, *KINDS[kind][2], WIDE)).astype("float32")
    expected, operations = step(model, x)
    assert strided_filter_gradients(operations)
    with safe_gradients(model):
        values, operations = step(model, x)
    assert not strided_filter_gradients(operations)
    for value, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    # Afterwards the layers are as they were.
    assert strided_filter_gradients(step(model, x)[1])


def test_layers_inside_others_are_found(rng):
    inner = keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(4, 1, strides=2)])
    inputs = keras.Input((2, 8, 8, 3))
    x = kl.TimeDistributed(kl.Conv2D(3, 1, strides=1))(inputs)
    model = keras.Model(inputs, kl.TimeDistributed(inner)(x))
    with safe_gradients(model):
        _, operations = step(model, rng.normal(size=(5, 2, 8, 8, 3)).astype("float32"))
    assert not strided_filter_gradients(operations)


@pytest.mark.parametrize(
    ("layer", "channels", "unsafe"),
    [
        (lambda: kl.Conv2D(32, 1, strides=2), 12, True),
        (lambda: kl.Conv2D(32, 1, strides=2), 16, False),
        (lambda: kl.Conv2D(32, 1), 12, False),
        (lambda: kl.Conv2D(32, 3, strides=2), 12, False),
        (lambda: kl.Conv2D(32, 1, strides=2, groups=2), 12, False),
        (lambda: kl.Conv2DTranspose(12, 1, strides=2), 32, True),
        (lambda: kl.Dense(12), 12, False),
    ],
)
def test_what_the_kernel_computes_wrongly(layer, channels, unsafe):
    layer = layer()
    layer.build((None, 8, 8, channels))
    assert has_unsafe_gradient(layer) is unsafe


def test_a_user_is_told_of_layers_that_training_gets_wrong(monkeypatch, rng):
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(16, 3, activation="relu", name="wide")(inputs)
    x = kl.Conv2D(16, 1, strides=2, name="strided")(x)
    model = keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x)))
    data = rng.normal(size=(40, 8, 8, 3)).astype("float32")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    with pytest.warns(tfprune.PruningWarning, match="strided now reads fewer than 16 channels"):
        tfprune.prune(model, data, remove=0.5, layers=["wide"], refit=0)
    # Warnings are errors in tests.
    tfprune.prune(model, data, remove=0.5, layers=["strided"], refit=0)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    tfprune.prune(model, data, remove=0.5, layers=["wide"], refit=0)


USER = """
import keras, numpy as np, tfprune
inputs = keras.Input((32, 32, 3))
x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
a = keras.layers.Conv2D(16, 1, strides=2)(x)
b = keras.layers.Conv2D(16, 3, strides=2, padding="same")(x)
outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([a, b])))
model = keras.Model(inputs, outputs)
data = np.random.default_rng(0).normal(size=(470, 32, 32, 3)).astype("float32")
pruned = tfprune.prune(model, data, remove=0.5, layers="all", refit=4).model
healed = tfprune.heal(pruned, model, data[:256], epochs=1)
print("done", healed.layers[1].filters)
"""


def test_a_user_never_reaches_the_faulty_kernel():
    """It ends the process by SIGABRT or SIGSEGV now and then, so it must not be called at all."""
    environment = {name: value for name, value in os.environ.items() if "ONEDNN" not in name}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USER], cwd=ROOT,
        env=environment | {"ONEDNN_VERBOSE": "1", "TF_ENABLE_ONEDNN_OPTS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "done 8"), done.stderr
    gradients = [line for line in lines if "backward_weights" in line]
    if platform.machine() in ("x86_64", "AMD64"):
        assert gradients, "oneDNN computes gradients on x86"
    assert not [line for line in gradients if "kh1sh2" in line and "kw1sw2" in line]
