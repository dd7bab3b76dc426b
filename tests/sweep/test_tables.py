"""What a sweep recommends."""

from __future__ import annotations

from dataclasses import replace

from tests.support.runs import swept
from tfprune.sweep.tables import next_command, smallest_within

EXPORT = ["tfprune", "export", "--data", "my data.npz"]


def test_the_smallest_within_a_point_is_recommended():
    """Validation falls by 0.2 points a point: 99, 98.8, 98.6, 98.4, 98.2."""
    sweep = swept()
    whole, small = smallest_within(sweep)
    assert (whole.select, small.bytes) == ("unpruned", 22_000)
    assert smallest_within(sweep, 0.5)[1].bytes == 26_000
    assert next_command(sweep, EXPORT) == (
        "tfprune export --data 'my data.npz' --schemes int8 --remove 40% --select magnitude "
        "--fold least-squares --refit 0"
    )


def test_nothing_is_recommended_where_nothing_is_near_or_shares_are_unknown():
    sweep = swept()
    alone = replace(sweep, rows=sweep.rows[:1])
    assert next_command(alone, EXPORT) == ""
    values = replace(sweep, rows=[replace(row, metric="mse") for row in sweep.rows])
    assert smallest_within(values) is None
