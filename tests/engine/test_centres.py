"""Where angles are measured from: a unit may go only where its fold can make up for it."""

from __future__ import annotations

import tomllib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, fill, outputs, plant
from tests.support.paths import ROOT
from tfprune.calibration import consumer_view, group_angles
from tfprune.core.fold import FOLD_RULES, least_squares, scaled
from tfprune.core.moments import Moments
from tfprune.core.selection import Selection, by_survivors
from tfprune.graph.activations import Measured
from tfprune.graph.groups import Consumer, Group

PAPERS = ROOT / "tfprune" / "studies"


def moments_of(a):
    made = Moments(a.shape[1])
    made.add(a)
    return made


def read_of(units, no_offset=False):
    everything = np.arange(units)
    return Consumer("reader", (0,), everything, everything[None], np.zeros(units), no_offset)


def seen(a, point, no_offset=False):
    """Angles and constants of one reader."""
    units = a.shape[1]
    group = Group({"layer": np.arange(units)}, {"layer": "dense"}, np.arange(units))
    return group_angles(
        group, [consumer_view(read_of(units, no_offset), Measured(moments_of(a)), point)]
    )


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(10, 60),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.booleans(),
    st.sampled_from(["least-squares", "scaled"]),
)
def test_a_unit_goes_only_where_its_fold_leaves_little_of_what_varies(
    seed, threshold, level, no_offset, name
):
    """The sine of the threshold is the largest share of its deviation that may be missed."""
    rng = np.random.default_rng(seed)
    a = rng.normal(level, 1, (300, 3)) @ rng.normal(0, 1, (3, 9)) + rng.normal(0, 0.2, (300, 9))
    a = np.maximum(a, 0) if seed % 2 else a
    degrees, constant = seen(a, "mean", no_offset)
    selection = by_survivors(degrees, constant, threshold)
    pairs = selection.similar | selection.complementary
    moments = moments_of(a)
    fold = FOLD_RULES[name].fold(
        selection, moments, consumer_view(read_of(9), Measured(moments), "mean").centre, no_offset
    )
    missed = a[:, list(pairs)] - (a[:, fold.kept] @ fold.matrix + fold.offset)[:, list(pairs)]
    share = np.sqrt(np.mean(missed**2, axis=0)) / a[:, list(pairs)].std(axis=0)
    assert (share <= np.sin(np.radians(threshold)) + 1e-3).all()


def test_units_that_share_a_level_alone_stay(rng):
    """About 0 they are 12 degrees apart, and nothing that either says is in the other."""
    a = rng.normal(5, 0.75, (2000, 2))
    about_zero, _ = seen(a, "none")
    assert about_zero[0, 1] < 15
    for no_offset in (False, True):
        degrees, _ = seen(a, "mean", no_offset)
        assert degrees[0, 1] > 80
    model = keras.Sequential([keras.Input((2,)), kl.Dense(2, name="hidden"), kl.Dense(1)])
    model.set_weights([np.eye(2), np.zeros(2), np.array([[1.0], [-1.0]]), np.zeros(1)])
    assert tfprune.prune(model, a, 30).layers[0].units_after == 2


@pytest.mark.parametrize("no_offset", [False, True])
def test_angles_are_those_of_plain_vectors(rng, no_offset):
    a = rng.normal(0, 1, (400, 3)) @ rng.normal(0, 1, (3, 5)) + rng.normal(0, 2, 5)
    degrees, _ = seen(a, "mean", no_offset)
    for i in range(5):
        for j in range(i):
            if no_offset:
                missed = [
                    np.linalg.norm(one - other * (one @ other) / (other @ other))
                    / np.linalg.norm(one - one.mean())
                    for one, other in ((a[:, i], a[:, j]), (a[:, j], a[:, i]))
                ]
                expected = np.degrees(np.arcsin(min(max(missed), 1)))
                expected = 180 - expected if a[:, i] @ a[:, j] < 0 else expected
            else:
                expected = np.degrees(np.arccos(np.corrcoef(a[:, i], a[:, j])[0, 1]))
            assert degrees[i, j] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("level", [0.3, 1000.0])
