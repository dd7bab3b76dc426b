"""Reads a user's own samples: a file, several that match a pattern, or a folder of pictures."""

from __future__ import annotations

import glob
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfprune.data import array_files, picture_folders
from tfprune.data.parts import TRAIN, Parts, joined, to_raw
from tfprune.data.scales import Shape
from tfprune.data.splits import Raw, ShardFiles, Split
from tfprune.errors import TfpruneError
from tfprune.sample_files import columns, tfrecords
from tfprune.sample_files.rows import Naming, shape_of_numbers
from tfprune.utils.digests import file_digest, text_digest
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import mapped


@dataclass(frozen=True)
class Reading:
    """What has to be known to read samples.

    Attributes
    ----------
    seed : int
        Splits what comes unsplit.
    inputs : tuple of str
        The names of the model's inputs; none if the model takes any data.
    shape : tuple of int or None, optional
        Of a sample as the model's only input takes it.
    outputs : tuple of str
        The names of the model's outputs, for labels of several in an ``.npz``.
    label, feature : str, optional
        The column or feature that holds labels; the feature that holds samples.
    stream : bool
        Whether samples are too many to be held in memory; found out by :func:`read`.
    """

    seed: int
    inputs: tuple[str, ...] = ()
    shape: Shape | None = None
    outputs: tuple[str, ...] = ()
    label: str | None = None
    feature: str | None = None
    stream: bool = False


def read(data: str, reading: Reading) -> Raw:
    """Reads samples, and labels where there are any.

    Parameters
    ----------
    data : str
        A path, or a pattern as of a shell (``shards/*.npz``) that matches files of one kind.
    reading : Reading

    Raises
    ------
    TfpruneError
        If there is no such file, or it is not what it should be.
    """
    if Path(data).is_dir():
        if reading.label is not None:
            raise TfpruneError("--label: not for a folder of pictures, whose folders are labels")
        if reading.feature is not None:
            raise TfpruneError(f"--feature: for {tfrecords.SUFFIX} alone, received a folder")
        found = picture_folders.read_folder(Path(data), reading.shape)
        return to_raw(
            data,
            found.parts,
            reading.seed,
            Path(data).resolve().name,
            found.sha256,
            notes=found.notes,
            classes=found.classes,
        )
    paths = _matching(data)
    kinds = sorted({_kind(path) for path in paths})
    if len(kinds) > 1:
        raise TfpruneError(f"--data {data}: expected files of one kind, received {kinds}")
    if reading.label is not None and kinds[0] not in LABELLED:
        raise TfpruneError(
            f"--label: for {', '.join(sorted(LABELLED))} alone, {paths[0]} names its own labels"
        )
    name = paths[0].stem if len(paths) == 1 else paths[0].parent.resolve().name
    digests = [file_digest(path) for path in paths if path.is_file()]
    sha256 = digests[0] if len(digests) == 1 else text_digest("".join(digests))
    classes: tuple[str, ...] = ()
    shards: ShardFiles | None = None
    if reading.feature is not None and kinds[0] != tfrecords.SUFFIX:
        raise TfpruneError(f"--feature: for {tfrecords.SUFFIX} alone, received {paths[0]}")
    bytes_needed = sum(_held_bytes(path, kinds[0], reading) for path in paths)
    reading = replace(reading, stream=bytes_needed > most_held())
    if kinds[0] in LABELLED:
        table = _table(paths, kinds[0], reading)
        parts: Parts = {"x": Split(table.x, table.y)}
        notes, classes = list(table.notes), table.classes
        if len(paths) > 1:
            naming = Naming(reading.label, reading.feature, table.x.shape[1:])
            names = tuple(map(str, paths))
            shards = ShardFiles(names, table.counts, "x", reading.inputs, naming)
            parts["x"] = _numbered(parts["x"])
    else:
        _check_kind(paths[0])
        reader = READERS.get(kinds[0], _npz)
        made = [reader(path, reading) for path in paths]
        parts, shards = _together(paths, [one for one, _ in made], data, reading)
        notes = list(dict.fromkeys(note for _, said in made for note in said))
    if reading.stream:
        notes.append(
            f"streamed: {bytes_needed / 1e9:.2g} GB are read part by part, as they are needed"
        )
    if len(paths) > 1:
        notes.insert(0, f"{len(paths)} files, from {paths[0]} to {paths[-1]}")
    if kinds[0] in LABELLED:
        parts = {key: _shaped(part, reading, paths[0], notes) for key, part in parts.items()}
    raw = to_raw(data, parts, reading.seed, name, sha256, notes=notes, classes=classes)
    return replace(raw, shards=shards)


