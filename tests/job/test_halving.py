"""The search of ``--max-drop`` against a plain bisection, alone and with workers that guess."""

from __future__ import annotations

import math
from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.errors import TfpruneError
from tfprune.job import halving
from tfprune.job.config import JobConfig
from tfprune.job.drop_pieces import SearchWorkers
from tfprune.job.halving import TRIES, Measured, Try, halve
from tfprune.job.records import Tried
from tfprune.workers.pool import Begun

CONFIG = JobConfig(dataset="digits", max_drop=1.0).validate()
ORIGIN = {"model": "a model", "data": "some data"}


def models(draw):
    """Sizes of models in order, and for each of them whether it fits."""
    sizes = sorted(draw(st.sets(st.integers(10, 10_000), min_size=2, max_size=20)))
    if draw(st.booleans()):
        border = draw(st.integers(0, len(sizes)))
        return sizes, [place >= border for place in range(len(sizes))]
    return sizes, draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))


@st.composite
def worlds(draw):
    """A list of models for each way to share widths out, and which way does best at a limit."""
    sizes, fits = models(draw)
    inner = [models(draw) for _ in range(2)]
    ways = {1.0: (sizes, fits)}
    for way, (others, those) in zip((0.5, 0.0), inner, strict=True):
        # All begin and end with the same: all that can go, and nothing.
        kept = [n for n, size in enumerate(others) if sizes[0] < size < sizes[-1]]
        ways[way] = (
            [sizes[0], *(others[n] for n in kept), sizes[-1]],
            [fits[0], *(those[n] for n in kept), fits[-1]],
        )
    best = draw(st.lists(st.sampled_from(sorted(ways)), min_size=7, max_size=7))
    return ways, best


def answered(world, asked):
    """What a try gives: the largest model within the limit."""
    ways, best = world
    way = best[asked.limit % len(best)] if asked.blend is None else asked.blend
    sizes, fits = ways[way]
    place = bisect_right(sizes, asked.limit) - 1
    larger = sizes[place + 1] if place + 1 < len(sizes) else None
    return Measured(Tried(sizes[place], 0, 0.0, fits[place], larger), way, f"{way} {sizes[place]}")


def plainly(world):
    """The tries of a bisection that asks for a model again only if it was not made before."""
    (sizes, _), way = world[0][1.0], None
    large, small, made = float(sizes[-1]), float(sizes[0]), []
    while large - small >= 1:
        middle = math.sqrt(large * small)
        if not made:
            middle = max(middle, large / 4)
        limit = int(middle)
        before = [one for one in made if one.tried.parameters <= limit < (one.tried.larger or 0)]
        if not before and len(made) == TRIES:
            break
        one = before[-1] if before else answered(world, Try(limit, way))
        if not before:
            made.append(one)
            if way is None and (one.tried.fits or len(made) == 2):
                way = one.blend
        if one.tried.fits:
            large = middle
        else:
            small = middle
    return made


class Pool:
    """Workers whose pieces end in any order, some at once."""

    def __init__(self, world, size, draw):
        self._world, self._size, self._draw = world, size, draw
        self.turns, self.most, self.asked = 0, 0, []

    def size(self):
        return self._size

    def begin(self, piece):
        assert piece.function.startswith("tfprune.job.drop_pieces:")
        assert piece.arguments["origin"] == ORIGIN
        if "limit" in piece.arguments:
            self.asked.append(Try(piece.arguments["limit"], piece.arguments["blend"]))
        return Begun(piece, Future())

    def wait(self, begun):
        self.turns, self.most = self.turns + 1, max(self.most, len(begun))
        assert begun
        for one in self._draw(begun):
            asked = Try(one.piece.arguments["limit"], one.piece.arguments["blend"])
            made = asdict(answered(self._world, asked)) | {"said": [f"made {asked.limit}"]}
            one.future.set_result({"value": made, "arrays": {}})


def by_workers(pool, whole, least):
    """The tries, and what was said."""
    helpers, said = SearchWorkers(pool, CONFIG), []
    helpers.load(ORIGIN)
    made = halve(lambda state, asked: helpers.measured(state, asked, said.append), whole, least)
    return made, said


def by_itself(world, whole, least):
    asked_for = []

    def attempt(state, asked):
        asked_for.append(asked)
        return answered(world, asked)

    return halve(attempt, whole, least), asked_for


