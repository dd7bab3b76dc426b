"""Ways to choose units beside pairwise angles, against fits on the samples themselves."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tfprune.criteria import CRITERIA
from tfprune.options import BUDGET_SELECTIONS, SELECTIONS, SHARE_SELECTIONS
from tfprune.sweep.grid import DEFAULTS


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (400, 6)).astype("float32")


def net(units=16, activation="relu"):
    layers = [keras.Input((6,)), kl.Dense(units, activation, name="hidden"), kl.Dense(3)]
    return keras.Sequential(layers)


def angle_to_span(activations, unit, kept):
    """Degrees between a unit's vector and the nearest linear function of others and a constant."""
    basis = np.column_stack([activations[:, kept], np.ones(len(activations))]).astype(float)
    vector = activations[:, unit].astype(float)
    rest = vector - basis @ np.linalg.lstsq(basis, vector, rcond=None)[0]
    return np.degrees(np.arcsin(np.linalg.norm(rest) / np.linalg.norm(vector)))


@settings(max_examples=15)
@given(seed=st.integers(0, 99), threshold=st.sampled_from([3, 10, 25]))
def test_what_goes_is_in_the_span_and_what_stays_is_not(seed, threshold):
    rng = np.random.default_rng(seed)
    model = fill(net(), rng)
    x = rng.normal(0, 1, (200, 6)).astype("float32")
    result = tfprune.prune(model, x, threshold, select="span")
    activations = outputs(keras.Model(model.inputs[0], model.layers[0].output), x)[0]
    kept = result.layers[0].kept
    constant = np.ptp(activations, axis=0) == 0
    for unit in set(range(16)) - set(kept) - set(np.flatnonzero(constant)):
        assert angle_to_span(activations, unit, kept) < threshold + 0.1
    # The last one that was taken in was out of the reach of all others.
    apart = [angle_to_span(activations, u, [k for k in kept if k != u]) for u in kept]
    assert len(kept) == 1 or max(apart) > threshold - 0.1


def test_a_sum_of_others_goes_though_no_pair_is_similar(rng, x):
    model = fill(net(8, "linear"), rng)
    hidden = model.get_layer("hidden")
    kernel, bias = hidden.get_weights()
    kernel[:, :6] = np.eye(6)
    kernel[:, 6] = kernel[:, :6].sum(axis=1)
    kernel[:, 7] = kernel[:, 0] - kernel[:, 1]
    hidden.set_weights([kernel, bias])
    by_angle, by_span = (tfprune.prune(model, x, 5, select=way) for way in ("angle", "span"))
    assert by_angle.layers[0].units_after == 8
    assert by_span.layers[0].units_after == 6
    assert by_span.layers[0].note == "2 in the span of the others"
    np.testing.assert_allclose(outputs(by_span.model, x), outputs(model, x), atol=1e-3)


def test_every_list_of_criteria_names_the_same():
    assert tuple(CRITERIA) == SHARE_SELECTIONS == DEFAULTS["selections"]
    assert {name for name in CRITERIA if CRITERIA[name].degrees} == set(SELECTIONS)
    assert tuple(name for name in CRITERIA if CRITERIA[name].budget) == BUDGET_SELECTIONS
    for name in CRITERIA:
        assert f"``{name}``" in tfprune.prune.__doc__
        assert f'"{name}"' in tfprune.prune.__doc__


@pytest.mark.parametrize("select", CRITERIA)
def test_every_way_takes_the_share_that_was_asked_for(select, rng):
    data = keras.Input((8, 8, 2))
    y = kl.Conv2D(6, 3, activation="relu", name="one")(data)
    y = kl.Add()([y, kl.Conv2D(6, 3, activation="relu", padding="same", name="other")(y)])
    model = fill(keras.Model(data, kl.Dense(2)(kl.GlobalMaxPooling2D()(y))), rng)
    pictures = rng.normal(0, 1, (60, 8, 8, 2)).astype("float32")
    result = tfprune.prune(model, pictures, remove=0.5, layers="all", select=select, refit=0)
    assert [layer.units_after for layer in result.layers] == [3, 3]
    assert result.select == select
    assert not np.allclose(outputs(result.model, pictures), 0)


def test_magnitude_is_the_length_of_incoming_weights(rng, x):
    model = fill(net(), rng)
    result = tfprune.prune(model, x, remove=0.25, select="magnitude", refit=0)
    lengths = np.linalg.norm(model.get_layer("hidden").get_weights()[0], axis=0)
    assert set(range(16)) - set(result.layers[0].kept) == set(np.argsort(lengths)[:4])


def test_closest_pairs_go_first(rng, x):
    model = fill(net(), rng)
    hidden = model.get_layer("hidden")
    kernel, bias = hidden.get_weights()
    kernel[:, [3, 8]], bias[[3, 8]] = 2 * kernel[:, [5, 12]], 2 * bias[[5, 12]]
    hidden.set_weights([kernel, bias])
    result = tfprune.prune(model, x, remove=0.125, select="angle", refit=0)
    assert set(range(16)) - set(result.layers[0].kept) == {3, 8}


def test_random_goes_by_its_seed(rng, x):
    model = fill(net(), rng)
    kept = [
        set(tfprune.prune(model, x, remove=0.5, select="random", seed=s, refit=0).layers[0].kept)
        for s in (1, 1, 2)
    ]
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"select": "effect"}, "select effect: needs a share to remove"),
        ({"select": "best"}, "select: expected one of angle, span"),
        ({"select": "best", "remove": 0.5}, "select: expected one of effect, span, angle"),
        ({"select": "span", "fold": "scaled"}, "fold: expected least-squares or drop"),
    ],
)
def test_what_cannot_be_is_told(asked, complaint, rng, x):
    with pytest.raises(tfprune.TfpruneError, match=complaint):
        tfprune.prune(net(), x, **asked)