def _together(
    paths: Sequence[Path], files: Sequence[Parts], data: str, reading: Reading
) -> tuple[Parts, ShardFiles | None]:
    """The parts of all files, and where those samples lie that models are calibrated on."""
    if len(files) == 1:
        return files[0], None
    parts = joined(data, files)
    part = TRAIN if TRAIN in parts else next(iter(parts))
    counts = tuple(len(one[part]) for one in files)
    names = tuple(map(str, paths))
    return {**parts, part: _numbered(parts[part])}, ShardFiles(names, counts, part, reading.inputs)


def _numbered(whole: Split) -> Split:
    """The samples of several files with their places among all of them."""
    return replace(whole, numbers=np.arange(len(whole)))


def _table(paths: Sequence[Path], kind: str, reading: Reading) -> columns.Table:
    """The rows of tables, or the records, of all files."""
    if kind in columns.SUFFIXES:
        return columns.read_tables(paths, reading.label, reading.stream)
    names = (reading.feature, reading.label, reading.shape)
    return tfrecords.read_records(paths, *names, reading.stream)


def _npz(path: Path, reading: Reading) -> tuple[Parts, list[str]]:
    return array_files.npz_parts(path, reading.inputs, reading.stream, reading.outputs)


def _npy(path: Path, reading: Reading) -> tuple[Parts, list[str]]:
    return array_files.npy_parts(path, reading.stream)


# Readers by what a file's name ends with; anything else is taken for an .npz.
READERS: dict[str, Callable[[Path, Reading], tuple[Parts, list[str]]]] = {".npy": _npy}
# Kinds of files whose labels are named by --label.
LABELLED = {*columns.SUFFIXES, tfrecords.SUFFIX}


def _kind(path: Path) -> str:
    """What a file's name ends with; shards of records are numbered behind it."""
    return tfrecords.SUFFIX if tfrecords.is_tfrecord(path) else path.suffix.lower()


def _check_kind(path: Path) -> None:
    """Refuses a file that neither its name nor its content says to be samples."""
    known = (".npz", *READERS)
    if path.suffix.lower() in known or not path.is_file() or zipfile.is_zipfile(path):
        return
    kinds = ", ".join((*known, *sorted(LABELLED)))
    what = f"{path}: expected {kinds}, or a folder of pictures"
    if path.suffix.lower() in picture_folders.SUFFIXES:
        what += f", received a picture; give its folder: --data {path.parent}"
    raise TfpruneError(what)


def _held_bytes(path: Path, kind: str, reading: Reading) -> int:
    """How many bytes the samples of a file take in memory."""
    if kind == tfrecords.SUFFIX:
        return tfrecords.held_bytes(path, reading.feature, reading.shape)
    return (columns if kind in columns.SUFFIXES else array_files).held_bytes(path)


def _matching(data: str) -> list[Path]:
    """The files that are meant, in the order of their names."""
    path = Path(data)
    if path.exists() or not glob.has_magic(data):
        return [path]
    paths = sorted(Path(name) for name in glob.glob(data, recursive=True))  # noqa: PTH207
    if not paths:
        raise TfpruneError(f"--data {data}: no file matches")
    folders = [one for one in paths if not one.is_file()]
    if folders:
        raise TfpruneError(f"--data {data}: expected files alone, received {folders[0]}")
    return paths


def _shaped(part: Split, reading: Reading, path: Path, notes: list[str]) -> Split:
    """Rows of numbers in the shape of the model's samples, where they are as many."""
    (x,) = part.arrays
    want = reading.shape
    if want is None or x.ndim != 2 or len(want) == 1 == want.count(None):
        return part
    size = x.shape[1]
    shape = shape_of_numbers(size, want)
    if shape is None:
        known = math.prod(length for length in want if length is not None)
        hint = ""
        if size == known + 1 and part.y is None and None not in want:
            hint = "; if one of them is the label, say which: --label COLUMN"
        raise TfpruneError(
            f"{path}: expected {known} numbers a sample, as the model takes {want}, "
            f"received {size}{hint}"
        )
    made = mapped(lambda rows: np.reshape(rows, (len(rows), *shape)), x)
    if made.shape != x.shape:
        notes.append(f"{size} numbers a sample shaped to {made.shape[1:]}")
    return replace(part, x=made)
