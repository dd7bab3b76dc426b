"""Backward elimination against refitting on the samples themselves for every candidate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.core.elimination import BLOCK, ConsumerStats, backward_elimination
from tfprune.core.fold import RIDGE, RIDGE_PER_SAMPLE
from tfprune.core.moments import Moments


def moments_of(a):
    moments = Moments(a.shape[1])
    moments.add(a)
    return moments


def error_without(a, kernel, kept, no_offset):
    """What the reader receives in place of ``a @ kernel`` from a fit on the samples, squared."""
    inputs = a[:, kept] if no_offset else np.column_stack([a[:, kept], np.ones(len(a))])
    target = a @ kernel
    fit = np.linalg.lstsq(inputs, target, rcond=None)[0]
    return ((inputs @ fit - target) ** 2).sum()


def by_refitting(size, views, count):
    kept = list(range(size))
    for _ in range(count):
        costs = []
        for unit in kept:
            rest = [other for other in kept if other != unit]
            costs.append(
                sum(
                    error_without(a, kernel, [u for u in rest if u < a.shape[1]], no_offset)
                    for a, kernel, no_offset in views
                )
            )
        kept.pop(int(np.argmin(costs)))
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 12), st.booleans())
def test_it_takes_what_refitting_would_take(seed, count, outputs, no_offset):
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.normal(0, 1, (400, 7)) @ rng.normal(0, 1, (7, 7)), 0)
    b = rng.normal(1, 1, (400, 5)) @ rng.normal(0, 1, (5, 5))
    views = [(a, rng.normal(0, 1, (7, outputs)), no_offset), (b, rng.normal(0, 1, (5, 2)), False)]
    consumers = [
        ConsumerStats(np.arange(x.shape[1]), moments_of(x), kernel, flag)
        for x, kernel, flag in views
    ]
    taken = backward_elimination(7, consumers, np.zeros(7, bool), count).order
    kept = np.setdiff1d(np.arange(7), taken)
    ours = sum(error_without(x, k, [u for u in kept if u < x.shape[1]], f) for x, k, f in views)
    best = by_refitting(7, views, count)
    theirs = sum(error_without(x, k, [u for u in best if u < x.shape[1]], f) for x, k, f in views)
    assert ours <= theirs * 1.02 + 1e-6


def test_constants_and_what_nobody_hears_go_first(rng):
    a = rng.normal(0, 1, (300, 6))
    a[:, 4] = 0.25
    kernel = rng.normal(0, 1, (6, 3))
    kernel[2] = 0
    constant = np.arange(6) == 4
    taken = backward_elimination(
        6, [ConsumerStats(np.arange(6), moments_of(a), kernel)], constant, 2
    ).order
    assert taken.tolist() == [4, 2]


@pytest.mark.parametrize("units", [20, 300])
def test_all_but_one_of_many_copies_go(rng, units):
    a = np.repeat(rng.normal(0, 1, (2000, 5)), units // 5, axis=1).astype(np.float32)
    consumer = ConsumerStats(np.arange(units), moments_of(a), rng.normal(0, 1, (units, 4)))
    taken = backward_elimination(units, [consumer], np.zeros(units, bool), units - 5).order
    kept = np.setdiff1d(np.arange(units), taken)
    assert sorted(kept // (units // 5)) == [0, 1, 2, 3, 4]


def error_by_solving(consumers, dead):
    """The error that a set of units makes where its fold is solved for from the start."""
    problems = []
    for consumer in consumers:
        moments = consumer.moments
        centre = np.zeros(moments.units) if consumer.no_offset else moments.mean
        products = moments.gram(centre) / moments.count
        ridge = RIDGE + RIDGE_PER_SAMPLE * moments.units / moments.count
        problems.append((consumer, products + ridge * np.diag(products.diagonal())))

    def error(gone):
        total = 0.0
        for consumer, products in problems:
            out = np.isin(consumer.units, gone)
            kept = ~out & (consumer.units != dead)
            cross = products[np.ix_(kept, out)]
            fit = np.linalg.solve(products[np.ix_(kept, kept)], cross)
            rest = products[np.ix_(out, out)] - cross.T @ fit
            total += np.trace(consumer.kernel[out].T @ rest @ consumer.kernel[out])
        return total

    return error


def by_solving(size, consumers, dead, count):
    """The order and the errors where every candidate's fold is solved for from the start."""
    error = error_by_solving(consumers, dead)
    order, errors = [dead], [0.0]
    while len(order) < count:
        costs = {unit: error([*order, unit]) for unit in set(range(size)) - set(order)}
        order.append(min(costs, key=costs.__getitem__))
        errors.append(costs[order[-1]])
    return order, errors


