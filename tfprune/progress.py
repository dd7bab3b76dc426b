"""Progress bars on stderr, where they disturb no output that a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def bar(
    batches: Iterable[Any], what: str, step: int, total: int, shown: bool = True
) -> Iterator[Any]:
    """Yields the batches and draws how many of ``total`` samples are done, ``step`` at a time."""
    with meter(what, total, shown) as drawn:
        for batch in batches:
            yield batch
            drawn.update(min(step, total - drawn.n))


def meter(what: str, total: int, shown: bool = True, unit: str = "sample") -> tqdm[Any]:
    """A progress bar that its owner moves."""
    return tqdm(
        total=total, desc=what, unit=unit, disable=not shown, mininterval=interval(), leave=True
    )


def interval() -> float:
    """Seconds between two drawings: a log file gets one now and then, a terminal a moving bar."""
    return 0.1 if sys.stderr.isatty() else 5.0
