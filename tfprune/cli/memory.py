"""A command in little memory: TensorFlow ends the process where it gets none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from tfprune.utils.memory import resource_limits

# Set for the process that does the work, by the one that waits for it.
WORKER = "TFPRUNE_WORKER"
FAILED = 2


def memory_limit() -> str:
    """How much memory the process may have (``ulimit -v``), for people; empty without a limit."""
    limits = resource_limits()
    return f"{min(limits) / 1e9:.2g} GB" if limits else ""


def supervise(name: str) -> int | None:
    """Runs this command again in a process of its own, and tells in a line if memory ended it.

    Returns
    -------
    int or None
        Its exit code; None if this process is the one to do the work.
    """
    if os.environ.pop(WORKER, None) is not None:
        _silence_native_code()
        return None
    words = [sys.executable, *sys.orig_argv[1:]]
    worker = subprocess.Popen(words, env={**os.environ, WORKER: "1"}, process_group=0)

    def forward(number: int, frame: Any) -> None:
        worker.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    code = worker.wait()
    if code >= 0:
        return code
    print(f"{name}: {too_little(signal.Signals(-code).name)}", file=sys.stderr)
    return FAILED


def too_little(reason: str) -> str:
    """Says that the memory did not suffice."""
    limit = memory_limit()
    advice = f"; ulimit -v allows {limit}, and TensorFlow takes about 4 GB" if limit else ""
    return f"the memory does not suffice ({reason.removesuffix(': ')}){advice}"


def _silence_native_code() -> None:
    """What native code says at its end goes nowhere; Python's own stderr goes where it went."""
    own = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    os.close(sink)
    sys.stderr = open(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
