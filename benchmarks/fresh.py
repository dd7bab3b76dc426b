"""A process of its own for every row, so that one's memory does not count for the next."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def fresh(task: Callable[..., Any], *args: Any) -> Any:
    """What the task returns in a process that does nothing else.

    The caller should be small itself: Linux counts the memory of the parent at the start of a
    process as its first peak.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *args).result()


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
