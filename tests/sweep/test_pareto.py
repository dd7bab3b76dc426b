"""The files that no other beats, against a double loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tfprune.sweep.pareto import pareto

PAIRS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=30)


@given(PAIRS)
def test_the_pareto_set_is_that_of_a_double_loop(pairs):
    found = pareto([size for size, _ in pairs], [loss for _, loss in pairs])
    best = {
        (size, loss)
        for size, loss in pairs
        if not any(s <= size and le <= loss and (s, le) != (size, loss) for s, le in pairs)
    }
    assert [pairs[at] for at in found] == sorted(best)
    assert found == [pairs.index(pairs[at]) for at in found]
