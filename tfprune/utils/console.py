"""Keeps TensorFlow's chatter off a user's terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discards what native code writes to stdout and stderr, within the block.

    Wrap the import of TensorFlow and conversions in it: they write past Python to the file
    descriptors, so nothing less helps. If the code inside fails with something other than an
    ordinary exception (a crash), nothing can be shown of it.
    """
    # Read by TensorFlow at its import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    _flush()
    saved = {number: _copy(number) for number in (1, 2)}
    # Where a stream is closed the sink may get its number.
    sink = os.open(os.devnull, os.O_WRONLY)
    for number in saved:
        os.dup2(sink, number)
    try:
        yield
    finally:
        _flush()
        if sink not in saved:
            os.close(sink)
        for number, original in saved.items():
            if original is None:
                os.close(number)
            else:
                os.dup2(original, number)
                os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None if it was closed. What cannot be written is told when its owner writes.
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


def meter(what: str, total: int | None, shown: bool = True, unit: str = "sample") -> tqdm[Any]:
    """A progress bar that its owner moves."""
    return tqdm(
        total=total, desc=what, unit=unit, disable=not shown, mininterval=interval(), leave=True
    )


def interval() -> float:
    """Seconds between two drawings: a log file gets one now and then, a terminal a moving bar."""
    return 0.1 if sys.stderr.isatty() else 5.0
