"""Writes files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How the names of files and folders begin that are there only while a run writes.
PRIVATE = ".tfprune-"
PARTIAL = f"{PRIVATE}part-"
# Seconds after which a partial file is taken for one that a killed run left.
STALE = 86_400.0
# The files, and the folders whose files, this process has written; told of if it is interrupted.
completed: list[Path] = []


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; at the end the file takes the given path's place, whole.

    If the block fails, nothing changes. The content is on the disk before the file is renamed, so
    that a crash of the system leaves no empty file either. What a link points to is replaced, not
    the link.

    Parameters
    ----------
    path : Path
        Its folder exists. The path to write to has the same ending.
    """
    path = path.resolve() if path.is_symlink() else path
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield partial
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file whole, see :func:`whole_file`; a pipe or a device is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with whole_file(path) as partial:
        partial.write_bytes(data)
    completed.append(path)


def sync_file(path: Path) -> None:
    """Waits until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDWR)  # Windows synchronises only what is open for writing.
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_stale_partials(folder: Path) -> None:
    """Removes partial files that a killed run left in a folder, those of a day ago and before."""
    for partial in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - partial.lstat().st_mtime > STALE:
                partial.unlink()
