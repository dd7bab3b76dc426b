"""Replaces several files of a folder in one step, which no killed process leaves half done.

The new files lie in a hidden folder, the *stage*, inside the target. :func:`switch` first writes a
journal of what it is about to do into the target: from then on the change counts as made, and
whoever comes next finishes it with :func:`recover`. Before the journal is there, nothing in the
target has changed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tfprune.errors import TfpruneError
from tfprune.utils.files import PRIVATE, sync_file, sync_folder

JOURNAL = f"{PRIVATE}journal"
STAGE = f"{PRIVATE}stage-"
NEW, OLD = "new", "old"
# Bytes; no larger journal is read.
LONGEST = 2**24
# How often readers try again while a change is being made, and the seconds that they take for it.
TRIES, PATIENCE = 3, 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class _Change:
    """What the journal holds.

    Attributes
    ----------
    stage : str
        Name of the stage in the target.
    moves : tuple of str
        Paths of the new files within the target, in the order of moving, with ``/`` between.
    removals : tuple of str
        Files that go.
    undo : bool
        Whether it failed and is to be taken back.
    """

    stage: str
    moves: tuple[str, ...]
    removals: tuple[str, ...]
    undo: bool = False


def switch(target: Path, stage: Path, last: str = "", removals: Iterable[str] = ()) -> None:
    """Moves all files of ``stage/new`` to their places in the target, and removes others.

    Parameters
    ----------
    target : Path
        A folder that is no link; locked, see :func:`tfprune.utils.locks.locked`.
    stage : Path
        A folder in it whose name begins with :data:`STAGE`.
    last : str
        The file to move last: where it is, the others are.
    removals : iterable of str
        Paths within the target of files that go; those that the stage has anew stay.

    Raises
    ------
    TfpruneError
        If something is in the way; nothing has changed then.
    OSError
        If the system refuses a step; what was done is taken back, by the next :func:`recover` if
        that fails too.
    """
    moves = sorted(files_in(stage / NEW), key=lambda name: (name == last, name))
    check_places(target, moves)
    gone = sorted(name for name in set(removals) - set(moves) if is_file_within(target, name))
    change = _Change(stage.name, tuple(moves), tuple(gone))
    for name in moves:
        sync_file(stage / NEW / name)
    for name in (*moves, *gone):
        _keep(target / name, stage / OLD / name)
    for folder in sorted({path.parent for path in stage.rglob("*")}):
        sync_folder(folder)
    _write(target, change)
    try:
        _redo(target, change)
    except OSError:
        change = replace(change, undo=True)
        _write(target, change)
        _undo(target, change)
        _forget(target)
        raise
    _forget(target)


def unfinished(target: Path) -> bool:
    """Whether a change of a folder is going on, or was cut short."""
    return os.path.lexists(target / JOURNAL)


def recover(target: Path, name: str) -> None:
    """Finishes a change that was cut short; or takes it back, if it had failed.

    Parameters
    ----------
    target : Path
        A folder, locked.
    name : str
        What messages call it.

    Raises
    ------
    TfpruneError
        If it cannot be, or the journal is not one that :func:`switch` wrote.
    """
    if not unfinished(target):
        return
    change = _read(target, name)
    try:
        # Without its stage, which somebody took away, there is nothing to be done any more.
        if _kind(target / change.stage) == "folder":
            (_undo if change.undo else _redo)(target, change)
        _forget(target)
    except OSError as error:
        raise TfpruneError(
            f"{name}: an earlier run was cut short while it put its files in place, and they "
            f"cannot be put there now: {_where(error)}"
        ) from None
    shutil.rmtree(target / change.stage, ignore_errors=True)


def read_settled(folder: Path, name: str, read: Callable[[], T]) -> T:
    """Reads a folder while no change of it is going on.

    Parameters
    ----------
    folder : Path
    name : str
        What messages call it.
    read : callable
        Reads it; is called again if files were replaced meanwhile.

    Raises
    ------
    TfpruneError
        If a change was cut short, or none of a few tries met a quiet moment.
    """
    until = time.monotonic() + PATIENCE
    for number in itertools.count(1):
        before = _state(folder)
        if before is not None:
            try:
                result, problem = read(), None
            except (TfpruneError, OSError) as error:
                problem = error
            if _state(folder) == before:
                if problem is not None:
                    raise problem
                return result
        if number >= TRIES and time.monotonic() > until:
            break
        time.sleep(0.05)
    raise TfpruneError(
        f"{name}: a run was cut short while it put its files in place; the next run that writes "
        "there puts it right, so run that command again first"
        if unfinished(folder)
        else f"{name}: its files are replaced all the time; try again later"
    )


def check_places(target: Path, names: Iterable[str]) -> None:
    """Refuses places that a file cannot be put in.

    A link of a file's name is replaced, and what it points to stays as it is.

    Raises
    ------
    TfpruneError
        If a path leads out of the target, a folder has the name of a file or the other way round,
        or a folder on the way is a link, on another file system, or cannot be written. The text
        lacks the target.
    """
    for name in names:
        if not is_within(name):
            raise TfpruneError(f"expected files within it, received {name!r}")
        *folders, _ = parts = name.split("/")
        for depth, folder in enumerate(folders, 1):
            place = target.joinpath(*parts[:depth])
            problem = _folder_problem(place, target)
            if problem:
                raise TfpruneError(f"{folder} is in the way, {problem}")
        if _kind(target / name) == "folder":
            raise TfpruneError(f"{parts[-1]} is in the way, a folder of that name")


def files_in(folder: Path) -> list[str]:
    """The paths of all files within a folder, with ``/`` between."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def is_within(name: Any) -> bool:
    """Whether a text is the path of a file inside a folder: no ``..``, nothing absolute."""
    separators = r"[\\:]" if os.name == "nt" else r"(?!)"
    return isinstance(name, str) and all(
        part not in ("", ".", "..") and "\0" not in part and not re.search(separators, part)
        for part in name.split("/")
    )


