"""Takes ``.keras`` archives apart and writes them anew from checked parts."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from tfprune.errors import TfpruneError
from tfprune.loading import h5_arrays, model_config

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ASSETS = "assets/"
# Layers that keep their words in a file of their own.
WITH_ASSETS = {"IntegerLookup", "StringLookup", "TextVectorization"}
MOST_MEMBERS = 10_000


@dataclass(frozen=True)
class Archive:
    """What a ``.keras`` file holds.

    Attributes
    ----------
    config : dict
    version : str or None
        Of the Keras that wrote it.
    weights : bytes
        An HDF5 file of arrays alone.
    numbers : int
        How many numbers there are in its arrays.
    assets : dict of str to bytes
        Other files by their names.
    """

    config: Any
    version: str | None
    weights: bytes
    numbers: int
    assets: dict[str, bytes]


def read(path: Path) -> Archive:
    """Everything in a ``.keras`` file, nothing of it built.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Archive

    Raises
    ------
    TfpruneError
        If it has members that Keras does not write, or more bytes than its size allows.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = _members(archive, path.stat().st_size)
            content = {name: _content(archive, info) for name, info in members.items()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, TfpruneError):
            raise
        raise TfpruneError(f"it is a damaged zip archive ({error})") from None
    for name in (CONFIG, WEIGHTS):
        if name not in content:
            raise TfpruneError(f"expected {name} in the .keras file, found {', '.join(content)}")
    metadata = model_config.parsed(content.get(METADATA, b"{}"), METADATA)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    with h5_arrays.reading(), h5py.File(io.BytesIO(content[WEIGHTS]), "r") as weights:
        numbers = h5_arrays.check_arrays(weights, path.stat().st_size)
    return Archive(
        model_config.parsed(content[CONFIG], CONFIG),
        version if isinstance(version, str) else None,
        content[WEIGHTS],
        numbers,
        {name: data for name, data in content.items() if name.startswith(ASSETS)},
    )


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members to read, by name, refused by what they declare."""
    members: dict[str, zipfile.ZipInfo] = {}
    limit = h5_arrays.TIMES * size + h5_arrays.MORE
    total = 0
    for info in archive.infolist():
        name = info.filename
        if info.is_dir() and (name + "/").startswith(ASSETS):
            continue
        parts = name.split("/")
        asset = name.startswith(ASSETS) and not {"", ".", ".."} & set(parts) and "\\" not in name
        if name not in (CONFIG, METADATA, WEIGHTS) and not asset:
            raise TfpruneError(f"it has a member {name!r}, which Keras does not write")
        if name in members or len(members) >= MOST_MEMBERS:
            raise TfpruneError(f"it has too many members, or {name!r} twice")
        if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
            raise TfpruneError(f"its member {name!r} is a link or encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise TfpruneError(f"its member {name!r} is packed in a way that Keras does not use")
        total += info.file_size
        if total > limit:
            raise TfpruneError(
                f"it declares more than {limit:,} bytes unpacked, where the file has {size:,}"
            )
        members[name] = info
    return members


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes, never more than it declares."""
    with archive.open(info) as member:
        data = member.read(info.file_size)
        if len(data) != info.file_size or member.read(1):
            raise TfpruneError(f"its member {info.filename!r} is not of the size that it declares")
    return data


def write(path: Path, config: Any, archive: Archive) -> None:
    """A ``.keras`` file of a configuration and an archive's weights and assets, not compressed."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, json.dumps(config))
        file.writestr(METADATA, json.dumps({"keras_version": archive.version}))
        file.writestr(WEIGHTS, archive.weights)
        for name, data in archive.assets.items():
            file.writestr(name, data)


def needs_assets(config: Any) -> bool:
    """Whether a configuration has a layer that reads files of the archive."""
    if isinstance(config, dict):
        name = config.get("class_name")
        if isinstance(name, str) and name in WITH_ASSETS:
            return True
        config = list(config.values())
    return isinstance(config, list) and any(needs_assets(item) for item in config)
