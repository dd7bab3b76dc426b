"""What pruning changed in the outputs: measured on samples held back, said where it is much."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, fill, plant
from tfprune.outputs.change import Change, change_of


def network(rng, activation, units, loss=None, width=20):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            kl.Dense(width, activation="relu", name="hidden"),
            kl.Dense(units, activation=activation, name="out"),
        ],
        name="net",
    )
    fill(model, rng)
    if loss:
        model.compile(loss=loss)
    return model


def silent(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tfprune.PruningWarning)
        return tfprune.prune(*args, **kwargs)


@pytest.mark.parametrize(
    ("activation", "units", "loss", "decides"),
    [
        ("softmax", 4, None, lambda out: out.argmax(-1)),
        ("sigmoid", 1, None, lambda out: out > 0.5),
        ("sigmoid", 3, "binary_crossentropy", lambda out: out > 0.5),
        (None, 1, keras.losses.BinaryCrossentropy(from_logits=True), lambda out: out > 0),
        (None, 3, "mse", None),
    ],
)
def test_figures_are_those_of_the_outputs(rng, activation, units, loss, decides):
    model = network(rng, activation, units, loss)
    x, held = (rng.normal(0, 1, (count, 6)).astype("float32") for count in (500, 90))
    result = silent(model, x, remove=0.6, refit=0, validation=held)
    before, after = (np.asarray(one(held), float) for one in (model, result.model))
    if decides is None:
        assert result.change.agreement is None
    elif activation == "sigmoid" and units > 1:
        each = (decides(before) == decides(after)).mean()
        largest = (before.argmax(-1) == after.argmax(-1)).mean()
        assert result.change.agreement == pytest.approx(min(each, largest))
    else:
        same = decides(before) == decides(after)
        assert result.change.agreement == pytest.approx(same.mean())
    error = np.sqrt(np.mean((after - before) ** 2) / np.mean((before - before.mean(0)) ** 2))
    assert result.change.output_error == pytest.approx(error, rel=1e-4)
    assert result.change.samples == 90
    assert f"\noutputs: {result.change}" in str(result)


@pytest.mark.parametrize(
    ("change", "beyond"),
    [
        (Change(0.3, 0.98, 100), False),
        (Change(0.3, 0.979, 100), True),
        (Change(0.05, None, 100), False),
        (Change(0.051, None, 100), True),
        (Change(0.051, 1.0, 100), False),
        (Change(0.051, 1.0, 100, unsure=True), True),
        (Change(0.0, 0.979, 100, unsure=True), True),
    ],
)
def test_limits(change, beyond):
    assert change.beyond == beyond


def test_a_loss_is_a_warning_with_what_to_call_instead(rng):
    model = network(rng, "softmax", 4)
    x = rng.normal(0, 1, (1000, 6)).astype("float32")
    with pytest.warns(tfprune.PruningWarning, match="pruning changed the outputs: ") as caught:
        result = tfprune.prune(model, x, 80)
    assert caught[0].filename == __file__
    (text,) = [str(one.message) for one in caught]
    assert text == result.notes[0]
    assert str(result.change) in text
    assert "on 200 samples; instead: fewer degrees, threshold=40, or tfprune.heal(" in text
    for asked, words in (
        ({"remove": 0.9, "refit": 0}, "a smaller share, remove=0.45"),
        ({"target_params": "20%", "refit": 0}, "a larger budget"),
        ({"threshold": 80, "centre": "none"}, 'threshold=40, or centre="mean"'),
        ({"threshold": 80, "fold": "drop"}, 'fold="least-squares"'),
    ):
        with pytest.warns(tfprune.PruningWarning, match="pruning changed the outputs: ") as caught:
            tfprune.prune(model, x, **asked)
        assert words in str(caught[0].message)
    with pytest.warns(tfprune.PruningWarning, match="pruning changed the outputs: "):
        tfprune.Pruner(model, x).prune(80)


def test_what_costs_nothing_says_nothing(rng):
    model = network(rng, "softmax", 4)
    plant(model, "hidden", 3, 0)
    x = rng.normal(0, 1, (1000, 6)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tfprune.prune(model, x, 1)
    assert result.layers[0].units_after == 19
    assert result.change.agreement == 1
    assert result.change.output_error < 1e-5
    assert result.notes == ()


@pytest.mark.parametrize("kind", ["array", "stream"])
def test_it_is_measured_on_samples_that_no_fold_was_fitted_on(rng, kind):
    """Of few samples little is missed, since the folds are fitted to them; of others more."""
    model = keras.Sequential([keras.Input((30,)), kl.Dense(24, name="hidden"), kl.Dense(3)])
    fill(model, rng)
    x = rng.normal(0, 1, (4000, 30)).astype("float32")
    few = x[:40]
    data = few if kind == "array" else tf.data.Dataset.from_tensor_slices(few).batch(10)
    result = silent(model, data, remove=0.4, refit=0)
    own, others = (change_of(model, result.model, [one]).output_error for one in (few, x))
    assert result.change.samples < 20
    assert own < 0.8 * others
    assert result.change.output_error > 1.2 * own


def test_a_refitted_model_is_measured_as_it_is(rng):
    model = network(rng, "softmax", 4)
    x = rng.normal(0, 1, (600, 6)).astype("float32")
    held = rng.normal(0, 1, (100, 6)).astype("float32")
    for more in ({"validation": held}, {}):
        bare, refitted = (silent(model, x, remove=0.5, refit=n, **more).change for n in (0, 30))
        assert refitted.output_error < bare.output_error


def test_few_samples_are_told(rng):
    model = chain(rng, units=30)
    x = rng.normal(0, 1, (25, 6)).astype("float32")
    result = silent(model, x, 5)
    assert "only 25 samples for 30 units" in result.layers[0].note


def test_rounding_changes_no_decision():
    """All units of this output are 0 for the second sample; the first of them decides."""
    data = keras.Input((2,))
    model = keras.Model(data, kl.Dense(2, name="out")(data))
    almost = keras.Model(data, kl.Dense(2, name="out")(data))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.set_weights([np.eye(2, dtype="float32"), np.zeros(2, "float32")])
    almost.set_weights([np.eye(2, dtype="float32"), np.array([0, 1e-9], "float32")])
    x = np.array([[1, 2], [0, 0], [3, 1]], "float32")
    assert np.asarray(almost(x)).argmax(-1).tolist() == [1, 1, 0]
    assert change_of(model, almost, [x]).agreement == 1
    almost.set_weights([np.eye(2, dtype="float32"), np.array([0, 0.1], "float32")])
    assert change_of(model, almost, [x]).agreement == pytest.approx(2 / 3)
