"""Defers Ctrl-C until a step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HELD_BACK = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM")
    if hasattr(signal, name)  # Windows has no alarm.
]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defers Ctrl-C and the like until the end of the block.

    Raises
    ------
    KeyboardInterrupt
        At the end, if one came.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    # Only the main thread may, and elsewhere no signal arrives.
    if threading.current_thread() is threading.main_thread():
        for number in HELD_BACK:
            before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: code outside Python had set it, and Python cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if came:
        raise KeyboardInterrupt
