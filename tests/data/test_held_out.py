"""What is held out is never trained on, whatever the data comes as."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as kl

from tfprune.data.held_out import held_out_count, held_out_split
from tfprune.graph.inputs import Samples
from tfprune.training.soft_targets import soft_targets


@pytest.mark.parametrize(
    ("samples", "count"),
    [(1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (20, 5), (100, 25), (101, 25), (250, 25), (251, 25),
     (260, 26), (1000, 100), (60_000, 5_000)],
)  # fmt: skip
def test_a_tenth_and_of_little_data_a_quarter(samples, count):
    assert held_out_count(samples) == count


@given(st.integers(1, 3_000), st.integers(0, 9))
def test_every_sample_is_on_one_side(samples, seed):
    trained_on, held_out = held_out_split(samples, seed)
    assert len(held_out) == held_out_count(samples)
    assert sorted([*trained_on, *held_out]) == list(range(samples))


def teacher():
    """Doubles what it reads."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, kl.Dense(2, use_bias=False)(inputs))
    model.set_weights([2 * np.eye(2, dtype="float32")])
    return model


class Batches(keras.utils.PyDataset):
    """Seven samples at a time, with labels."""

    def __init__(self, x):
        super().__init__()
        self._x = x

    def __len__(self):
        return (len(self._x) + 6) // 7

    def __getitem__(self, at):
        return self._x[7 * at : 7 * at + 7], np.zeros(len(self._x[7 * at : 7 * at + 7]))


SOURCES = {
    "array": lambda x: x,
    "in order": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(9),
    "another order each time": lambda x: (
        tf.data.Dataset.from_tensor_slices(x).shuffle(len(x), seed=1).batch(9)
    ),
    "PyDataset": Batches,
}


def rows(batches):
    """The numbers of the samples, whose outputs have to be theirs."""
    seen = []
    for (inputs,), (outputs,) in batches:
        np.testing.assert_allclose(outputs, 2 * inputs, rtol=1e-6)
        seen += [int(number) for number in inputs[:, 0]]
    return seen


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("samples", [2, 12, 130])
def test_sides_share_no_sample_in_any_epoch(kind, samples):
    x = np.stack([np.arange(samples), np.sin(np.arange(samples))], axis=1).astype("float32")
    model = teacher()
    targets = soft_targets(None, model, model, Samples(model, SOURCES[kind](x)))
    assert targets.held_out == held_out_count(samples)
    assert targets.trained_on == samples - targets.held_out
    held_out = rows(targets.held_out_batches())
    assert len(held_out) == targets.held_out
    rng = np.random.default_rng(0)
    for _ in range(2):
        batches = list(targets.batches(rng))
        assert len(batches) == targets.steps
        assert max(len(inputs[0]) for inputs, _ in batches) <= targets.batch_size
        assert sorted(rows(batches) + held_out) == list(range(samples))


@pytest.mark.parametrize("samples", [1, 6])
def test_equal_samples_of_a_data_set_are_all_trained_on(samples):
    x = tf.data.Dataset.from_tensor_slices(np.ones((samples, 2), "float32")).batch(4)
    model = teacher()
    targets = soft_targets(None, model, model, Samples(model, x))
    assert (targets.trained_on, targets.held_out) == (samples, 0)
    # The loss is then watched on what is trained on.
    assert len(rows(targets.held_out_batches())) == samples


def test_another_seed_holds_out_others():
    x = np.random.default_rng(0).normal(size=(100, 2)).astype("float32")
    model = teacher()
    for source in (x, tf.data.Dataset.from_tensor_slices(x).batch(10)):
        sides = [
            np.concatenate([inputs[0] for inputs, _ in targets.held_out_batches()])
            for targets in (
                soft_targets(None, model, model, Samples(model, source), seed=seed)
                for seed in (0, 0, 1)
            )
        ]
        assert np.array_equal(sides[0], sides[1])
        assert not np.array_equal(sides[0], sides[2])


def test_variances_are_those_of_the_teachers_outputs():
    x = np.random.default_rng(0).normal(3, 1, (700, 2)).astype("float32")
    model = teacher()
    for source in (x, tf.data.Dataset.from_tensor_slices(x).batch(64)):
        (variance,) = soft_targets(None, model, model, Samples(model, source)).variances
        assert variance == pytest.approx(np.var(2 * x, axis=0).mean(), rel=1e-4)


def carrying(batch):
    """A teacher that adds to what it reads what it read before: a running sum in each row."""
    inputs = keras.Input(batch_shape=(batch, 1, 2))
    cell = kl.SimpleRNN(2, activation="linear", use_bias=False, stateful=True)
    model = keras.Model(inputs, cell(inputs))
    model.set_weights([np.eye(2, dtype="float32"), np.eye(2, dtype="float32")])
    return model


@pytest.mark.parametrize("kind", ["array", "in order", "PyDataset"])
@pytest.mark.parametrize(("batch", "samples"), [(2, 31), (4, 16), (4, 4)])
def test_samples_that_follow_on_each_other_stay_in_order(kind, batch, samples):
    x = np.random.default_rng(0).normal(size=(samples, 1, 2)).astype("float32")
    student, model = carrying(batch), carrying(batch)
    targets = soft_targets(None, student, model, Samples(model, SOURCES[kind](x)))
    count = min(held_out_count(samples), samples - batch)
    assert (targets.held_out, targets.trained_on) == (count, samples - count)

    def sums(part):
        """Of each row of the batches, from zero on, by a plain loop."""
        state = np.zeros((batch, 2))
        for start in range(0, len(part) - batch + 1, batch):
            state = state + part[start : start + batch, 0]
            yield state

    rng = np.random.default_rng(0)
    for _ in range(2):
        parts = [x[: samples - count], x[samples - count :]] if count else [x, x]
        for part, batches in zip(
            parts, (targets.batches(rng), targets.held_out_batches()), strict=True
        ):
            whole = [one for one in batches if len(one[0][0]) == batch]
            assert len(whole) == len(part) // batch
            for ((inputs,), (outputs,)), start, expected in zip(
                whole, range(0, len(part), batch), sums(part), strict=False
            ):
                np.testing.assert_array_equal(inputs, part[start : start + batch])
                np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_batches_of_a_fixed_size_are_whole():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    inputs = keras.Input(batch_shape=(8, 2))
    model = keras.Model(inputs, kl.Dense(2)(inputs))
    for source in (x, tf.data.Dataset.from_tensor_slices(x).batch(9)):
        targets = soft_targets(None, model, model, Samples(model, source))
        assert (targets.held_out, targets.trained_on, targets.steps) == (12, 38, 4)
        batches = list(targets.batches(np.random.default_rng(0)))
        assert [len(inputs[0]) for inputs, _ in batches] == [8] * 4
        assert sum(len(inputs[0]) for inputs, _ in targets.held_out_batches()) == 12
