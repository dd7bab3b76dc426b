"""Widths that are multiples: which ones, and which units come back for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_selection import layers
from tfprune.core.rounding import nearest_width, next_width, parts, rounded_up
from tfprune.core.selection import by_pairs, by_span, by_survivors, without


@st.composite
def widths(draw):
    size = draw(st.integers(1, 70))
    return size, draw(st.integers(1, size)), draw(st.integers(2, 20))


@given(widths())
def test_the_next_width_is_the_least_that_may_be(width):
    size, kept, multiple = width
    may_be = [w for w in range(kept, size + 1) if w % multiple == 0 or w == size]
    assert next_width(*width) == (min(may_be) if size >= multiple else kept)


@given(widths())
def test_no_width_is_nearer_than_the_nearest(width):
    size, kept, multiple = width
    may_be = [w for w in range(1, size + 1) if w % multiple == 0 or w == size]
    found = nearest_width(*width)
    if size < multiple:
        assert found == kept
        return
    assert found in may_be
    assert all(abs(w - kept) >= abs(found - kept) for w in may_be)
    assert found >= multiple


@pytest.mark.parametrize("rule", [by_survivors, by_pairs])
@given(layers(), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_units_come_back_until_each_part_is_a_multiple(rule, layer, multiple, seed):
    degrees, constant, threshold = layer
    selection = rule(degrees, constant, threshold)
    in_first = np.random.default_rng(seed).random(len(degrees)) < 0.6
    apart = [part for part in map(np.flatnonzero, (in_first, ~in_first)) if len(part)]
    rounded = rounded_up(selection, apart, multiple, degrees)
    for part in apart:
        before, after = (int(np.isin(part, s.kept).sum()) for s in (selection, rounded))
        assert after == next_width(len(part), before, multiple)
    assert set(selection.kept) <= set(rounded.kept)
    assert set(rounded.kept) - set(selection.kept) == set(rounded.rounded)
    gone = [*rounded.similar, *rounded.complementary, *rounded.constant, *rounded.least]
    assert sorted([*gone, *rounded.kept]) == list(range(len(degrees)))
    # Each removed unit still has the partner, and the reason, that it had.
    for name in ("similar", "complementary"):
        now, then = (getattr(s, name) for s in (rounded, selection))
        assert now == {unit: then[unit] for unit in then if unit not in rounded.kept}
    if rule is by_survivors:
        partners = {*rounded.similar.values(), *rounded.complementary.values()}
        assert partners <= set(rounded.kept)


@given(layers())
def test_what_was_farthest_from_its_partner_comes_back_first(layer):
    degrees, constant, threshold = layer
    selection = by_survivors(degrees, constant, threshold)
    rounded = rounded_up(selection, [np.arange(len(degrees))], 4, degrees)

    def distance(unit):
        if unit in selection.constant:
            return -1
        if unit in selection.similar:
            return degrees[unit, selection.similar[unit]]
        return 180 - degrees[unit, selection.complementary[unit]]

    gone = set(range(len(degrees))) - set(rounded.kept)
    for back in rounded.rounded:
        assert all(distance(back) >= distance(unit) for unit in gone)


def test_of_a_pair_that_went_together_none_comes_back_before_others():
    degrees = np.full((4, 4), 90.0)
    degrees[0, 1], degrees[2, 3] = 170, 5
    selection = by_pairs(np.minimum(degrees, degrees.T) + np.maximum(degrees, degrees.T) - 90,
                         np.zeros(4, bool), 20)  # fmt: skip
    assert (selection.kept.tolist(), selection.complementary) == ([3], {0: 1, 1: 0})
    symmetric = np.minimum(degrees, degrees.T) + np.maximum(degrees, degrees.T) - 90
    assert rounded_up(selection, [np.arange(4)], 2, symmetric).kept.tolist() == [2, 3]


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_units_that_went_one_by_one_come_back_from_the_last(units, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(units)
    count = int(rng.integers(1, units))
    constant = np.zeros(units, bool)
    rounded = rounded_up(
        without(order[:count], constant), [np.arange(units)], 3, np.zeros((units, units))
    )
    fewer = units - next_width(units, units - count, 3)
    assert rounded.kept.tolist() == sorted(order[fewer:])


@given(st.integers(0, 2**32 - 1))
def test_units_within_a_span_come_back_as_if_fewer_had_been_asked_for(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (8, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products, constant = vectors @ vectors.T, np.zeros(8, bool)
    selection = by_span(products, constant, count=5)
    rounded = rounded_up(selection, [np.arange(8)], 4, np.zeros((8, 8)))
    assert rounded.kept.tolist() == by_span(products, constant, count=4).kept.tolist()


def test_parts_are_what_no_layer_has_half_of():
    layers = [np.array([0, 1, 2, 3, 4]), np.array([3, 1]), np.array([0, 2])]
    assert [part.tolist() for part in parts(6, layers)] == [[0, 2], [1, 3], [4], [5]]
    assert [part.tolist() for part in parts(3, [np.array([2, 0, 1])] * 2)] == [[0, 1, 2]]
