"""Reads samples from numpy's files: ``.npz``, with labels or without, and ``.npy``."""

from __future__ import annotations

import contextlib
import math
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfprune.data.parts import Parts, to_raw
from tfprune.data.splits import Raw, Split
from tfprune.errors import TfpruneError
from tfprune.sample_files.rows import plain_header
from tfprune.utils.archives import check_archive, header
from tfprune.utils.digests import file_digest
from tfprune.utils.streamed import Scratch, StreamedArray, stored_rows

# What arrays of samples are called, alone or before _NAME; x alone is split by seed.
STEMS = ("x_train", "x_test", "x")
# Bytes of a member that are unpacked at a time.
BLOCK = 2**20
# Where, in what stands in front of a member, the lengths of its name and of what follows that are.
NAME_LENGTHS = 26


def read_npz(
    path: Path,
    seed: int,
    name: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Raw:
    """Reads ``x_train y_train x_test y_test``, or ``x y``, split by seed; labels are optional.

    Parameters
    ----------
    path : Path
    seed : int
    name : str, optional
        The file's own by default.
    inputs : sequence of str
        The names of the model's inputs; several have an array each, ``x_train_NAME`` and so on.
    outputs : sequence of str
        The names of the model's outputs, which may have labels each, ``y_train_NAME`` and so on.

    Raises
    ------
    TfpruneError
        If the file cannot be read, is no ``.npz``, or has other arrays.
    """
    parts, notes = npz_parts(path, inputs, outputs=outputs)
    return to_raw(path, parts, seed, name or path.stem, file_digest(path), notes=notes)


def npz_parts(
    path: Path, inputs: Sequence[str] = (), stream: bool = False, outputs: Sequence[str] = ()
) -> tuple[Parts, list[str]]:
    """The parts that an ``.npz`` holds, and what is to be said of it; see :func:`read_npz`.

    With ``stream`` samples stay in the file, or in a scratch file where they are compressed; labels
    are read.
    """
    known = {"y_train", "y_test", "y", *STEMS}
    known |= {f"{stem}_{name}" for stem in STEMS for name in inputs}
    known |= {f"y{stem[1:]}_{name}" for stem in STEMS for name in outputs}
    arrays, keys = _loaded(path, known, stream=stream)
    parts, used = _parts(path, arrays, keys, inputs)
    for stem, part in parts.items():
        labels = {name: f"y{stem[1:]}_{name}" for name in outputs}
        ys = {name: arrays[key] for name, key in labels.items() if key in arrays}
        used |= {labels[name] for name in ys}
        _check_labels(path, part, ys, stem)
        parts[stem] = replace(part, ys=ys)
    unused = [key for key in keys if key not in used]
    strange = [key for key in unused if key.startswith("y_")]
    if strange and len(outputs) > 1:
        raise TfpruneError(
            f"{path}: {strange[0]} is no label of an output; the model's are {', '.join(outputs)}, "
            f"so expected {' or '.join(sorted({f'y{stem[1:]}_NAME' for stem in parts}))} with one "
            "of these names"
        )
    return parts, [f"arrays not used: {', '.join(unused)}"] if unused else []


def _check_labels(path: Path, part: Split, ys: dict[str, Any], stem: str) -> None:
    """Refuses one array of labels beside those of outputs, as it would say something twice."""
    if ys and part.y is not None:
        raise TfpruneError(
            f"{path}: expected y{stem[1:]} or y{stem[1:]}_NAME for outputs, received both"
        )


def npy_parts(path: Path, stream: bool = False) -> tuple[Parts, list[str]]:
    """The samples of a ``.npy``, which has no labels; with ``stream`` they stay in the file.

    Raises
    ------
    TfpruneError
        If the file cannot be read or holds anything but numbers.
    """
    arrays, _ = _loaded(path, {"x"}, ".npy", stream)
    return {"x": Split(arrays["x"])}, []


def held_bytes(path: Path) -> int:
    """Bytes that the samples of a file take in memory, as float32 at least; 0 if it cannot be read.

    What is wrong with it is told by what reads it.
    """
    try:
        check_archive(path)
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return _bytes_of(file)
        total = 0
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.startswith("x"):
                    with archive.open(member) as content:
                        total += _bytes_of(content)
        return total
    except Exception:  # Truncated or foreign files fail in many ways.
        return 0


def _bytes_of(file: IO[bytes]) -> int:
    declared = header(file)
    if declared is None:
        return 0
    shape, _, kind = declared
    return math.prod(shape) * max(kind.itemsize, 4)


def _loaded(
    path: Path, known: set[str], suffix: str = ".npz", stream: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The arrays of these names, and all names."""
    try:
        check_archive(path)
        if stream and zipfile.is_zipfile(path) == (suffix == ".npz"):
            return _streamed(path, known) if suffix == ".npz" else ({"x": _mapped(path)}, ["x"])
        # Opened here: np.load leaves the file open when it fails.
        with path.open("rb") as file, contextlib.ExitStack() as stack:
            archive = np.load(file, allow_pickle=False)
            if hasattr(archive, "files"):
                stack.enter_context(archive)
            if hasattr(archive, "files") != (suffix == ".npz"):
                one = "a single array, not an archive"
                raise ValueError(one if suffix == ".npz" else "an archive, not a single array")
            if suffix == ".npy":
                return {"x": archive}, ["x"]
            return {key: archive[key] for key in archive.files if key in known}, archive.files
    except TfpruneError:
        raise
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None
    except Exception as error:  # Truncated or foreign files fail in zipfile, zlib or numpy.
        message = str(error).splitlines()[0] if str(error) else repr(error)
        # Of any foreign file numpy says that it is pickled, and how to load it.
        why = "" if "allow_pickle" in message else f" ({message})"
        raise TfpruneError(
            f"{path}: expected a readable {suffix} file without pickles, received something "
            f"else{why}"
        ) from None


def _mapped(path: Path) -> StreamedArray:
    """The samples of a ``.npy``, left in it."""
    with path.open("rb") as file:
        shape, fortran, kind = plain_header(file)
        start = file.tell()
    return stored_rows(path.open("rb", buffering=0), start, shape, kind, fortran)


def _streamed(path: Path, known: set[str]) -> tuple[dict[str, Any], list[str]]:
    """The arrays of these names of an ``.npz``, samples left in it, and all names."""
    with np.load(path, allow_pickle=False) as archive, zipfile.ZipFile(path) as members:
        keys = list(archive.files)
        stored = {info.filename.removesuffix(".npy"): info for info in members.infolist()}
        return {
            key: _member(path, members, stored[key]) if key.startswith("x") else archive[key]
            for key in keys
            if key in known
        }, keys


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StreamedArray:
    """An array of an ``.npz``: in its place, or in a scratch file where it is compressed."""
    scratch = None if info.compress_type == zipfile.ZIP_STORED else Scratch(path)
    with archive.open(info) as content:
        shape, fortran, kind = plain_header(content)
        start = content.tell()
        # Read to its end, as the check sum stands for all of it.
        while block := content.read(BLOCK):
            if scratch is not None:
                scratch.write(block)
    if scratch is not None:
        return scratch.rows_of(shape, kind, fortran)
    with path.open("rb") as file:
        file.seek(info.header_offset + NAME_LENGTHS)
        name, extra = struct.unpack("<HH", file.read(4))
    start += info.header_offset + NAME_LENGTHS + 4 + name + extra
    return stored_rows(path.open("rb", buffering=0), start, shape, kind, fortran)


def _parts(
    path: Path, arrays: dict[str, Any], all_keys: Sequence[str], inputs: Sequence[str]
) -> tuple[dict[str, Split], set[str]]:
    """The parts that a file holds by what they are called: x_train and x_test, or one of all.

    And the names of the arrays that they are made of.
    """
    plain = not inputs or (len(inputs) == 1 and any(stem in arrays for stem in STEMS))
    ends = [""] if plain else [f"_{name}" for name in inputs]
    came = {key for key in all_keys if key == "x" or key.startswith("x_")}
    for stems in (("x_train", "x_test"), ("x",), ("x_train",)):
        keys = {stem + end for stem in stems for end in ends}
        if keys == came or (plain and keys < came):
            splits, used = {}, keys | {"y" + stem[1:] for stem in stems}
            for stem in stems:
                each = [arrays[stem + end] for end in ends]
                x = dict(zip(inputs, each, strict=True)) if len(each) > 1 else each[0]
                splits[stem] = Split(x, arrays.get("y" + stem[1:]))
            return splits, used
    expected = "x_train, y_train, x_test, y_test (or x, y)"
    if len(inputs) > 1:
        expected = (
            f"x_train_NAME and x_test_NAME (or x_NAME) for each input NAME of the model "
            f"({', '.join(inputs)}) and no other"
        )
    raise TfpruneError(
        f"{path}: expected arrays {expected}, received {', '.join(all_keys) or 'none'}"
    )
