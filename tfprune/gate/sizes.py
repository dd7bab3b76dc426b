"""Reads the sizes of a set of models, from a manifest or from a folder of ``.tflite`` files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.output_folder.run_files import MANIFEST, SCHEMA
from tfprune.output_folder.transaction import read_settled
from tfprune.tflite.reader import read, shares
from tfprune.utils.digests import file_digest, text_digest
from tfprune.utils.files import PRIVATE
from tfprune.utils.untrusted import inside, plain_name, read_json

DIGEST = re.compile("[0-9a-f]{64}")


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

    @property
    def data(self) -> str | None:
        """The digest of the data that accuracy was measured on, where the manifest says."""
        dataset = (self.manifest or {}).get("dataset")
        digest = dataset.get("sha256") if isinstance(dataset, dict) else None
        return digest if isinstance(digest, str) else None

    @property
    def failed(self) -> dict[str, str]:
        """Files that could not be made, as the manifest says, and why."""
        entries = (self.manifest or {}).get("failed")
        return {
            entry["file"]: str(entry.get("reason"))
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("file"), str)
        }


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
    warnings = []
    for entry in manifest["artifacts"]:
        name, size = entry["file"], entry["bytes"]
        file = path.parent / name
        # The file beside the manifest serves to look inside, if it is the one that was measured.
        there = file.is_file() and inside(file, path.parent)
        known = entry.get("sha256") if there else None
        there = known is not None and file_digest(file) == known
        if known is not None and not there:
            warnings.append(f"{name}: the file beside the manifest is not the one it measured")
        elif there and file.stat().st_size != size:
            raise TfpruneError(
                f"{what} {path}: {name}: the manifest says {size:,} bytes, the file has "
                f"{file.stat().st_size:,}"
            )
        models[name] = Model(name, size, entry.get("accuracy"), file if there else None)
    if not models:
        raise TfpruneError(f"{what} {path}: expected at least one model, received none")
    return Side(models, _tensorflow(manifest), manifest, tuple(warnings))


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
        if any(name.startswith(PRIVATE) for name in names):
            continue
        if not file.is_file() or not inside(file, folder):
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
    version = versions.get("tensorflow") if isinstance(versions, dict) else None
    return version if isinstance(version, str) else None


def _manifest(path: Path, what: str) -> dict[str, Any]:
    called = f"{what} {path}"
    manifest = read_json(path, called)
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
    if not isinstance(artifacts, list):
        raise TfpruneError(f"{called}: expected a list of artifacts")
    names = set()
    for number, entry in enumerate(artifacts):
        _check_entry(entry, f"{called}: artifact {number}")
        if entry["file"] in names:
            raise TfpruneError(f"{called}: two models named {entry['file']}")
        names.add(entry["file"])
    return manifest


def _check_entry(entry: Any, called: str) -> None:
    """Raises :class:`TfpruneError` unless a manifest's entry is one that can be compared."""
    if not isinstance(entry, dict):
        raise TfpruneError(f"{called}: expected a table of file and bytes")
    name, size = entry.get("file"), entry.get("bytes")
    if not isinstance(name, str) or not plain_name(name, ".tflite"):
        raise TfpruneError(
            f"{called}: file: expected the name of a .tflite file within the manifest's folder, "
            f"received {name!r}"
        )
    if type(size) is not int or size < 0:
        raise TfpruneError(f"{called}: bytes: expected a whole number from 0, received {size!r}")
    accuracy, digest = entry.get("accuracy"), entry.get("sha256")
    if accuracy is not None and (
        isinstance(accuracy, bool)
        or not isinstance(accuracy, int | float)
        or not 0 <= accuracy <= 1
    ):
        raise TfpruneError(
            f"{called}: accuracy: expected a number from 0 to 1, received {accuracy!r}"
        )
    if digest is not None and not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
        raise TfpruneError(f"{called}: sha256: expected 64 hexadecimal digits, received {digest!r}")
