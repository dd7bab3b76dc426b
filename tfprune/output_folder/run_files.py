"""Writes a run's files, as its manifest lists them, and removes those of the run before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfprune.output_folder.transaction import files_in, is_file_within
from tfprune.utils.digests import file_digest

MANIFEST = "manifest.json"
# Version of the manifest.
SCHEMA = 1
PLOTS = "plots"
# The endings of what a run writes; nothing else is ever removed, whatever a manifest says.
ENDINGS = (".tflite", ".keras", ".npz", ".md", ".h", ".cc", ".html")
# Bytes; no larger manifest is read.
LONGEST = 2**26


def listed(folder: Path) -> list[dict[str, Any]]:
    """What a manifest says of all files in a folder: path, bytes and SHA-256 of each."""
    return [
        {
            "file": name,
            "bytes": (folder / name).stat().st_size,
            "sha256": file_digest(folder / name),
        }
        for name in files_in(folder)
    ]


def leftovers(
    folder: Path, written: Collection[str], say: Callable[[str], None] | None = None
) -> list[str]:
    """The files of an earlier run that a new one does not replace, and that are to go with it.

    These are files that the manifest in the folder names and that are still what that run wrote, by
    their digests. The manifest may come from a stranger: only names in the folder itself and
    pictures in ``plots/`` count, with the endings of what a run writes, and no links.

    Parameters
    ----------
    folder : Path
    written : collection of str
        Paths within the folder that the new run writes.
    say : callable, optional
        Is told, in a line, what goes, and what stays because it was changed.

    Returns
    -------
    list of str
        Paths within the folder.
    """
    gone: list[str] = []
    changed: list[str] = []
    for name, digest in sorted(_entries(folder)):
        if name not in written and _is_ours(name) and is_file_within(folder, name):
            with contextlib.suppress(OSError):
                (gone if file_digest(folder / name) == digest else changed).append(name)
    if say and gone:
        say(
            f"{folder}: removing what an earlier run wrote there and this one did not: {_few(gone)}"
        )
    if say and changed:
        say(f"{folder}: of an earlier run, but changed since, so left there: {_few(changed)}")
    return gone


def _entries(folder: Path) -> set[tuple[str, str]]:
    """Names and digests of the files that the manifest in a folder lists; none without one."""
    path = folder / MANIFEST
    try:
        if not is_file_within(folder, MANIFEST) or path.stat().st_size > LONGEST:
            return set()
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return set(
            _named([manifest["artifacts"], manifest.get("files"), manifest.get("test_data")])
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def _named(entries: Any) -> Iterator[tuple[str, str]]:
    """The pairs of ``file`` and ``sha256`` in lists of entries and single ones."""
    if isinstance(entries, list):
        for entry in entries:
            yield from _named(entry)
    elif isinstance(entries, dict):
        name, digest = entries.get("file"), entries.get("sha256")
        if isinstance(name, str) and isinstance(digest, str):
            yield name, digest


def _is_ours(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    endings = (".png",) if folder == PLOTS else ENDINGS if not folder else ()
    return file.endswith(endings) and not file.startswith(".") if endings else False


def _few(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
