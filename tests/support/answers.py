"""Functions that tests call in a process of its own; some end it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def double(value):
    """What it is given, twice; prints as native code does, where replies go."""
    os.write(1, b"chatter\n")
    sys.stdout.write("more of it\n")
    sys.stdout.flush()
    return 2 * value


def process() -> int:
    """The process that answers."""
    return os.getpid()


def refuse(text: str) -> None:
    """Fails as Python does."""
    raise ValueError(text)


def die(name: str, last: str = "") -> None:
    """Ends the process by a signal, as native code does."""
    os.write(2, last.encode())
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(60)


def leave(code: int) -> None:
    """Ends the process by itself."""
    os._exit(code)


def hold(path: str) -> None:
    """Locks a file and lets no Python run for a minute, as native code may."""
    with open(path, "w") as file:  # noqa: PTH123
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("held")
        file.flush()
        ctypes.PyDLL(None).sleep(60)


def places() -> list[str]:
    """Where modules are imported from."""
    return sys.path


def predict(**arguments) -> None:
    """In the place of :func:`tfprune.tflite.conversion_worker.predict`."""
    die("SIGSEGV")
