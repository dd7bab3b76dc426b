"""A lock that lets one run at a time write into a folder; it ends with its process."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.utils.files import PRIVATE
from tfprune.utils.interrupts import undisturbed

LOCK = f"{PRIVATE}lock"
# Seconds between two tries.
PAUSE = 0.05

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        # A byte beyond the content, as Windows lets nobody read a locked one.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def locked(folder: Path, name: str, wait: float = 0.0) -> Iterator[bool]:
    """Keeps other runs from writing into a folder.

    The system ends the lock with the process, however that ends. The lock's file is removed at
    the end.

    Parameters
    ----------
    folder : Path
        Exists.
    name : str
        What messages call it.
    wait : float
        Seconds to wait for another run.

    Yields
    ------
    bool
        Whether other runs are kept out: some network file systems have no locks.

    Raises
    ------
    TfpruneError
        If another run holds the lock, or no file can be made in the folder.
    """
    path = folder / LOCK
    until = time.monotonic() + wait
    try:
        descriptor, exclusive = _opened(path)
        while descriptor is None and time.monotonic() < until:
            time.sleep(PAUSE)
            descriptor, exclusive = _opened(path)
    except OSError as error:
        raise TfpruneError(
            f"{name}: expected a folder that can be written, {error.strerror or error}"
        ) from None
    if descriptor is None:
        raise TfpruneError(
            f"{name}: another run{_holder(path)} is writing there; wait until it has ended, or "
            "choose another folder"
        )
    try:
        with contextlib.suppress(OSError):  # Only to be told of; the disk may be full.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0) if hasattr(os, "pwrite") else None
        yield exclusive
    finally:
        with undisturbed():
            _release(path, descriptor)


def _opened(path: Path) -> tuple[int | None, bool]:
    """The lock's file, held; None if another process holds it. Whether there are locks at all."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            taken = _take(descriptor)
        except OSError:
            return descriptor, False
        if not taken:
            os.close(descriptor)
            return None, True
        # The run before may have removed the file in between, and a third one made it again.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor, True
        os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    if sys.platform != "win32":
        # While it is held still, so that nobody else's file goes.
        with contextlib.suppress(OSError):
            path.unlink()
    os.close(descriptor)
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            path.unlink()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (process {int(path.read_bytes()[:20])})"
    return ""
