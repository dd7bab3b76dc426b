"""Least squares on few samples, tried on others: no worse there, much better where it overfits."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, plant
from tfprune.core.fold import least_squares, scaled
from tfprune.core.fold_choice import squared_errors, steadiest_fold
from tfprune.core.moments import Moments
from tfprune.core.selection import Selection
from tfprune.graph.inputs import MOST_HELD_BACK, Samples

PAIRS = Selection(np.arange(12), similar={12 + unit: unit for unit in range(12)})
NOWHERE = np.zeros(24)


def moments_of(a):
    made = Moments(a.shape[1])
    made.add(a)
    return made


def activations(rng, samples):
    """24 units of 30 causes, the last twelve nearly their partners."""
    a = rng.normal(0, 1, (samples, 12 + 18))
    units = a @ np.random.default_rng(7).normal(0, 1, (30, 24))
    units[:, 12:] = 0.8 * units[:, :12] + 0.6 * units[:, 12:]
    return units + 2


def missed(fold, a):
    """By a plain product with the samples."""
    return np.mean((a - a[:, fold.kept] @ fold.matrix - fold.offset) ** 2, axis=0)


@pytest.mark.parametrize("no_offset", [False, True])
def test_errors_are_those_of_the_samples(rng, no_offset):
    a, b = activations(rng, 50), activations(rng, 30)
    for make in (least_squares, scaled):
        fold = make(PAIRS, moments_of(a), a.mean(axis=0), no_offset)
        np.testing.assert_allclose(squared_errors(fold, moments_of(b)), missed(fold, b), atol=1e-9)


def test_few_samples_are_not_fitted_to_the_letter(rng):
    a, held, fresh = (activations(rng, count) for count in (14, 10, 4000))
    usual = least_squares(PAIRS, moments_of(a), NOWHERE)
    steadier = steadiest_fold(PAIRS, moments_of(a), False, moments_of(a), moments_of(held))
    assert missed(usual, a)[12:].sum() < 0.1 * missed(usual, fresh)[12:].sum()
    assert missed(steadier, fresh)[12:].sum() < 0.6 * missed(usual, fresh)[12:].sum()


def test_enough_samples_leave_least_squares_as_they_are(rng):
    a, held = activations(rng, 2000), activations(rng, 200)
    usual = least_squares(PAIRS, moments_of(a), NOWHERE)
    same = steadiest_fold(PAIRS, moments_of(a), False, moments_of(a), moments_of(held))
    np.testing.assert_array_equal(same.matrix, usual.matrix)
    np.testing.assert_array_equal(same.offset, usual.offset)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(1, 12), st.booleans())
def test_no_more_is_missed_of_the_samples_held_back(seed, samples, held, no_offset):
    rng = np.random.default_rng(seed)
    a, b = activations(rng, samples), activations(rng, held)
    gone = np.arange(12, 24)
    selection = PAIRS if seed % 2 else Selection(np.arange(12), least=tuple(gone))
    usual = least_squares(selection, moments_of(a), NOWHERE, no_offset)
    ours = steadiest_fold(selection, moments_of(a), no_offset, moments_of(a), moments_of(b))
    assert missed(ours, b)[gone].sum() <= missed(usual, b)[gone].sum() * (1 + 1e-9)
    assert (ours.matrix[:, :12] == np.eye(12)).all()


def test_a_unit_that_changes_in_more_samples_is_no_constant(rng):
    a, b = rng.normal(0, 1, (300, 5)), rng.normal(0, 1, (40, 5))
    a[:, :3] = [0.0, 0.5, 0.5]
    b[:, :3] = [0.0, 0.5, 0.6]
    assert moments_of(a).constant().tolist() == [True, True, True, False, False]
    both = moments_of(np.concatenate([a, b])).constant()
    assert moments_of(a).constant(moments_of(b)).tolist() == both.tolist()
    assert both.tolist() == [True, True, False, False, False]


class Batches(keras.utils.PyDataset):
    """Batches of 7 with labels."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return math.ceil(len(self.x) / 7)

    def __getitem__(self, at):
        return self.x[7 * at : 7 * at + 7], np.zeros(7)


@pytest.mark.parametrize("count", [3, 10, 200, 3000])
@pytest.mark.parametrize("kind", ["array", "file", "stream", "batches"])
def test_what_is_held_back_is_apart_and_the_same_each_time(rng, tmp_path, count, kind):
    x = np.arange(6 * count, dtype=np.float32).reshape(count, 6)
    np.save(tmp_path / "x.npy", x)
    data = {
        "array": x,
        "file": str(tmp_path / "x.npy"),
        "stream": tf.data.Dataset.from_tensor_slices(x).batch(9),
        "batches": Batches(x),
    }[kind]
    samples = Samples(chain(rng), data, hold_back=True)
    passes = []
    for size in (64, 16):
        held, rest = [], []
        for (batch,), mask in samples.divided(size):
            held.append(batch[mask])
            rest.append(batch[~mask])
        passes.append((np.concatenate(held), np.concatenate(rest)))
    (held, rest), again = passes
    np.testing.assert_array_equal(held, again[0])
    assert np.array_equal(np.sort(np.concatenate([held, rest]), axis=0), x)
    left = np.concatenate([batch for (batch,) in samples.batches(50)])
    if kind in ("array", "file"):
        assert len(held) == min(count // 5, MOST_HELD_BACK)
    assert len(held) <= MOST_HELD_BACK
    np.testing.assert_array_equal(left, rest)
    if len(held):
        (shown,) = samples.held_back()
        np.testing.assert_array_equal(shown, held)
    else:
        assert samples.held_back() is None


@pytest.mark.parametrize("count", [40, 600])
def test_planted_units_still_go_without_a_trace(rng, count):
    x = rng.normal(0, 1, (count, 6)).astype("float32")
    model = chain(rng, units=20)
    for unit in range(5):
        plant(model, "hidden", unit, 10 + unit, scale=1 + unit)
    result = tfprune.prune(model, x, 1)
    assert result.layers[0].units_after <= 15
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5)


def test_pruning_on_few_samples_takes_the_steadier_fold(rng):
    model = keras.Sequential(
        [keras.Input((30,)), kl.Dense(24, name="hidden"), kl.Dense(4, name="out")]
    )
    kernel = np.random.default_rng(7).normal(0, 1, (30, 24))
    kernel[:, 12:] = 0.8 * kernel[:, :12] + 0.6 * kernel[:, 12:]
    model.set_weights([kernel, np.full(24, 2), rng.normal(0, 1, (24, 4)), np.zeros(4)])
    x = rng.normal(0, 1, (4000, 30)).astype("float32")
    errors = []
    for hold_back in (False, True):
        result = tfprune.Pruner(model, x[:16], hold_back=hold_back).prune(50)
        errors.append(float(np.mean((result.model(x) - model(x)) ** 2)))
    assert result.layers[0].units_after < 16
    assert errors[1] < 0.8 * errors[0]
