"""The schedule by hand, and the search for a rate on losses that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfprune.training.learning_rates import FIRST_TRIED, RATES, WarmCosine, best_rate


def test_the_rate_rises_and_falls_to_nothing():
    schedule = WarmCosine()
    schedule.set(0.2, 40)
    rates = [float(schedule(step)) for step in range(41)]
    # A tenth of 40 steps, in fifths of what the cosine gives.
    for step in range(4):
        expected = 0.2 * (step + 1) / 5 * (1 + math.cos(math.pi * step / 40)) / 2
        assert rates[step] == pytest.approx(expected, rel=1e-5)
    assert rates[20] == pytest.approx(0.1, rel=1e-5)
    assert rates[40] == pytest.approx(0, abs=1e-8)
    assert np.all(np.diff(rates[5:]) < 0)
    schedule.set(0.0, 40)
    assert float(schedule(7)) == 0


@pytest.mark.parametrize("best", RATES)
def test_the_lowest_of_a_valley_is_found(best):
    tried = []

    def loss(rate):
        tried.append(rate)
        return abs(math.log(rate / best))

    assert best_rate(loss) == best
    assert tried[0] == FIRST_TRIED
    assert len(tried) == len(set(tried))
    assert max(tried) <= FIRST_TRIED or min(tried) >= RATES[RATES.index(FIRST_TRIED) - 1]


def test_rates_that_are_not_finite_are_left_behind():
    assert best_rate(lambda rate: math.inf if rate > 2e-4 else rate) == RATES[0]
    assert best_rate(lambda rate: math.inf if rate > 2e-4 else 1 / rate) == RATES[1]
    assert best_rate(lambda rate: math.inf) == RATES[0]


@pytest.mark.parametrize(("excess", "rate"), [(0.24, 3e-3), (0.26, 1e-3)])
def test_of_rates_that_do_alike_the_highest_is_taken(excess, rate):
    losses = {3e-4: 2.0, 1e-3: 1.0, 3e-3: 1 + excess}
    assert best_rate(losses.__getitem__) == rate
