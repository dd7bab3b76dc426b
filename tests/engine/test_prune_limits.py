"""``tfprune.prune`` at its limits: what it refuses, what it has to take, what is no hindrance."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, fill, largest_change, plant
from tfprune import TfpruneError


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (600, 6)).astype("float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": "30%"}, "number of degrees between 0 and 90, received '30%'"),
        ({"centre": "middle"}, "expected auto, mean, activation, none or a number"),
        ({"centre": float("nan")}, "a number, received nan"),
        ({"fold": "origami"}, "expected one of least-squares, .*, received 'origami'"),
        ({"x": np.zeros((0, 6))}, "at least one sample"),
        ({"x": np.zeros((5, 7))}, r"shape \(6,\) as model chain takes them, received \(7,\)"),
        ({"x": np.full((5, 6), np.nan)}, "NaN or infinity"),
        ({"x": np.array([["a"] * 6])}, "expected numbers"),
    ],
)
def test_bad_arguments_are_told(rng, x, change, message):
    arguments = {"x": x, "threshold": 30, **change}
    with pytest.raises(TfpruneError, match=message):
        tfprune.prune(chain(rng), **arguments)


def test_weights_and_activations_that_are_not_finite_are_told(rng, x):
    model = chain(rng)
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[2, 2] = np.nan
    model.get_layer("hidden").set_weights([kernel, bias])
    with pytest.raises(TfpruneError, match="layer hidden: expected finite weights"):
        tfprune.prune(model, x)
    kernel[:] = 1e38
    model.get_layer("hidden").set_weights([kernel, bias])
    with pytest.raises(TfpruneError, match="layer out reads: activations: .* infinity"):
        tfprune.prune(model, 1e3 * np.abs(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = kl.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("model", [Subclassed(), keras.Sequential([kl.Dense(3), kl.Dense(2)])])
def test_models_without_shapes_are_refused_with_what_to_do(model, x):
    with pytest.raises(TfpruneError, match="known shapes.*keras.Input.*keras.Model"):
        tfprune.prune(model, x)
    with pytest.raises(TfpruneError, match="expected a Keras 3 model, received str"):
        tfprune.prune("model.keras", x)


def test_an_adapted_normalization_keeps_its_statistics(rng):
    x = (5 * rng.normal(0, 1, (300, 6)) + 3).astype("float32")
    adapted = kl.Normalization()
    adapted.adapt(x)
    model = keras.Sequential(
        [
            keras.Input((6,), name="data"),
            adapted,
            kl.Dense(8, activation="relu", name="h"),
            kl.Dense(2),
        ]
    )
    plant(model, "h", 1, 0)
    result = tfprune.prune(model, x, 1)
    assert result.layers[0].units_after == 7
    assert largest_change(model, result, x) < 1e-5


class Stateful(kl.Layer):
    """Holds a factor that neither its config nor its weights know."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_a_model_that_cannot_be_copied_faithfully_is_refused(rng, x):
    layer = Stateful(name="state")
    layer.factor = 3.0
    with pytest.raises(TfpruneError, match="a copy of it computes something else"):
        tfprune.prune(chain(rng, layer), x)


class Closed(kl.Layer):
    def __init__(self, grid):
        super().__init__(name="closed")
        self.size = len(grid)

    def call(self, x):
        return x


def own_loss(truth, made):
    return keras.ops.mean(keras.ops.abs(truth - made))


@pytest.mark.filterwarnings("ignore:.*lambda.*:UserWarning")
def test_losses_and_initialisers_of_the_users_own_are_no_hindrance(rng, x):
    for loss in (own_loss, lambda truth, made: own_loss(truth, made)):
        model = chain(rng)
        model.compile("adam", loss)
        plant(model, "hidden", 1, 0)
        smaller = tfprune.prune(model, x, 0.5).model
        assert smaller.loss is loss
    start = keras.initializers.Constant(np.arange(12.0))
    model = keras.Sequential(
        [keras.Input((6,)), kl.Dense(12, bias_initializer=start, name="hidden"), kl.Dense(2)]
    )
    plant(model, "hidden", 1, 0)
    result = tfprune.prune(model, x, 0.5)
    assert result.layers[0].units_after == 11
    assert largest_change(model, result, x) < 1e-4
    with pytest.raises(TfpruneError, match="closed .* cannot be copied: its class needs"):
        tfprune.prune(chain(rng, Closed(np.arange(3))), x)


def test_a_reshape_on_two_ways_and_a_concatenation_of_batches(rng, x):
    data = keras.Input((6,), name="data")
    first, second = (kl.Dense(4, activation="relu", name=name)(data) for name in "ab")
    shared = kl.Reshape((2, 2), name="shared")
    both = kl.Concatenate()([kl.Flatten()(shared(first)), kl.Flatten()(shared(second))])
    model = fill(keras.Model(data, kl.Dense(2)(both)), rng)
    plant(model, "a", 1, 0)
    result = tfprune.prune(model, x, 5)
    assert not result.layers
    assert largest_change(model, result, x) == 0
    stacked = kl.Concatenate(axis=0, name="stack")([first, second])
    model = fill(keras.Model(data, kl.Dense(2)(stacked)), rng)
    reasons = {s.name: s.reason for s in tfprune.prune(model, x, 5).skipped}
    assert "stack" in reasons["a"]
    assert "stack" in reasons["b"]


def test_layers_inside_wrappers_are_named(rng):
    data = keras.Input((4, 6))
    wrapped = kl.SpectralNormalization(kl.Dense(5, name="deep"), name="norm")(data)
    model = keras.Model(data, kl.Dense(2)(kl.Dense(4, name="mid")(wrapped)))
    result = tfprune.prune(model, rng.normal(0, 1, (50, 4, 6)), 5)
    reasons = {s.name: s.reason for s in result.skipped}
    assert reasons["norm/deep"] == "inside norm (SpectralNormalization), which is not looked into"


@pytest.mark.parametrize("units", [128, 300, 600])
def test_planted_units_of_wide_layers_go_without_a_trace(rng, x, units):
    model = chain(rng, units=units)
    for pair in range(0, units // 2, 2):
        plant(model, "hidden", pair + 1, pair, scale=1 + pair / 100)
    result = tfprune.prune(model, x, 0.2)
    assert not set(result.layers[0].kept) & set(range(0, units // 2, 2))
    scale = max(1, np.abs(model.predict(x, verbose=0)).max())
    assert largest_change(model, result, x) < 1e-5 * scale


def test_activations_that_are_layers(rng, x):
    model = chain(rng, activation=kl.LeakyReLU(negative_slope=0.2))
    plant(model, "hidden", 3, 1)
    result = tfprune.prune(model, x, 0.5)
    assert 1 not in result.layers[0].kept
    assert largest_change(model, result, x) < 1e-5
    reason = tfprune.prune(chain(rng, activation=kl.Softmax()), x).skipped[0].reason
    assert reason == "softmax of hidden (Dense) mixes the units"


def test_nan_in_bfloat16_weights_is_refused(rng, x):
    dtype = keras.DTypePolicy("bfloat16")
    model = fill(keras.Sequential([keras.Input((6,)), kl.Dense(4, dtype=dtype), kl.Dense(2)]), rng)
    kernel, bias = model.layers[0].get_weights()
    kernel[0, 0] = np.nan
    model.layers[0].set_weights([kernel, bias])
    with pytest.raises(TfpruneError, match="expected finite weights"):
        tfprune.prune(model, x)
