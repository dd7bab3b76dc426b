"""What a copy of a model is given of the user's own: functions, layers, losses, metrics."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tfprune import TfpruneError
from tfprune.graph.clone import clone
from tfprune.graph.precision import in_float32
from tfprune.graph.shrink import shrink
from tfprune.graph.tracer import trace

ops = keras.ops


# Keras has functions of these names, which compute something else.
def relu(x):
    return ops.sin(3 * x)


def gelu(x):
    return ops.cos(3 * x)


class Wave:
    """A callable object, which Keras cannot write into a configuration."""

    def __call__(self, x):
        return ops.sin(5 * x)


class Apply(kl.Layer):
    """Has no get_config, and Keras makes none of a function."""

    def __init__(self, function, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.function, self.factor = function, factor

    def call(self, x):
        return self.factor * self.function(x)


class Named(kl.Layer):
    """Reads its configuration itself, as Keras' documentation has it."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, keras.activations.get(activation)
        self.inner = kl.Dense(units)

    def call(self, x):
        return self.activation(self.inner(x))

    def get_config(self):
        own = {"units": self.units, "activation": keras.activations.serialize(self.activation)}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "activation": keras.activations.deserialize(config["activation"])})


class Compiled(kl.Layer):
    """Makes something else of the function that it is given."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = tf.function(function)

    def call(self, x):
        return self.function(x)

    def get_config(self):
        return {**super().get_config(), "function": self.function}


class Cell(kl.Layer):
    def __init__(self, units, activation, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.activation = activation

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x, states):
        state = self.activation(x @ self.kernel) + 0.5 * states[0]
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "activation": self.activation}


class Twice(kl.Wrapper):
    def call(self, x):
        return 2 * self.layer(x)


FUNCTIONS = {
    "relu": lambda: relu,
    "gelu": lambda: gelu,
    "lambda": lambda: lambda x: ops.sin(7 * x),
    # Its source cannot be read, as of one that is typed in.
    "typed in": lambda: eval("lambda x: ops.sin(4 * x)", {"ops": ops}),
    "partial": lambda: functools.partial(keras.activations.leaky_relu, negative_slope=0.7),
    "object": Wave,
    "layer": lambda: Apply(relu, factor=2.0),
}
LAYERS = {
    "dense": lambda act: kl.Dense(4, activation=act),
    "activation": kl.Activation,
    "conv": lambda act: kl.Conv1D(4, 2, activation=act),
    "separable": lambda act: kl.SeparableConv1D(4, 2, activation=act),
    "lstm": lambda act: kl.LSTM(4, activation=act),
    "gru": lambda act: kl.GRU(4, recurrent_activation=act),
    "steps": lambda act: kl.TimeDistributed(kl.Dense(4, activation=act)),
    "nested steps": lambda act: kl.TimeDistributed(
        keras.Sequential([keras.Input((5,)), kl.Dense(4, activation=act)])
    ),
    "both ways": lambda act: kl.Bidirectional(
        kl.LSTM(4), backward_layer=kl.LSTM(4, activation=act, go_backwards=True)
    ),
    "cell": lambda act: kl.RNN(Cell(4, act)),
    "cells": lambda act: kl.RNN([kl.LSTMCell(4, activation=act), kl.GRUCell(3, activation=act)]),
    "spectral": lambda act: kl.SpectralNormalization(kl.Dense(4, activation=act)),
    "own wrapper": lambda act: Twice(kl.Dense(4, activation=act)),
    "own": Apply,
    "own with a reader": lambda act: Named(4, act),
    "own that compiles": Compiled,
}


DEEP = ("nested steps", "both ways", "cells", "own with a reader")


@pytest.mark.parametrize(
    ("layer", "function"),
    [(layer, "relu") for layer in LAYERS]
    + [(layer, name) for layer in ("dense", *DEEP) for name in FUNCTIONS if name != "relu"],
)
def test_copies_compute_with_the_users_own_functions(rng, layer, function):
    made = LAYERS[layer](FUNCTIONS[function]())
    model = keras.Sequential([keras.Input((3, 5)), made, kl.Flatten(), kl.Dense(2)])
    x = rng.normal(0, 1, (6, 3, 5)).astype("float32")
    np.testing.assert_array_equal(np.asarray(clone(model)(x)), np.asarray(model(x)))


@pytest.mark.parametrize("layer", ["dense", "steps", "nested steps", "own wrapper", "own"])
def test_a_model_of_half_precision_keeps_them(rng, layer):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = LAYERS[layer](relu)
        model = keras.Sequential([keras.Input((3, 5)), made, kl.Flatten(), kl.Dense(2)])
    finally:
        keras.config.set_dtype_policy("float32")
    x = rng.normal(0, 0.1, (6, 3, 5)).astype("float32")
    single = in_float32(model)
    assert single.layers[0].compute_dtype == single(x).dtype == "float32"
    np.testing.assert_allclose(
        np.asarray(single(x)), ops.convert_to_numpy(model(x)).astype("float32"), atol=0.1
    )


def test_an_activation_called_relu_is_not_taken_for_keras_own(rng):
    x = rng.normal(0, 1, (200, 5)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((5,)),
            kl.Dense(8, activation=relu, name="own"),
            kl.Dense(8, activation="relu", name="hidden"),
            kl.Dense(2),
        ]
    )
    result = tfprune.prune(model, x, remove=0.5)
    assert [layer.name for layer in result.layers] == ["hidden"]
    assert result.model.get_layer("own").activation is relu
    # Only the last two layers changed, so what they read is what it was.
    ours, theirs = (np.asarray(m.layers[0](x)) for m in (result.model, model))
    np.testing.assert_array_equal(ours, theirs)
    healed = tfprune.heal_with_record(result.model, model, x, 1).model
    assert healed.get_layer("own").activation is relu


class L2(keras.regularizers.Regularizer):
    def __call__(self, weight):
        return 3 * ops.sum(ops.abs(weight))


class NonNeg(keras.constraints.Constraint):
    def __call__(self, weight):
        return ops.clip(weight, -1, 1)


def start(shape, dtype=None):
    """Makes weights of the shapes of the whole model alone."""
    assert tuple(shape) in ((5, 8), (8, 2))
    return ops.ones(shape, dtype) / np.arange(1, shape[-1] + 1)


def test_initializers_regularizers_and_constraints_are_handed_over(rng):
    x = rng.normal(0, 1, (200, 5)).astype("float32")
    own = {
        "kernel_initializer": start, "kernel_regularizer": L2(),
        "activity_regularizer": L2(), "kernel_constraint": NonNeg(),
    }  # fmt: skip
    model = keras.Sequential(
        [keras.Input((5,)), kl.Dense(8, "relu", name="hidden", **own), kl.Dense(2, **own)]
    )
    result = tfprune.prune(model, x, remove=0.5)
    assert result.layers[0].units_after == 4
    for layer in result.model.layers:
        assert {key: getattr(layer, key) for key in own} == own


def scaled(weight):
    return lambda t: t * weight


LAMBDAS = {
    "a lambda": lambda: {"function": lambda t: ops.abs(t)},
    "a function": lambda: {"function": relu},
    "a shape": lambda: {"function": lambda t: ops.abs(t), "output_shape": (6,)},
    "the shape of a function": lambda: {"function": relu, "output_shape": (6,)},
    "a shape by a function": lambda: {"function": relu, "output_shape": lambda shape: shape},
    "arguments": lambda: {
        "function": lambda t, by, then: then(t * by),
        "arguments": {"by": np.arange(6, dtype="float32"), "then": lambda t: t + 1},
    },
    "a mask": lambda: {
        "function": lambda t, mask=None: t if mask is None else 0 * t,
        "mask": lambda inputs, mask: mask,
    },
    "a closure": lambda: {"function": scaled(ops.arange(6.0))},
    "code without a source": lambda: {"function": eval("lambda t: abs(t)", {"abs": ops.abs})},
}


@pytest.mark.parametrize("kind", LAMBDAS)
def test_lambda_layers_made_in_this_process_are_copied(rng, kind):
    x = rng.normal(0, 1, (100, 5)).astype("float32")
    given = LAMBDAS[kind]()
    model = keras.Sequential(
        [
            keras.Input((5,)),
            kl.Dense(8, activation="relu", name="hidden"),
            kl.Dense(6, name="before"),
            kl.Lambda(**given, name="lambda", trainable=False),
            kl.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert [(layer.name, layer.units_after) for layer in result.layers] == [("hidden", 4)]
    assert result.model.get_layer("lambda").function is given["function"]
    assert not result.model.get_layer("lambda").trainable
    between = rng.normal(0, 1, (20, 6)).astype("float32")
    ours, theirs = (m.layers[3](m.layers[2](between)) for m in (result.model, model))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    tfprune.heal_with_record(result.model, model, x, 1)


class Stubborn(kl.Layer):
    """Does not tell what it was made with."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.grid = np.arange(size)

    def call(self, x):
        return x

    def compute_output_shape(self, shape):
        return shape


def test_what_cannot_be_copied_is_named(rng):
    inner = kl.TimeDistributed(Stubborn(np.int64(3), name="inner"), name="outer")
    model = keras.Sequential([keras.Input((3, 5)), inner, kl.Flatten(), kl.Dense(2)])
    with pytest.raises(TfpruneError, match=r"layer inner \(Stubborn\) .*no attribute size"):
        clone(model)


def test_a_shrunken_model_keeps_the_function_beside_the_new_width(rng):
    model = keras.Sequential([keras.Input((5,)), kl.Dense(4, activation=Wave()), kl.Dense(2)])
    smaller = shrink(model, trace(model), [])
    assert smaller.layers[0].activation is model.layers[0].activation
