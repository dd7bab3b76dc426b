"""Models that take batches of one size alone, and recurrent layers that keep their state."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, plant
from tfprune import TfpruneError
from tfprune.data.splits import Split
from tfprune.graph.batches import fixed_batch, many_models, padded, rebatched, states_of
from tfprune.graph.predictions import outputs_of
from tfprune.outputs.distance import difference
from tfprune.training.finetuning import FineTuner

ops = keras.ops


def recurrent(rng, batch=1, *, stateful=True):
    """A stateful recurrent layer in front of what can be pruned."""
    return fill(
        keras.Sequential(
            [
                keras.Input(batch_shape=(batch if stateful else None, 5, 3)),
                kl.GRU(6, stateful=stateful, name="gru"),
                kl.Dense(16, activation="tanh", name="hidden"),
                kl.Dense(2),
            ]
        ),
        rng,
    )


def stubborn(rng, batch):
    """Works for batches of its size alone."""
    layers = [
        kl.Dense(12, activation="relu", name="hidden"),
        kl.Dense(4, name="next"),
        kl.Lambda(lambda t: ops.reshape(t, (batch, 2, 2)), output_shape=(2, 2)),
        kl.Flatten(),
        kl.Dense(2),
    ]
    return fill(keras.Sequential([keras.Input(batch_shape=(batch, 8)), *layers]), rng)


def in_order(model, x, batch):
    """The plain loop: batches in order from a state of zero, the rest filled up."""
    for state in states_of(model):
        state.assign(ops.zeros_like(state))
    rows = []
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        filled = np.concatenate([part, *[part[-1:]] * (batch - len(part))])
        rows.append(np.asarray(model(filled))[: len(part)])
    return np.concatenate(rows)


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (64, 5, 3)).astype("float32")


@pytest.mark.parametrize(("batch", "samples"), [(1, 12), (4, 12), (4, 13), (8, 3)])
def test_outputs_are_those_of_a_plain_loop(rng, x, batch, samples):
    model = recurrent(rng, batch)
    expected = in_order(model, x[:samples], batch)
    for _ in range(2):  # What was run before makes no difference.
        (received,) = outputs_of(model, [x[:samples]])
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_the_models_own_state_stays_as_it_is(rng, x):
    model = recurrent(rng, 4)
    model(x[:4])
    before = [state.numpy() for state in states_of(model)]
    assert np.abs(before[0]).max() > 0
    result = tfprune.prune(model, x, remove=0.5)
    healed = tfprune.heal_with_record(result.model, model, x, 1).model
    difference(healed, model, [x])
    for state, value in zip(states_of(model), before, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_planted_units_behind_a_stateful_layer_go_without_a_trace(rng, x, batch):
    model = recurrent(rng, batch)
    plant(model, "hidden", 3, 1)
    result = tfprune.prune(model, x, 0.5, batch_size=batch)
    assert result.layers[0].units_after == 15
    expected, received = (in_order(m, x[:56], batch) for m in (model, result.model))
    np.testing.assert_allclose(received, expected, atol=1e-4)
    assert result.model.input_shape[0] == batch
    anew = tfprune.prune(model, x, 0.5)
    np.testing.assert_array_equal(anew.layers[0].kept, result.layers[0].kept)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_moments_are_those_of_the_data_in_order(rng, x, batch):
    """What a stateless model measures of one long sequence, cut as the batches cut it."""
    model = recurrent(rng, batch)
    rows = x[: 60 // batch * batch]
    angles = tfprune.prune(model, rows, 5).layers[0].angles
    states_in_order = keras.Sequential(model.layers[:1])
    hidden = np.tanh(
        in_order(states_in_order, rows, batch) @ model.layers[1].kernel.numpy()
        + model.layers[1].bias.numpy()
    )
    away = hidden - hidden.mean(axis=0)
    lengths = np.linalg.norm(away, axis=0)
    expected = np.degrees(np.arccos(np.clip(away.T @ away / np.outer(lengths, lengths), -1, 1)))
    np.testing.assert_allclose(angles, expected, atol=0.1)


def test_data_sets_are_cut_into_batches_that_fit(rng, x):
    model = recurrent(rng, 4)
    data = tf.data.Dataset.from_tensor_slices(x).batch(6)
    ours, theirs = (tfprune.prune(model, source, remove=0.75, refit=0) for source in (data, x))
    assert ours.layers == theirs.layers
    for mine, other in zip(ours.model.get_weights(), theirs.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    # Nothing was fitted to the samples that are held out of the training.
    dropped = tfprune.prune(model, x, remove=0.5, fold="drop").model
    healed = tfprune.heal(dropped, model, data, 10)
    assert difference(healed, model, [x]) < difference(dropped, model, [x])


def test_pruning_by_a_share_refits_and_heals(rng, x):
    model = recurrent(rng, 4)
    bare, result = (tfprune.prune(model, x, remove=0.75, refit=steps) for steps in (0, 50))
    before, refitted = (difference(r.model, model, [x]) for r in (bare, result))
    assert refitted < before
    dropped = tfprune.prune(model, x, remove=0.5, fold="drop").model
    healed = tfprune.heal(dropped, model, x, 10)
    assert difference(healed, model, [x]) < difference(dropped, model, [x])
    with pytest.raises(TfpruneError, match="batch_size: expected 4, which is all that model"):
        tfprune.heal(bare.model, model, x, 1, batch_size=8)
    with pytest.raises(TfpruneError, match="at least 4 samples to train on"):
        tfprune.heal(bare.model, model, x[:3], 1)


@pytest.mark.parametrize("batch", [3, 4])
def test_layers_that_work_for_one_batch_size_alone(rng, batch):
    x = rng.normal(0, 1, (50, 8)).astype("float32")
    model = stubborn(rng, batch)
    with pytest.raises(Exception):  # noqa: B017 - the example is what it says it is
        model.predict(x, verbose=0)
    plant(model, "hidden", 3, 1)
    result = tfprune.prune(model, x, 0.5)
    assert result.layers[0].units_after == 11
    (ours,), (theirs,) = (outputs_of(m, [x]) for m in (result.model, model))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    half = tfprune.prune(model, x, remove=0.5, fold="drop", refit=20).model
    healed = tfprune.heal(half, model, x, 2)
    assert difference(healed, model, [x]) < difference(half, model, [x])
    tuner = FineTuner(model, Split(x, x[:, :2]))
    assert tuner.fine_tuned(half, 1, tuner)[0].input_shape[0] == batch


def test_files_of_models_of_a_fixed_batch_size(rng, x, tmp_path):
    with pytest.raises(TfpruneError, match="keeps no state between invocations and layer gru"):
        tfprune.export(recurrent(rng), tmp_path, ["float32"], x)
    data = rng.normal(0, 1, (50, 8)).astype("float32")
    (path,) = tfprune.export(stubborn(rng, 4), tmp_path, ["float32"], data, batch=4).values()
    assert path.exists()


def test_batches_are_cut_and_filled_up():
    data = np.arange(10)
    cut = list(rebatched([[data[:3]], [data[3:4]], [data[4:]]], 4))
    assert [part.tolist() for (part,) in cut] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert padded([data], 4)[0].tolist() == [*range(10), 9, 9]
    assert padded([data], 5)[0] is padded([data], None)[0] is data


def test_inputs_of_two_batch_sizes_are_refused():
    inputs = [keras.Input(batch_shape=(size, 3)) for size in (2, 3)]
    model = keras.Model(inputs, [kl.Dense(1)(tensor) for tensor in inputs])
    with pytest.raises(TfpruneError, match="inputs of one batch size, received 2, 3"):
        fixed_batch(model)


def test_states_inside_wrappers_are_found(rng):
    layer = kl.Bidirectional(kl.LSTM(3, stateful=True))
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), layer, kl.Dense(1)])
    assert len(states_of(model)) == 4
    assert not states_of(recurrent(rng, stateful=False))


def test_of_many_models_no_function_is_said_to_be_traced_too_often():
    heard = []

    class Ear(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    logger, ear = logging.getLogger("tensorflow"), Ear()
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.WARNING)
    try:
        with many_models():
            for said in ("5 out of 8 calls triggered tf.function retracing", "out of memory"):
                logger.warning(said)
        logger.warning("6 out of 9 calls triggered tf.function retracing")
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
    assert heard == ["out of memory", "6 out of 9 calls triggered tf.function retracing"]
