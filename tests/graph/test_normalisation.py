"""Normalisation over units: whole groups go exactly, others as an approximation, where asked."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed, set_unit
from tests.graph.test_shrink import check
from tests.support.graphs import fill, outputs
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace


def dense(rng, layer, units=24):
    data = keras.Input((6,), name="data")
    x = layer(kl.Dense(units, activation="relu", name="hidden")(data))
    return fill(keras.Model(data, kl.Dense(3, name="out")(x)), rng)


@pytest.fixture
def x(rng):
    return rng.normal(size=(300, 6)).astype("float32")


@pytest.mark.parametrize("groups", [4, 12, -1])
def test_whole_groups_of_channels_go_without_a_trace(rng, groups):
    data = keras.Input((6, 6, 3), name="data")
    x = kl.Conv2D(12, 3, activation="relu", name="a")(data)
    x = kl.GroupNormalization(groups, name="norm")(x)
    model = fill(keras.Model(data, kl.Conv2D(2, 1, name="out")(kl.ReLU()(x))), rng)
    for seed in range(2):
        check(model, seed)
    each = 3 if groups == 4 else 1
    for place in range(each):
        set_unit(model, "a", each + place, 2 * each + place)
    gamma, beta = model.get_layer("norm").get_weights()
    for weight in (gamma, beta):
        weight[each : 2 * each] = weight[2 * each : 3 * each]
    model.get_layer("norm").set_weights([gamma, beta])
    pictures = rng.normal(size=(40, 6, 6, 3)).astype("float32")
    result = tfprune.prune(model, pictures, 0.5, layers="conv")
    assert result.layers[0].units_after <= 12 - each
    assert result.model.get_layer("norm").groups == (result.layers[0].units_after // each)
    assert changed(model, result, pictures) < 1e-4


@pytest.mark.parametrize(
    "layer", [kl.LayerNormalization, kl.RMSNormalization, kl.UnitNormalization, kl.Softmax]
)
def test_units_before_it_stay_unless_that_is_asked_for(rng, layer):
    (group, _) = groups_of(trace(dense(rng, layer(name="norm"))))
    assert group.blocked == f"norm ({layer.__name__}) mixes the units"


def test_softmax_stays_all_the_same(rng):
    (group, _) = groups_of(trace(dense(rng, kl.Softmax(name="norm")), approximate=True))
    assert "mixes the units" in group.blocked


@pytest.mark.parametrize(
    "layer",
    [kl.UnitNormalization(name="norm"),
     kl.LayerNormalization(center=False, scale=False, name="norm")],
)  # fmt: skip
def test_what_reads_makes_up_for_normalisation_without_weights(rng, x, layer):
    """The reader's kernel is the fold's, times the factors of a regression by numpy alone."""
    model = dense(rng, layer.__class__.from_config(layer.get_config()))
    result = tfprune.prune(model, x, remove=0.25, fold="drop", refit=0, approximate=True)
    (row,) = result.layers
    kept = list(map(int, row.kept))

    def normalised(one):
        return outputs(keras.Model(one.input, one.get_layer("norm").output), x)[0].astype(float)

    wanted, made = normalised(model)[:, kept], normalised(result.model)
    held = np.arange(len(x)) % 4 == 3
    factor = np.sum((made * wanted)[~held], 0) / np.sum(made[~held] ** 2, 0)
    kernel = model.get_layer("out").get_weights()[0][kept]
    ours = result.model.get_layer("out").get_weights()[0]
    ratios = ours / kernel
    np.testing.assert_allclose(ratios, ratios[:, :1] * np.ones(3), rtol=1e-4)
    # Fitted on other samples of the same kind.
    np.testing.assert_allclose(ratios[:, 0], factor, rtol=0.1)
    off = 100 * np.sqrt(np.mean((made * factor - wanted) ** 2) / np.var(wanted))
    assert float(row.note.partition("off by ")[2].removesuffix(" %")) == pytest.approx(
        off, rel=0.35
    )


def test_copies_in_front_of_unit_normalisation_go_exactly(rng, x):
    """With half of the units as copies of the others lengths shrink by the root of 2."""
    model = dense(rng, kl.UnitNormalization(name="norm"))
    for unit in range(12):
        set_unit(model, "hidden", unit + 12, unit)
    result = tfprune.prune(model, x, 0.5, refit=0, approximate=True)
    assert result.layers[0].units_after <= 12
    assert changed(model, result, x) < 1e-4
    assert not tfprune.prune(model, x, 0.5).layers


def test_attention_and_convolutions_make_up_for_unit_normalisation(rng):
    data = keras.Input((5, 6), name="data")
    hidden = kl.Dense(8, activation="relu", name="hidden")(data)
    plain = kl.Dropout(0.1)(kl.UnitNormalization(name="norm")(hidden))
    out = [kl.MultiHeadAttention(2, 3, output_shape=4, name="attention")(plain, plain),
           kl.Conv1D(4, 3, padding="same", groups=2, name="conv")(plain)]  # fmt: skip
    model = fill(keras.Model(data, kl.Dense(2, name="out")(kl.Add()(out))), rng)
    for unit in range(0, 8, 2):  # A copy beside each, in the same group of channels.
        set_unit(model, "hidden", unit + 1, unit)
    x = rng.normal(size=(80, 5, 6)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers=["hidden"], refit=0, approximate=True)
    assert result.layers[0].units_after <= 4
    assert changed(model, result, x) < 1e-4


@pytest.mark.parametrize("after", ["relu", "add"])
def test_units_stay_where_nothing_can_make_up_for_unit_normalisation(rng, after):
    def norm(x):
        plain = kl.UnitNormalization(name="norm")(x)
        return kl.ReLU(name="b")(plain) if after == "relu" else kl.Add(name="b")([plain, x])

    (group, *_) = groups_of(trace(dense(rng, norm), approximate=True))
    assert group.blocked.startswith("norm (UnitNormalization) mixes the units, and b (")
    assert group.blocked.endswith(") is no layer that reads them")


@pytest.mark.parametrize("layer", [kl.LayerNormalization, kl.RMSNormalization])
def test_survivors_are_scaled_to_what_all_made(rng, x, layer):
    """The weights are those of a regression of each unit, by numpy alone."""
    model = dense(rng, layer(name="norm"))
    result = tfprune.prune(model, x, remove=0.25, refit=0, approximate=True)
    (row,) = result.layers
    assert (row.units_before, row.units_after) == (24, 18)
    kept = list(map(int, row.kept))
    assert "approximate: output of norm off by" in row.note

    def normalised(one):
        return outputs(keras.Model(one.input, one.get_layer("norm").output), x)[0].astype(float)

    wanted, made = normalised(model)[:, kept], normalised(result.model)
    plain = outputs(keras.Model(result.model.input, result.model.get_layer("hidden").output), x)[0]
    if layer is kl.LayerNormalization:
        plain = plain - plain.mean(axis=1, keepdims=True)
    plain = plain / np.sqrt((plain**2).mean(axis=1, keepdims=True) + 1e-6)
    held = np.arange(len(x)) % 4 == 3
    best = np.zeros_like(wanted)
    for unit in range(18):
        columns = [plain[:, unit]]
        if layer is kl.LayerNormalization:
            columns.append(np.ones(len(x)))
        design = np.stack(columns, axis=1)
        solved = np.linalg.lstsq(design[~held], wanted[~held, unit], rcond=None)[0]
        best[:, unit] = design @ solved
    # Fitted on other samples of the same kind.
    assert np.sqrt(np.mean((made - best) ** 2)) < 0.02 * np.std(wanted)
    # Of all samples; the row's figure is of those that were held back.
    off = 100 * np.sqrt(np.mean((made - wanted) ** 2) / np.var(wanted))
    said = float(row.note.partition("off by ")[2].removesuffix(" %"))
    assert said == pytest.approx(off, rel=0.35)


@pytest.mark.parametrize("layer", [kl.LayerNormalization, kl.RMSNormalization])
def test_it_does_better_than_statistics_of_the_survivors(rng, x, layer):
    model = dense(rng, layer(name="norm"))
    result = tfprune.prune(model, x, remove=0.5, refit=0, approximate=True)
    kept = list(map(int, result.layers[0].kept))
    plain = keras.models.clone_model(result.model)
    plain.set_weights(result.model.get_weights())
    weights = [weight[kept] for weight in model.get_layer("norm").get_weights()]
    plain.get_layer("norm").set_weights(weights)
    goal = outputs(model, x)[0]
    ours, theirs = (np.mean((outputs(one, x)[0] - goal) ** 2) for one in (result.model, plain))
    assert ours < theirs


def test_copies_of_all_units_are_still_made_up_for(rng, x):
    """Mean and variance are as they were where half of the units repeat the others."""
    model = dense(rng, kl.LayerNormalization(name="norm", epsilon=1e-6))
    for unit in range(12):
        set_unit(model, "hidden", unit + 12, unit)
    gamma, beta = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([np.tile(gamma[:12], 2), np.tile(beta[:12], 2)])
    result = tfprune.prune(model, x, 0.5, approximate=True)
    assert result.layers[0].units_after <= 12
    assert changed(model, result, x) < 1e-4
    assert not tfprune.prune(model, x, 0.5).layers


def test_a_budget_counts_them(rng, x):
    model = dense(rng, kl.LayerNormalization(name="norm"))
    result = tfprune.prune(model, x, target_params="50%", approximate=True, refit=0)
    units = result.model.get_layer("hidden").units
    assert result.model.count_params() == units * (6 + 1 + 2 + 3) + 3
