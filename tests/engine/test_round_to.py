"""``round_to``: widths are multiples, of the right units, and the folds refer to these."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.graph.test_shrink import masked
from tests.support.graphs import build, fill, outputs, recipes
from tfprune.core.fold import FOLD_RULES
from tfprune.criteria import select_all
from tfprune.folding import cuts_of
from tfprune.options import PruneOptions


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (80, 10, 10, 3)).astype("float32")


@pytest.fixture
def model(rng):
    """A residual block of 12 filters, and 20 units."""
    data = keras.Input((10, 10, 3))
    x = kl.Conv2D(12, 3, activation="relu", name="stem")(data)
    y = kl.Conv2D(12, 3, padding="same", activation="relu", name="branch")(x)
    x = kl.MaxPooling2D(2)(kl.Add()([x, y]))
    x = kl.Dense(20, activation="relu", name="hidden")(kl.Flatten()(x))
    return fill(keras.Model(data, kl.Dense(3, name="out")(x)), rng)


def widths(result):
    return {layer.name: layer.units_after for layer in result.layers}


ways = st.one_of(
    st.builds(PruneOptions, degrees=st.sampled_from([20.0, 60.0, 85.0]),
              fold=st.sampled_from(["least-squares", "scaled", "outgoing", "drop"])),
    st.builds(PruneOptions, degrees=st.just(40.0), select=st.just("span")),
    st.builds(PruneOptions, share=st.sampled_from([0.3, 0.7]),
              select=st.sampled_from(["effect", "span", "angle", "magnitude", "random"])),
)  # fmt: skip


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(recipes, ways, st.integers(2, 3))
def test_widths_of_any_graph_are_multiples_and_folds_those_of_what_stays(recipe, way, multiple):
    model = build(recipe, nesting=False)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (30, *recipe["shape"])).astype("float32")
    pruner = tfprune.Pruner(model, x, layers="all", hold_back=False)
    rounding = PruneOptions(**{**vars(way), "refit": 0, "round_to": multiple})
    plain, rounded = (
        pruner.prune_as(PruneOptions(**{**vars(rounding), "round_to": number}))
        for number in (None, multiple)
    )
    for before, after in zip(plain.layers, rounded.layers, strict=True):
        assert after.units_after == len(after.kept)
        width = after.units_before
        if way.share is None:
            assert set(before.kept) <= set(after.kept)
        if after.group:  # Parts of which may be narrower.
            continue
        if width < multiple:
            np.testing.assert_array_equal(after.kept, before.kept)
        else:
            assert after.units_after % multiple == 0 or after.units_after == width
            assert after.units_after >= multiple
    # The model that was shrunk is the whole one with the folds in front of all readers.
    rules = FOLD_RULES[way.fold]
    calibration = pruner._about(rules.centre("auto"))
    cuts = cuts_of(calibration, select_all(calibration, rounding), rules)
    reference = masked(model, [fold for cut in cuts for fold in cut.folds])
    for ours, expected in zip(outputs(rounded.model, x), outputs(reference, x), strict=True):
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize(
    ("share", "multiple", "filters", "units"),
    [(0.25, 4, 8, 16), (0.5, 4, 8, 12), (0.5, 8, 8, 8), (0.1, 8, 12, 20), (0.95, 8, 8, 8),
     (0.5, 16, 6, 16)],
)  # fmt: skip
def test_a_share_goes_to_the_nearest(model, pictures, share, multiple, filters, units):
    """Of 12 filters that go together, counted once; 16 are more than they are, so it is 6."""
    how = {"remove": share, "layers": "all", "refit": 0, "round_to": multiple}
    result = tfprune.prune(model, pictures, **how)
    assert widths(result) == {"stem": filters, "branch": filters, "hidden": units}
    np.testing.assert_array_equal(*(layer.kept for layer in result.layers[:2]))
    assert result.round_to == multiple


def test_what_comes_back_is_said(model, pictures):
    hidden = model.get_layer("hidden")
    kernel, bias = hidden.get_weights()
    # Units 0 to 8 do nearly what unit 19 does.
    noise = np.random.default_rng(0).normal(0, 0.05, kernel[:, :9].shape)
    kernel[:, :9], bias[:9] = kernel[:, 19:] + noise, bias[19]
    hidden.set_weights([kernel, bias])
    pruner = tfprune.Pruner(model, pictures, layers=["hidden"])
    (plain,) = pruner.prune(20).layers
    assert plain.similar == 9
    (rounded,) = pruner.prune(20, round_to=plain.units_after + 1).layers
    farthest = plain.angles[:9, 19].argmax()
    assert set(rounded.kept) - set(plain.kept) == {farthest}
    assert rounded.note.endswith("1 put back to round the width")


def test_each_of_the_layers_that_one_lies_over_is_a_multiple(pictures, rng):
    data = keras.Input((10, 10, 3))
    flat = kl.Flatten()(data)
    halves = [kl.Dense(width, name=name)(flat) for name, width in (("left", 8), ("right", 16))]
    both = kl.Add()([kl.Concatenate()(halves), kl.Dense(24, name="whole")(flat)])
    model = fill(keras.Model(data, kl.Dense(3, name="out")(both)), rng)
    for amount in ({"remove": 0.6}, {"target_params": "60%"}, {"threshold": 80}):
        result = tfprune.prune(model, pictures, **amount, refit=0, round_to=4)
        found = widths(result)
        assert all(width % 4 == 0 for width in found.values())
        assert found["whole"] == found["left"] + found["right"] < 24


def parameters(stem, hidden):
    """Of the model with these widths."""
    return 28 * stem + (9 * stem + 1) * stem + (16 * stem + 1) * hidden + (hidden + 1) * 3


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_a_budget_is_met_by_multiples(model, pictures, budget):
    how = {"target_params": budget, "layers": "all", "refit": 0, "round_to": 4}
    result = tfprune.prune(model, pictures, **how)
    found = widths(result)
    assert all(width % 4 == 0 for width in found.values())
    limit = int(budget * model.count_params())
    stem, hidden = found["stem"], found["hidden"]
    assert result.model.count_params() == parameters(stem, hidden) == result.reached.reached
    assert result.reached.reached <= limit
    more = [parameters(min(stem + 4, 12), hidden), parameters(stem, min(hidden + 4, 20))]
    assert max(more) > limit
    assert result.reached.why in [f"up to 4 units more make {size:,}" for size in more]


def test_the_least_that_can_be_reached_is_known_and_said(model, pictures):
    pruner = tfprune.Pruner(model, pictures, layers="all")
    assert pruner.parameters() == (parameters(12, 20), parameters(1, 1))
    least = parameters(8, 8)
    assert pruner.parameters(8) == (parameters(12, 20), least)
    result = pruner.prune(target_params=least, refit=0, round_to=8)
    assert result.model.count_params() == least
    with pytest.raises(tfprune.TfpruneError, match=f"least is {least:,} .* at most 8 units left"):
        pruner.prune(target_params=least - 1, refit=0, round_to=8)


@pytest.mark.parametrize("number", [0, 1, -8, 8.5, "many", 4096, True])
def test_what_is_no_multiple_is_refused(model, pictures, number):
    with pytest.raises(tfprune.TfpruneError, match="round_to: expected a whole number from 2"):
        tfprune.prune(model, pictures, round_to=number)
