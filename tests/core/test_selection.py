"""The two rules of selection: their laws, and a loop that spells the studies' rule out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.core.selection import by_pairs, by_survivors
from tfprune.errors import TfpruneError
from tfprune.options import check_threshold


@st.composite
def layers(draw):
    """Symmetric angles with 0 on the diagonal, constants, a threshold."""
    units = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    degrees = rng.uniform(0, 180, (units, units))
    degrees = np.triu(degrees, 1) + np.triu(degrees, 1).T
    constant = rng.random(units) < draw(st.sampled_from([0.0, 0.2, 1.0]))
    return degrees, constant, draw(st.floats(1, 89))


def removed(selection):
    return {*selection.similar, *selection.complementary, *selection.constant}


@pytest.mark.parametrize("rule", [by_survivors, by_pairs])
@given(layers())
def test_every_unit_is_kept_or_removed_for_one_reason(rule, layer):
    degrees, constant, threshold = layer
    selection = rule(degrees, constant, threshold)
    kept = selection.kept.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) >= 1
    assert selection.units == len(degrees)
    assert removed(selection) | set(kept) == set(range(len(degrees)))
    assert not removed(selection) & set(kept)
    assert set(selection.constant) == set(np.flatnonzero(constant)) - set(selection.rescued)


@given(layers())
def test_a_survivor_does_the_work_of_every_removed_unit(layer):
    degrees, constant, threshold = layer
    selection = by_survivors(degrees, constant, threshold)
    for unit, partner in selection.similar.items():
        assert partner in selection.kept
        assert unit < partner
        assert degrees[unit, partner] < threshold
    for unit, partner in selection.complementary.items():
        assert partner in selection.kept
        assert degrees[unit, partner] > 180 - threshold
    for i in selection.kept:
        for j in selection.kept:
            if i != j:
                assert threshold <= degrees[i, j] <= 180 - threshold


@given(layers())
def test_pairs_are_those_of_the_studies(layer):
    degrees, constant, threshold = layer
    alive = [not c for c in constant]
    similar, complementary = {}, {}
    for i in range(len(degrees)):
        for j in range(i + 1, len(degrees)):
            if not (alive[i] and alive[j]):
                continue
            if degrees[i, j] < threshold:
                alive[i] = False
                similar[i] = j
            elif degrees[i, j] > 180 - threshold:
                alive[i] = alive[j] = False
                complementary[i], complementary[j] = j, i
    selection = by_pairs(degrees, constant, threshold)
    if any(alive):
        assert selection.similar == similar
        assert selection.complementary == complementary
        assert selection.kept.tolist() == [i for i, lives in enumerate(alive) if lives]
    else:
        assert selection.kept.tolist() == list(selection.rescued)


def test_a_layer_is_never_emptied():
    selection = by_pairs(np.full((3, 3), np.nan), np.ones(3, bool), 30)
    assert selection.kept.tolist() == [2]
    assert selection.rescued == (2,)
    assert selection.constant == (0, 1)


def test_a_chain_of_pairs_drifts_and_survivors_do_not():
    at = np.array([0.0, 20.0, 40.0])  # Neighbours are similar at 30 degrees, the ends are not.
    degrees = np.abs(at[:, None] - at)
    nothing = np.zeros(3, bool)
    assert by_pairs(degrees, nothing, 30).kept.tolist() == [2]
    assert by_survivors(degrees, nothing, 30).kept.tolist() == [0, 2]


@pytest.mark.parametrize(
    "bad", ["30%", "abc", "nan", "", 0, 90, -5, float("inf"), None, True, [30]]
)
def test_a_threshold_is_a_number_of_degrees(bad):
    with pytest.raises(TfpruneError, match="between 0 and 90"):
        check_threshold(bad)


@pytest.mark.parametrize("good", [30, "30", 22.5, 0.001, 89.999])
def test_thresholds_inside_the_range_pass(good):
    assert check_threshold(good) == float(good)