@pytest.mark.parametrize("units", [6, 200])
def test_a_unit_that_never_changes_has_no_direction_about_its_mean(rng, level, units):
    """What rounding leaves of it points anywhere, and would make it like another one."""
    a = rng.normal(0, 1, (3000, units)).astype(np.float32)
    a[:, 1] = level
    a[:, 2] = 2 * np.float32(level)
    degrees, constant = seen(a, "mean")
    assert constant.nonzero()[0].tolist() == [1, 2]
    assert np.isnan(degrees[1, 1])
    assert np.isnan(degrees[1, 2])
    assert degrees[0, 1] == 90  # Nothing of a unit that varies is in it.
    assert degrees[0, 3] > 80


def test_two_constants_in_front_of_padding_are_alike(rng):
    """There is no bias for them to go into, but one is a multiple of the other."""
    a = rng.normal(0, 1, (3000, 4))
    a[:, 1], a[:, 2] = 0.3, -0.6
    degrees, constant = seen(a, "mean", no_offset=True)
    assert not constant.any()
    assert degrees[1, 2] == pytest.approx(180)
    assert degrees[0, 1] > 80


def test_a_partner_that_never_changes_here_leaves_a_constant(rng):
    """In another reader's eyes the two may be alike."""
    a = rng.normal(2, 1, (500, 2))
    a[:, 1] = 0.7 + 1e-9 * rng.normal(size=500)
    selection = Selection(np.array([1]), similar={0: 1})
    for fold in (scaled, least_squares):
        made = fold(selection, moments_of(a), a.mean(axis=0))
        assert made.offset[0] + 0.7 * made.matrix[0, 0] == pytest.approx(a[:, 0].mean())
        assert abs(made.matrix[0, 0]) < 1e-6


@pytest.mark.parametrize("fold", FOLD_RULES)
def test_auto_is_what_the_fold_can_make_up_for(rng, fold):
    """A constant where there is one; the studies measured from the middle of the activation."""
    x = rng.normal(0, 1, (400, 6)).astype("float32")
    model = chain(rng, activation="sigmoid")
    plant(model, "hidden", 4, 1)
    auto = tfprune.prune(model, x, 25, fold=fold)
    expected = "mean" if fold in ("least-squares", "scaled") else "activation"
    assert auto.centre == expected
    named = tfprune.prune(model, x, 25, fold=fold, centre=expected)
    a = keras.Model(model.inputs[0], model.layers[0].output)(x).numpy().astype(float)
    a -= a.mean(axis=0) if expected == "mean" else 0.5
    lengths = np.linalg.norm(a, axis=0)
    expected = np.degrees(np.arccos(np.clip(a.T @ a / np.outer(lengths, lengths), -1, 1)))
    np.testing.assert_allclose(auto.layers[0].angles, expected, atol=0.01)
    for ours, theirs in zip(outputs(auto.model, x), outputs(named.model, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_pruner_measures_for_all_folds(rng):
    x = rng.normal(0, 1, (400, 6)).astype("float32")
    model = chain(rng, activation="sigmoid")
    pruner = tfprune.Pruner(model, x)
    for fold in ("drop", "least-squares", "outgoing"):
        alone = tfprune.prune(model, x, 40, fold=fold)
        together = pruner.prune(40, fold=fold)
        assert (together.layers, together.centre) == (alone.layers, alone.centre)


def test_the_studies_say_where_they_measured_from():
    studies = [tomllib.loads(path.read_text()) for path in PAPERS.glob("*.toml")]
    centres = [
        experiment["centre"]
        for study in studies
        for experiment in study["experiments"]
        if "centre" in experiment
    ]
    assert set(centres) == {"activation", 0.5}


def test_padded_filters_are_held_against_what_varies(rng):
    """Filters with one large bias in common: a multiple of one misses all that the other says."""
    data = keras.Input((8, 8, 2))
    first = kl.Conv2D(4, 3, name="first")(data)
    second = kl.Conv2D(3, 3, padding="same", name="second")(first)
    model = fill(keras.Model(data, kl.GlobalAveragePooling2D()(second)), rng)
    kernel, bias = model.get_layer("first").get_weights()
    model.get_layer("first").set_weights([kernel, np.full_like(bias, 12)])
    x = rng.normal(0, 1, (60, 8, 8, 2)).astype("float32")
    kept = {
        centre: tfprune.prune(model, x, 30, layers=["first"], centre=centre).layers[0].units_after
        for centre in ("auto", "activation")
    }
    assert kept == {"auto": 4, "activation": 1}