def two_consumers(rng, size):
    """Of units of which the eighth is dead; the second does not receive the first ten."""
    a = np.maximum(rng.normal(0, 1, (500, 20)) @ rng.normal(0, 1, (20, size)) / 4, 0)
    a += rng.normal(0, 0.2, a.shape)
    a[:, 7] = 0
    b = a[:, 10:] ** 2
    return [
        ConsumerStats(np.arange(size), moments_of(a), rng.normal(0, 1, (size, 3))),
        ConsumerStats(
            np.arange(10, size), moments_of(b), rng.normal(0, 0.3, (size - 10, 99)), True
        ),
    ]


def test_blocks_change_nothing(rng):
    size = BLOCK + 18
    consumers = two_consumers(rng, size)
    made = backward_elimination(size, consumers, np.arange(size) == 7, size - 3)
    order, errors = by_solving(size, consumers, 7, size - 3)
    assert made.order.tolist() == order
    np.testing.assert_allclose(made.errors, errors, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("no_offset", [False, True])
def test_errors_are_those_of_a_refit_on_the_samples(rng, no_offset):
    a = np.maximum(rng.normal(0.5, 1, (40_000, 9)) @ rng.normal(0, 1, (9, 9)), 0)
    a[:, 3] = 0
    kernel = rng.normal(0, 1, (9, 4))
    consumer = ConsumerStats(np.arange(9), moments_of(a), kernel, no_offset)
    made = backward_elimination(9, [consumer], np.arange(9) == 3, 8)
    assert (np.diff(made.errors) >= 0).all()
    assert made.order[0] == 3
    assert made.errors[0] == 0
    for removed in range(2, 9):
        kept = np.setdiff1d(np.arange(9), made.order[:removed])
        refit = error_without(a, kernel, kept, no_offset) / len(a)
        assert made.errors[removed - 1] == pytest.approx(refit, rel=1e-4)
    assert made.variance == pytest.approx((a @ kernel).var(axis=0).sum())


@pytest.mark.parametrize("size", [40, 70])
def test_many_at_once_cost_what_one_by_one_cost(rng, size):
    consumers = two_consumers(rng, size)
    made = backward_elimination(size, consumers, np.arange(size) == 7, size // 2, wide=0)
    _, errors = by_solving(size, consumers, 7, size // 2)
    assert made.errors[-1] <= 1.02 * errors[-1]


@given(st.integers(0, 2**32 - 1), st.integers(20, 80), st.floats(0.1, 0.95), st.booleans())
def test_errors_of_many_at_once_are_those_of_the_units_that_went(seed, size, share, alike):
    rng = np.random.default_rng(seed)
    consumers = two_consumers(rng, size)
    if alike:  # Units whose moments are nearly singular.
        a = np.repeat(rng.normal(0, 1, (300, size // 4 + 1)), 4, axis=1)[:, :size]
        a[:, 7] = 0
        kernel = rng.normal(0, 1, (size, 3))
        consumers = [ConsumerStats(np.arange(size), moments_of(a), kernel), *consumers[1:]]
    count = max(2, int(share * size))
    made = backward_elimination(size, consumers, np.arange(size) == 7, count, wide=0)
    assert len(set(made.order.tolist())) == count
    assert (np.diff(made.errors) >= 0).all()
    error = error_by_solving(consumers, 7)
    for end in (count, count // 2):
        exact = error(made.order[:end].tolist())
        assert made.errors[end - 1] == pytest.approx(exact, rel=1e-5, abs=1e-9 * made.variance)


def test_only_wide_layers_go_many_at_once(rng):
    consumers = two_consumers(rng, 40)
    made = backward_elimination(40, consumers, np.arange(40) == 7, 30)
    same = backward_elimination(40, consumers, np.arange(40) == 7, 30, wide=40)
    assert made.order.tobytes() == same.order.tobytes()
    assert made.errors.tobytes() == same.errors.tobytes()
