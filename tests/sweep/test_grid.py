"""The points of a sweep, and the keys by which it knows what was measured."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

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
    "change", [{"seed": 1}, {"model": "b"}, {"fold": "drop"}, {"heal": 1}, {"scheme": "int8"}]
)
def test_whatever_changes_the_key_changes(change):
    common = {"model": "a", "seed": 0}
    point = asdict(Point("effect", 0.5, "share", "least-squares"))
    before = key(Point(**point), "float32", common)
    assert before == key(Point(**point), "float32", dict(reversed(common.items())))
    common |= {name: value for name, value in change.items() if name in common}
    point |= {name: value for name, value in change.items() if name in point}
    assert key(Point(**point), change.get("scheme", "float32"), common) != before
