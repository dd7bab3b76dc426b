"""The shrunken model against the original with the fold put in front of every reader."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import build, outputs, recipes
from tfprune.fold import Fold
from tfprune.layers import functional
from tfprune.shrink import shrink
from tfprune.trace import trace


class Masked(keras.layers.Layer):
    """Replaces features by what survivors say of them."""

    def __init__(self, matrix, shift):
        super().__init__()
        self.matrix, self.shift = matrix.astype("float32"), shift.astype("float32")

    def call(self, x):
        return keras.ops.matmul(x, self.matrix) + self.shift


def masked(model, folds):
    """The original, same widths, with a Masked in front of every reader."""

    def call(layer, *args, **kwargs):
        mine = [(read, fold) for read, fold in folds if read.layer == layer.name]
        if mine:
            (x,) = args
            matrix, shift = np.eye(x.shape[-1]), np.zeros(x.shape[-1])
            for read, fold in mine:
                for features in read.index:
                    for unit, feature in enumerate(features):
                        matrix[:, feature] = 0
                        shift[feature] = fold.shift[unit]
                        for row, survivor in enumerate(fold.kept):
                            matrix[features[survivor], feature] = fold.matrix[row, unit]
            args = (Masked(matrix, shift)(x),)
        return layer(*args, **kwargs)

    source = functional(model)
    copy = keras.models.clone_model(source, call_function=call)
    for layer in source.layers:
        if layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def random_plan(traced, rng):
    intakes, folds = {}, []
    for name, producer in traced.producers.items():
        if name in traced.blocked or rng.random() < 0.2:
            continue
        survivors = rng.integers(1, producer.units + 1)
        kept = np.sort(rng.choice(producer.units, survivors, replace=False))
        intakes[name] = np.eye(producer.units)[:, kept]
        for read in traced.reads_of(name):
            matrix = rng.normal(0, 0.5, (len(kept), producer.units))
            matrix[:, kept] = np.eye(len(kept))
            shift = rng.normal(0, 0.5, producer.units) * (rng.random() < 0.8)
            shift[kept] = 0
            folds.append((read, Fold(kept, matrix, shift)))
    return intakes, folds


def check(model, seed):
    rng = np.random.default_rng(seed)
    traced = trace(model)
    intakes, folds = random_plan(traced, rng)
    smaller = shrink(model, traced, intakes, folds)
    x = rng.normal(0, 1, (4, *model.inputs[0].shape[1:])).astype("float32")
    for ours, expected in zip(outputs(smaller, x), outputs(masked(model, folds), x), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)
    for name, intake in intakes.items():
        assert smaller.get_layer(name).units == intake.shape[1]
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    return intakes


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(recipes, st.integers(0, 2**32 - 1))
def test_a_shrunken_model_is_the_masked_original(recipe, seed):
    check(build(recipe), seed)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(recipes, st.integers(0, 2**32 - 1))
def test_a_shrunken_model_is_the_masked_original_on_many(recipe, seed):
    check(build(recipe), seed)


def test_the_oracle_sees_removals():
    """The random models above would prove nothing if every layer in them were skipped."""
    keras.backend.clear_session()
    data = keras.Input((3, 4), name="data")
    a = keras.layers.Dense(5, activation="relu", name="a")(data)
    b = keras.layers.Dense(4, name="b")(a)
    b = keras.layers.ReLU()(keras.layers.BatchNormalization()(b))
    both = keras.layers.Flatten()(keras.layers.Concatenate()([a, b]))
    model = keras.Model(data, keras.layers.Dense(2, use_bias=False, name="out")(both))
    removed = [check(model, seed) for seed in range(5)]
    assert any(set(intakes) == {"a", "b"} for intakes in removed)
