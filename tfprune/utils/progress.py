"""Progress bars on stderr, where they disturb no output that a program reads."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def meter(what: str, total: int | None, shown: bool = True, unit: str = "sample") -> tqdm[Any]:
    """A progress bar that its owner moves."""
    return tqdm(
        total=total, desc=what, unit=unit, disable=not shown, mininterval=interval(), leave=True
    )


def interval() -> float:
    """Seconds between two drawings: a log file gets one now and then, a terminal a moving bar."""
    return 0.1 if sys.stderr.isatty() else 5.0
