"""A share of units instead of a threshold: how many go, and that the right ones do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (60, 10, 10, 3)).astype("float32")


@pytest.fixture
def model(rng):
    data = keras.Input((10, 10, 3))
    x = kl.Conv2D(8, 3, activation="relu", name="stem")(data)
    y = kl.Conv2D(8, 3, padding="same", activation="relu", name="branch")(x)
    x = kl.MaxPooling2D(2)(kl.Add()([x, y]))
    x = kl.Dense(10, activation="relu", name="hidden")(kl.Flatten()(x))
    return fill(keras.Model(data, kl.Dense(3, name="out")(x)), rng)


def error(model, smaller, x):
    return float(np.mean((outputs(model, x)[0] - outputs(smaller, x)[0]) ** 2))


@pytest.mark.parametrize(("share", "filters", "units"), [(0.25, 6, 8), (0.5, 4, 5), (0.99, 1, 1)])
def test_every_layer_loses_the_same_share(model, pictures, share, filters, units):
    result = tfprune.prune(model, pictures, remove=share, layers="all")
    kept = {layer.name: layer.units_after for layer in result.layers}
    assert kept == {"stem": filters, "branch": filters, "hidden": units}
    assert result.model.get_layer("hidden").kernel.shape[1] == units
    assert "of least effect" in result.layers[0].note
    stem, branch = result.layers[:2]
    np.testing.assert_array_equal(stem.kept, branch.kept)


def test_what_goes_matters_less_than_what_stays(model, pictures):
    """Three units planted so that their loss is known: a copy, a constant, one nobody hears."""
    hidden, out = model.get_layer("hidden"), model.get_layer("out")
    kernel, bias = hidden.get_weights()
    kernel[:, 0], bias[0] = kernel[:, 7], bias[7]
    kernel[:, 1], bias[1] = 0, 0.5
    hidden.set_weights([kernel, bias])
    heard, bias = out.get_weights()
    heard[2] = 0
    out.set_weights([heard, bias])
    result = tfprune.prune(model, pictures, remove=0.3, layers=["hidden"])
    kept = set(result.layers[0].kept)
    assert not kept & {1, 2}
    assert len(kept & {0, 7}) == 1
    np.testing.assert_allclose(
        outputs(result.model, pictures)[0], outputs(model, pictures)[0], atol=1e-3
    )


def test_it_loses_less_than_random_units_with_the_same_fold(model, pictures, rng):
    ours = tfprune.prune(model, pictures, remove=0.5, layers=["hidden"])
    by_lot = []
    for _ in range(20):
        kept = np.sort(rng.permutation(10)[:5])
        features = keras.Model(model.input, model.get_layer("hidden").output)
        activations = outputs(features, pictures)[0]
        inputs = np.column_stack([activations[:, kept], np.ones(len(activations))])
        fit = inputs @ np.linalg.lstsq(inputs, outputs(model, pictures)[0], rcond=None)[0]
        by_lot.append(np.mean((fit - outputs(model, pictures)[0]) ** 2))
    assert error(model, ours.model, pictures) < np.median(by_lot)


@pytest.mark.parametrize("share", [0, 1, -0.5, 50, "half", True, float("nan")])
def test_what_is_no_share_is_refused(model, pictures, share):
    with pytest.raises(tfprune.TfpruneError, match="expected a share between 0 and 1"):
        tfprune.prune(model, pictures, remove=share)


def test_folds_that_need_a_partner_are_refused(model, pictures):
    with pytest.raises(tfprune.TfpruneError, match="expected least-squares or drop with remove"):
        tfprune.prune(model, pictures, remove=0.5, fold="scaled")
    assert tfprune.prune(model, pictures, remove=0.5, fold="drop").layers[0].units_after == 5
