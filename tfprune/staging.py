"""Files that appear in a folder all together, whole, or not at all."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError

HELD_BACK = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM")
    if hasattr(signal, name)  # Windows has no alarm.
]


@contextmanager
def staging(target: Path, last: str) -> Iterator[Path]:
    """A folder to write into; at the end its files replace those of the target, one by one.

    If the block fails or is interrupted, the target stays as it was.

    Parameters
    ----------
    target : Path
        Made if it is not there.
    last : str
        The file that is moved last: where it is, the others are.

    Raises
    ------
    TfpruneError
        If the target cannot be written; before the block runs.
    """
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".tfprune-", dir=target))
    except OSError as error:
        _remove_empty(made)
        raise TfpruneError(
            f"--output {target}: expected a folder that can be written, {error.strerror}"
        ) from None
    done = False
    try:
        yield stage
        _move(stage, target, last)
        done = True
    finally:
        with _undisturbed():
            shutil.rmtree(stage, ignore_errors=True)
            if not done:
                _remove_empty(made)


def _move(stage: Path, target: Path, last: str) -> None:
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    places = {path: target / path.relative_to(stage) for path in files}
    for place in places.values():
        # Looked at before anything is replaced, so that all of it can be.
        folder = place.parent
        if place.is_dir() or (folder.exists() and not folder.is_dir()):
            wrong = place if place.is_dir() else folder
            kind = "a folder" if wrong.is_dir() else "a file"
            raise TfpruneError(
                f"--output {target}: {wrong.name} is in the way, {kind} of that name"
            )
    try:
        with _undisturbed():
            for path in sorted(files, key=lambda path: path.name == last):
                places[path].parent.mkdir(parents=True, exist_ok=True)
                path.replace(places[path])
    except OSError as error:
        raise TfpruneError(f"--output {target}: {error.filename}: {error.strerror}") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and its like back until the end of the block."""
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
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