def is_file_within(target: Path, name: str) -> bool:
    """Whether it is a file within the target that is not reached through a link."""
    if not is_within(name):
        return False
    *folders, _ = parts = name.split("/")
    between = (target.joinpath(*parts[:depth]) for depth in range(1, len(folders) + 1))
    if any(_kind(place) != "folder" for place in between):
        return False
    with contextlib.suppress(OSError):
        return stat.S_ISREG((target / name).lstat().st_mode)
    return False


def _folder_problem(place: Path, target: Path) -> str:
    kind = _kind(place)
    if kind == "link":
        return "a link; a folder of its own, or none, is expected"
    if kind == "file":
        return "a file of that name"
    if kind == "folder" and place.lstat().st_dev != target.stat().st_dev:
        return "a folder on another file system"
    if kind == "folder" and not os.access(place, os.W_OK | os.X_OK):
        return "a folder that cannot be written"
    return ""


def _kind(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file"


def _keep(path: Path, copy: Path) -> None:
    """Keeps what stands at a place, for an undo."""
    if not os.path.lexists(path):
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        copy.symlink_to(path.readlink())
        return
    try:
        os.link(path, copy)
    except OSError:  # Not every file system has hard links.
        shutil.copy2(path, copy)
        sync_file(copy)


def _redo(target: Path, change: _Change) -> None:
    """Does what is still to be done."""
    for name in change.moves:
        source = target / change.stage / NEW / name
        if os.path.lexists(source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            source.replace(target / name)
    for name in change.removals:
        (target / name).unlink(missing_ok=True)
    _sync(target, change)
    _remove_empty(target, change.removals)


def _undo(target: Path, change: _Change) -> None:
    """Puts back what was there."""
    for name in (*change.moves, *change.removals):
        kept = target / change.stage / OLD / name
        if os.path.lexists(kept):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            kept.replace(target / name)
        elif name in change.moves and not os.path.lexists(target / change.stage / NEW / name):
            (target / name).unlink(missing_ok=True)
    _sync(target, change)
    _remove_empty(target, change.moves)


def _sync(target: Path, change: _Change) -> None:
    for folder in sorted({(target / name).parent for name in (*change.moves, *change.removals)}):
        if folder.is_dir():
            sync_folder(folder)


def _remove_empty(target: Path, names: Sequence[str]) -> None:
    """Removes folders within the target that the files of these names left empty."""
    for name in names:
        for folder in list((target / name).parents):
            if folder == target:
                break
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write(target: Path, change: _Change) -> None:
    """Writes the journal, whole."""
    partial = target / change.stage / JOURNAL
    partial.write_text(json.dumps(asdict(change)), encoding="utf-8")
    sync_file(partial)
    partial.replace(target / JOURNAL)
    sync_folder(target)


def _forget(target: Path) -> None:
    (target / JOURNAL).unlink()
    sync_folder(target)


def _read(target: Path, name: str) -> _Change:
    """The journal; it may come from a stranger, so it reaches no further than the folder."""
    path = target / JOURNAL
    try:
        if _kind(path) != "file" or path.stat().st_size > LONGEST:
            raise ValueError
        journal = json.loads(path.read_text(encoding="utf-8"))
        stage, moves, removals = journal["stage"], journal["moves"], journal["removals"]
        whole = isinstance(stage, str) and re.fullmatch(rf"{re.escape(STAGE)}\w+", stage)
        lists = isinstance(moves, list) and isinstance(removals, list)
        if not whole or not lists or not all(map(is_within, (*moves, *removals))):
            raise ValueError
        change = _Change(stage, tuple(moves), tuple(removals), journal["undo"] is True)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise TfpruneError(
            f"{name}: {JOURNAL} in it was not written by tfprune; take it away"
        ) from None
    try:
        check_places(target, [f"{stage}/{NEW}/x", f"{stage}/{OLD}/x", *moves, *removals])
    except TfpruneError as error:
        raise TfpruneError(
            f"{name}: an earlier run was cut short while it put its files in place; {error}"
        ) from None
    return change


def _where(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _state(folder: Path) -> list[tuple[str, int, int]] | None:
    """The files by name, size and time of writing; None while a change is going on."""
    if unfinished(folder):
        return None
    with os.scandir(folder) as entries:
        known = {e.name: e.stat(follow_symlinks=False) for e in entries}
    return sorted(
        (name, about.st_size, about.st_mtime_ns)
        for name, about in known.items()
        if not name.startswith(PRIVATE)
    )
