"""Writes files that appear in a folder all together, whole, or not at all."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.output_folder.transaction import (
    NEW,
    STAGE,
    check_places,
    files_in,
    recover,
    switch,
    unfinished,
)
from tfprune.utils.files import completed, remove_stale_partials
from tfprune.utils.interrupts import undisturbed
from tfprune.utils.locks import locked

# Seconds that a short change waits for another run.
WAIT = 10.0


# Takes the paths within a folder that are written, and returns those of files that are to go.
Obsolete = Callable[[Sequence[str]], Iterable[str]]


def _nothing(written: Sequence[str]) -> tuple[str, ...]:
    return ()


class OutputFolder:
    """A folder that no other run writes into meanwhile; see :func:`writing`.

    Attributes
    ----------
    path : Path
        Without links.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self._name = path, name

    @contextmanager
    def stage(self, last: str = "", obsolete: Obsolete = _nothing) -> Iterator[Path]:
        """A folder to write into; at the end its files take their places, all or none.

        If the block fails or is interrupted, the output folder stays as it was. Ctrl-C during the
        change is held back until it is complete.

        Parameters
        ----------
        last : str
            The file that is moved last: where it is, the others are.
        obsolete : callable
            Is asked at the end which files go: takes the paths within the folder that are written,
            returns those that are to go.

        Raises
        ------
        TfpruneError
            If the files cannot be put in their places.
        """
        stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=self.path))
        try:
            (stage / NEW).mkdir()
            yield stage / NEW
            gone = list(obsolete(files_in(stage / NEW)))
            with undisturbed():
                self._switch(stage, last, gone)
                completed.append(self.path)
        finally:
            with undisturbed():
                if not unfinished(self.path):
                    shutil.rmtree(stage, ignore_errors=True)

    def replace(self, files: Mapping[str, bytes], obsolete: Sequence[str] = ()) -> None:
        """Writes several files, by their paths within the folder, all or none; see :meth:`stage`.

        Raises
        ------
        TfpruneError
            If a path leads out of the folder, or the files cannot be put in their places.
        OSError
            If they cannot be written, for want of space say; the folder is as it was.
        """
        self.check(files)
        with self.stage(obsolete=lambda written: obsolete) as stage:
            for name, content in files.items():
                path = stage / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def check(self, names: Iterable[str]) -> None:
        """Refuses paths that no file can be written to, see :func:`check_places`.

        Raises
        ------
        TfpruneError
            If there is one; names it.
        """
        try:
            check_places(self.path, names)
        except TfpruneError as error:
            raise TfpruneError(f"{self._name}: {error}") from None

    def _switch(self, stage: Path, last: str, obsolete: Iterable[str]) -> None:
        try:
            switch(self.path, stage, last, obsolete)
        except TfpruneError as error:
            raise TfpruneError(f"{self._name}: {error}") from None
        except OSError as error:
            rest = "; the next run there puts it right" if unfinished(self.path) else ""
            raise TfpruneError(f"{self._name}: {error.filename}: {error.strerror}{rest}") from error


@contextmanager
def writing(
    target: Path, what: str = "--output", places: Sequence[str] = (), wait: float = 0.0
) -> Iterator[OutputFolder]:
    """Holds a folder to write into, so that no other run does.

    A change of it that was cut short is finished first, and what killed runs left is removed.

    Parameters
    ----------
    target : Path
        Made if it is not there, and taken away if it stays empty. A link to a folder stands for
        that folder.
    what : str
        The flag that named it, for messages.
    places : sequence of str
        Paths within the folder that will be written to, as far as they are known.
    wait : float
        Seconds to wait for another run that is writing there.

    Raises
    ------
    TfpruneError
        If the target cannot be written, something stands where a file is to come, or another run
        is writing there; before the block runs.
    """
    name = f"{what} {target}"
    new_folders: list[Path] = []
    try:
        try:
            new_folders = [folder for folder in (target, *target.parents) if not folder.exists()]
            target.mkdir(parents=True, exist_ok=True)
            folder = target.resolve(strict=True)
        except OSError as error:
            dangling = next((p for p in new_folders if p.is_symlink()), None)
            why = f"{dangling} is a link to nothing" if dangling else error.strerror
            raise TfpruneError(f"{name}: expected a folder that can be written, {why}") from None
        with locked(folder, name, wait) as exclusive:
            recover(folder, name)
            if exclusive:
                _clear(folder)
            output = OutputFolder(folder, name)
            output.check(places)
            yield output
    finally:
        _remove_empty(new_folders)


@contextmanager
def staging(
    target: Path,
    last: str,
    places: Sequence[str] = (),
    obsolete: Obsolete = _nothing,
) -> Iterator[Path]:
    """A folder to write into, held by :func:`writing`; its files come by :class:`OutputFolder`."""
    with writing(target, places=places) as folder, folder.stage(last, obsolete) as stage:
        yield stage


def replace_files(
    target: Path,
    files: Mapping[str, bytes],
    what: str = "--output",
    obsolete: Sequence[str] = (),
    wait: float = WAIT,
) -> None:
    """Writes several files into a folder and removes obsolete ones, all or none.

    Parameters
    ----------
    target, what, wait
        See :func:`writing`.
    files : mapping of str to bytes
        By their paths within the folder.
    obsolete : sequence of str
        Paths within the folder.

    Raises
    ------
    TfpruneError
        If the folder cannot be written, or the files not be put in their places.
    """
    with writing(target, what, list(files), wait) as folder:
        folder.replace(files, obsolete)


def finish(folder: Path, what: str) -> None:
    """Finishes a change of a folder that was cut short, if there is one; see :func:`writing`."""
    if folder.is_dir() and unfinished(folder):
        with writing(folder, what, wait=WAIT):
            pass


def _clear(folder: Path) -> None:
    """Removes what killed runs left. None is alive: this one holds the lock."""
    remove_stale_partials(folder)
    for stage in folder.glob(f"{STAGE}*"):
        if re.fullmatch(rf"{re.escape(STAGE)}\w+", stage.name) and not stage.is_symlink():
            shutil.rmtree(stage, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
