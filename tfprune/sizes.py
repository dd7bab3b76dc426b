"""The sizes of a set of models, from a manifest or from a folder of ``.tflite`` files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfprune.digest import file_digest, text_digest
from tfprune.errors import TfpruneError
from tfprune.files import PRIVATE
from tfprune.tflite import read, shares
from tfprune.transaction import read_settled

MANIFEST = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class Model:
    """One file.

    Attributes
    ----------
    name : str
        Path within its folder.
    bytes : int
    accuracy : float or None
        0 to 1, where a manifest has measured it on this very file.
    path : Path or None
        The file itself, if it is there.
    """

    name: str
    bytes: int
    accuracy: float | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes
    ----------
    models : dict of str to Model
    tensorflow : str or None
        Version that made them, where a manifest says.
    manifest : dict or None
    warnings : tuple of str
    """

    models: dict[str, Model]
    tensorflow: str | None = None
    manifest: dict[str, Any] | None = None
    warnings: tuple[str, ...] = field(default=())


def read_side(path: Path, what: str) -> Side:
    """Reads a manifest, or a folder of ``.tflite`` files with or without one.

    In a folder the sizes are the files'; the manifest adds the accuracy of files whose digest it
    knows.

    Parameters
    ----------
    path : Path
    what : str
        ``--baseline`` or ``--candidate``, for messages.

    Raises
    ------
    TfpruneError
        If it is missing, empty, unreadable, or of another schema.
    """
    if not path.exists():
        hint = "; make one with --update" if what == "--baseline" else ""
        raise TfpruneError(f"{what} {path}: no such file or folder{hint}")
    folder = path if path.is_dir() else path.parent
    read = _folder if path.is_dir() else _listed
    return read_settled(folder, f"{what} {path}", lambda: read(path, what))


def _listed(path: Path, what: str) -> Side:
    manifest = _manifest(path, what)
    models: dict[str, Model] = {}
    for entry in manifest["artifacts"]:
        if entry["file"] in models:
            raise TfpruneError(f"{what} {path}: two models named {entry['file']}")
        file = path.parent / entry["file"]
        # The file beside the manifest serves to look inside, if it is the one that was meant.
        there = file.is_file() and file_digest(file) == entry.get("sha256")
        models[entry["file"]] = Model(
            entry["file"], entry["bytes"], entry.get("accuracy"), file if there else None
        )
    if not models:
        raise TfpruneError(f"{what} {path}: expected at least one model, received none")
    return Side(models, _tensorflow(manifest), manifest)


def _folder(path: Path, what: str) -> Side:
    manifest = _manifest(path / MANIFEST, what) if (path / MANIFEST).is_file() else None
    files, exports = _members(path)
    if not files:
        raise TfpruneError(f"{what} {path}: expected .tflite files, the folder has none")
    known = {entry["file"]: entry for entry in manifest["artifacts"]} if manifest else {}
    models: dict[str, Model] = {}
    warnings = [
        f"{folder.relative_to(path).as_posix()}/ in {path} has a {MANIFEST} of its own: an export "
        "apart, not compared here"
        for folder in exports
    ]
    for file in files:
        name = file.relative_to(path).as_posix()
        shares(file)  # A file that cannot be read through has no size worth comparing.
        content = read(file)
        entry = known.get(name)
        accuracy = None
        if entry is not None and entry.get("sha256") == text_digest(content):
            accuracy = entry.get("accuracy")
        elif entry is not None:
            warnings.append(f"{name}: not the file that the manifest measured; accuracy unknown")
        models[name] = Model(name, len(content), accuracy, file)
    missing = sorted(set(known) - set(models))
    warnings += [f"{name}: in the manifest but not in {path}" for name in missing]
    return Side(models, _tensorflow(manifest), manifest, tuple(warnings))


def members(folder: Path) -> list[Path]:
    """The ``.tflite`` files of a folder and of the folders in it, sorted.

    Hidden ``.tfprune-`` folders, where a run prepares its files, do not count. Where the folder
    has a manifest, a folder in it that has one too is an export apart, and its files do not count.
    """
    return _members(folder)[0]


def _members(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files, and the exports apart that were left out."""
    files: list[Path] = []
    exports: list[Path] = []
    has_manifest = (folder / MANIFEST).is_file()
    for file in sorted(folder.rglob("*.tflite")):
        names = file.relative_to(folder).parts
        if not file.is_file() or any(name.startswith(PRIVATE) for name in names):
            continue
        between = [folder.joinpath(*names[:depth]) for depth in range(1, len(names))]
        apart = next((place for place in between if (place / MANIFEST).is_file()), None)
        if has_manifest and apart is not None:
            exports += [apart] if apart not in exports else []
        else:
            files.append(file)
    return files, exports


def _tensorflow(manifest: dict[str, Any] | None) -> str | None:
    versions = (manifest or {}).get("versions")
    return versions.get("tensorflow") if isinstance(versions, dict) else None


def _manifest(path: Path, what: str) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise TfpruneError(f"{what} {path}: expected JSON, cannot read it ({error})") from None
    if not isinstance(manifest, dict) or "artifacts" not in manifest or "schema" not in manifest:
        raise TfpruneError(
            f"{what} {path}: expected a manifest of tfprune (schema and artifacts), "
            "received other JSON"
        )
    if manifest["schema"] != SCHEMA:
        raise TfpruneError(
            f"{what} {path}: expected schema {SCHEMA}, received {manifest['schema']!r}"
        )
    artifacts = manifest["artifacts"]
    if not isinstance(artifacts, list) or not all(_is_entry(entry) for entry in artifacts):
        raise TfpruneError(
            f"{what} {path}: expected artifacts with file and bytes (and accuracy as a number)"
        )
    return manifest


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and type(entry.get("bytes")) is int
        and entry["bytes"] >= 0
        and isinstance(entry.get("accuracy"), int | float | None)
    )
