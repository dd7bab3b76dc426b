"""The points of a sweep, and the keys by which it knows what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from hashlib import sha256

import pytest

from tfprune.errors import TfpruneError
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import Point, grid, key


def test_grids():
    config = SweepConfig(dataset="digits")
    whole = grid(config).points
    assert len(set(whole)) == len(whole) == 1 + 4 * 5 * 3 + 6 * (5 + 2)
    assert len(grid(replace(config, quick=True)).points) == 1 + 2 * 2 * 3 + 2 * 2
    few = replace(config, quick=True, heal=4, shares="0.5", degrees="none")
    healed = grid(few).points
    assert [point.heal for point in healed[1:]] == [0, 4] * 6
    assert {replace(point, heal=0) for point in healed[2::2]} == set(healed[1::2])
    twice = grid(replace(config, shares="50%,0.5", degrees="none", selections="span,span"))
    assert len(twice.points) == 1 + 3


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": "b"},
        {"fold": "drop"},
        {"heal": 1},
        {"heal": "auto"},
        {"augment": True},
        {"round_to": 8},
        {"scheme": "int8"},
    ],
)
def test_whatever_changes_the_key_changes(change):
    common = {"model": "a", "seed": 0}
    point = asdict(Point("effect", 0.5, "share", "least-squares"))
    before = key(Point(**point), "float32", common)
    assert before == key(Point(**point), "float32", dict(reversed(common.items())))
    common |= {name: value for name, value in change.items() if name in common}
    point |= {name: value for name, value in change.items() if name in point}
    assert key(Point(**point), change.get("scheme", "float32"), common) != before


def test_rounding_and_augmentation_are_of_the_points_that_they_are_for():
    how = {"heal": "auto", "augment": True, "round_to": 8, "shares": "0.5", "degrees": "none"}
    unpruned, *others = grid(replace(SweepConfig(dataset="digits", quick=True), **how)).points
    assert unpruned == Point()
    assert {point.round_to for point in others} == {8}
    assert [(point.heal, point.augment) for point in others] == [(0, False), ("auto", True)] * 6
    assert others[1].bare == others[0]
    assert others[1].flags.endswith(" --round-to 8 --heal auto --augment")
    with pytest.raises(TfpruneError, match="--augment: it is a part of healing"):
        grid(SweepConfig(dataset="digits", augment=True))


def test_keys_of_before_hold():
    point = Point("effect", 0.5, "share", "least-squares", 5, 2)
    said = {"model": "a", "select": "effect", "amount": 0.5, "unit": "share", "refit": 5,
            "fold": "least-squares", "heal": 2, "scheme": "int8"}  # fmt: skip
    expected = sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
    assert key(point, "int8", {"model": "a"}) == expected