@given(worlds())
def test_the_tries_are_those_of_a_plain_bisection(world):
    sizes, _ = world[0][1.0]
    made, _ = by_itself(world, sizes[-1], sizes[0])
    assert made == plainly(world)
    assert len({one.sha256 for one in made}) == len(made)


@given(worlds(), st.integers(1, 20), st.data())
def test_workers_that_guess_change_nothing(world, count, data):
    def some(begun):
        return data.draw(st.lists(st.sampled_from(begun), min_size=1, unique=True))

    sizes, _ = world[0][1.0]
    made, asked_for = by_itself(world, sizes[-1], sizes[0])
    pool = Pool(world, count, some)
    theirs, said = by_workers(pool, sizes[-1], sizes[0])
    assert theirs == made
    assert said == [f"made {asked.limit}" for asked in asked_for]
    # Nothing is asked for twice, and one piece more may wait for a worker that is busy in vain.
    assert len(set(pool.asked)) == len(pool.asked)
    assert pool.most <= count + 1


@pytest.mark.parametrize("levels", [1, 2, 3, 8])
@pytest.mark.parametrize("border", [1_000, 6_000])
def test_guesses_save_turns(levels, border):
    """A model of every size, and all pieces take equally long: 2**n - 1 workers give n answers.

    Only what comes after the first model that fits is not guessed, as widths are chosen by it.
    """
    sizes = list(range(100, 10_001))
    world = {1.0: (sizes, [size >= border for size in sizes])}, [1.0]
    pool = Pool(world, 2**levels - 1, lambda begun: begun)
    made, _ = by_workers(pool, sizes[-1], sizes[0])
    assert (len(made), made[0].tried.fits) == (8, border < 2_500)
    at_first = 1 if levels == 1 or made[0].tried.fits else 2
    assert pool.turns == 1 + math.ceil((8 - at_first) / levels)


@given(st.integers(2, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_what_is_left_to_know_halves_with_every_try(whole, least_share, border_share):
    least = max(1, int(whole * least_share))
    border = least * (whole / least) ** border_share

    def attempt(state, asked):
        return Measured(Tried(asked.limit, 0, 0.0, asked.limit >= border), 1.0, "")

    tried = [one.tried for one in halve(attempt, whole, least)]
    assert len(tried) <= TRIES
    limits = [one.parameters for one in tried]
    assert all(least <= limit <= whole for limit in limits)
    high = min([whole, *(one.parameters for one in tried if one.fits)])
    low = max([least, *(one.parameters for one in tried if not one.fits)])
    assert math.log(high / low) <= math.log(whole / least) / 2 ** (len(tried) - 1) + 2 / low


@pytest.mark.parametrize(("close", "count"), [(1.0, 8), (1.05, 6)])
def test_a_search_may_end_at_a_twentieth(close, count):
    """A quarter fits: 4 times what is left, halved by ratio 5 times, is 4 ** (1 / 32) = 1.044."""

    def attempt(state, asked):
        return Measured(Tried(asked.limit, 0, 0.0, asked.limit >= 250_000), 1.0, "")

    assert len(halve(attempt, 10**6, 62_500, close=close)) == count


def test_a_guess_that_is_refused_is_told_only_if_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(halving, "TRIES", 3)
    sizes = list(range(100, 10_001))
    world = {1.0: (sizes, [size >= 1_000 for size in sizes])}, [1.0]
    asked_for = [one.limit for one in by_itself(world, 10_000, 100)[1]]

    class Refusing(Pool):
        """Refuses limits, and ends guesses first."""

        refused = set(range(10_001)) - set(asked_for)

        def wait(self, begun):
            for one in begun[1:] or begun:
                if one.piece.arguments["limit"] in self.refused:
                    one.future.set_result({"refused": "cannot be made"})
                else:
                    super().wait([one])

    pool = Refusing(world, 6, lambda begun: begun)
    assert [one.tried.parameters for one in by_workers(pool, 10_000, 100)[0]] == asked_for
    assert pool.refused & {asked.limit for asked in pool.asked}
    Refusing.refused = {asked_for[2]}
    with pytest.raises(TfpruneError, match="parameters: cannot be made"):
        by_workers(Refusing(world, 6, lambda begun: begun), 10_000, 100)
