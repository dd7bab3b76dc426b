"""Large models, compiled and looked at in places, against the same models called as they are."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.graph import forward
from tfprune.graph.activations import measure
from tfprune.graph.forward import Forward, numbers_of, taken
from tfprune.graph.groups import groups_of
from tfprune.graph.inputs import Samples
from tfprune.graph.tracer import trace


def pictures(size=6):
    data = keras.Input((size, size, 2))
    x = kl.Conv2D(5, 3, activation="relu", name="first")(data)
    x = kl.Conv2D(4, 1, activation="relu", name="second")(x)
    return keras.Model(data, kl.Dense(3, name="out")(kl.Flatten()(x)))


@pytest.fixture
def made(rng):
    return fill(pictures(), rng), rng.normal(size=(11, 6, 6, 2)).astype("float32")


def test_numbers_are_those_of_all_tensors(made):
    model, _ = made
    assert numbers_of(model) == 72 + 4 * 4 * 5 + 4 * 4 * 4 + 64 + 3


def test_compiled_or_not_outputs_are_the_model_s(made):
    model, x = made
    expected = model.predict(x, verbose=0)
    for large in (False, True):
        run = Forward(model, 4, large)
        assert (run.large, run.step) == (large, 4)
        received = np.concatenate([out for (out,) in run.batches([x])])
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_places_are_those_of_plain_indexing(seed, rank):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 2, 4, 5)).astype("float32")
    index = rng.integers(-1, 24, (7, 3)[:rank])
    expected = np.zeros((*index.shape, 5), "float32")
    for place in np.ndindex(index.shape):
        if index[place] >= 0:
            expected[place] = values[np.unravel_index(index[place], (3, 2, 4))]
    np.testing.assert_array_equal(taken(values, index), expected)
    np.testing.assert_array_equal(forward._gathered(values, index.astype("int32")), expected)


def test_some_outputs_whole_and_some_at_places(made, rng):
    model, x = made
    both = keras.Model(model.inputs, [model.get_layer("first").output, model.output])
    index = rng.integers(-1, 11 * 16, (9, 2))
    (first, out), (plain, same) = (Forward(both, 16, one)([x], [index, None]) for one in (True, 0))
    np.testing.assert_allclose(first, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out, same, rtol=1e-5, atol=1e-5)


def test_fewer_samples_at_a_time_of_a_larger_model():
    steps = [Forward(pictures(size), 256, True).step for size in (6, 200, 800)]
    assert steps[0] == 256 > steps[1] > steps[2] >= 1


def test_a_model_of_a_fixed_batch_size_stays_as_it_is(rng):
    data = keras.Input(batch_shape=(4, 3))
    run = Forward(keras.Model(data, kl.Dense(2)(data)), 256, True)
    assert (run.large, run.step, run.size) == (False, 4, 4)
    assert [len(out) for (out,) in run.batches([rng.normal(size=(7, 3))])] == [4, 3]


@pytest.mark.parametrize("each", [36, 5])
def test_moments_of_a_large_model(monkeypatch, rng, each):
    """All positions give the very moments; some of them, those of the values at them."""
    model = fill(pictures(), rng)
    x = rng.normal(size=(400, 6, 6, 2)).astype("float32")
    traced = trace(model)
    consumers = [one for group in groups_of(traced) for one in group.consumers]
    plain = measure(traced, consumers, Samples(model, x, hold_back=True))
    monkeypatch.setattr(forward, "LARGE", 0)
    monkeypatch.setattr("tfprune.graph.activations.POSITIONS", each)
    monkeypatch.setattr("tfprune.graph.activations.VECTORS", 1)
    large = measure(traced, consumers, Samples(model, x, hold_back=True), batch_size=64)
    for consumer, one, other in zip(consumers, plain, large, strict=True):
        # What is flattened has its positions among the features, which are all looked at.
        places = 16
        each = each if consumer.layer == "second" else places
        assert other.moments.count == 400 * min(places, each)
        assert other.held.count == 80 * min(places, each)
        close = {"rtol": 1e-4, "atol": 1e-4}
        if places > each:
            close = {"atol": 0.15 * np.sqrt(one.moments.covariance().diagonal().max())}
            covariances = (m.moments.covariance() for m in (one, other))
            np.testing.assert_allclose(*covariances, atol=close["atol"] ** 2 * 20)
        np.testing.assert_allclose(other.moments.mean, one.moments.mean, **close)


def test_a_batch_size_that_is_asked_for_is_kept(monkeypatch, made):
    model, x = made
    traced = trace(model)
    consumers = [one for group in groups_of(traced) for one in group.consumers]
    sizes = []
    call = Forward.__call__

    def noted(self, batch, index=None):
        sizes.append(len(batch[0]))
        return call(self, batch, index)

    monkeypatch.setattr(forward, "LARGE", 0)
    monkeypatch.setattr(Forward, "__call__", noted)
    measure(traced, consumers, Samples(model, x), batch_size=5)
    assert sizes == [5, 5, 1]
    sizes.clear()
    measure(traced, consumers, Samples(model, x))
    assert sizes == [11]
