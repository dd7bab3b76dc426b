"""Reads pictures from a folder, which has a sub-folder for each class or pictures alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.parts import TEST, TRAIN, WHOLE, Parts
from tfprune.data.scales import Shape
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.sample_files.pictures import FORMATS, MODES, decoded, opened, resized
from tfprune.utils.archives import ALWAYS, RATIO
from tfprune.utils.arrays import Array
from tfprune.utils.digests import file_digest, text_digest
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import Index, StreamedArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
# Pictures as well, which are not read: left out by themselves they might be half of the data.
NOT_READ = (".gif", ".webp", ".tif", ".tiff", ".jfif", ".avif", ".heic", ".ppm", ".pgm", ".tga")
# Folders of training and of test pictures, where a folder is divided already.
TRAINING = ("train", "training")
TESTING = ("test", "testing", "validation", "valid", "val")
# What systems leave in folders by themselves.
BYSTANDERS = ("thumbs.db", "desktop.ini", "__macosx")
# Pictures that are decoded and left again, where they are looked at alone.
AT_ONCE = 64
# Pictures that are named in a message.
NAMED = 3
# Stands for the class of pictures in no folder of a class.
ALONE = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures as arrays, the classes of which count in the order of their names.

    Attributes
    ----------
    parts : dict of str to Split
    classes : tuple of str
        Empty where there are no folders of classes, and so no labels.
    sha256 : str
        Of the names and contents of the files.
    notes : tuple of str
        What the user should know of how the folder was read.
    """

    parts: Parts
    classes: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...]


def read_folder(root: Path, shape: Shape | None) -> Pictures:
    """Reads a folder of pictures, in the size and with the channels that a model takes.

    Parameters
    ----------
    root : Path
        Holds a folder of each class, or pictures alone, which have no labels; or ``train`` and
        ``test`` which do.
    shape : tuple of int or None
        Of a sample: (height, width, channels), or (height, width) for grey. None if the model is
        made for the data.

    Raises
    ------
    TfpruneError
        If there are no pictures, pictures beside folders, or pictures that cannot be read.
    """
    folders = _entries(root, root)[0]
    divided = [one for one in folders if one.name.lower() in (*TRAINING, *TESTING)]
    notes, unused = [], list[Path]()
    if any(one.name.lower() in TRAINING for one in divided) and len(divided) > 1:
        train = next(one for one in folders if one.name.lower() in TRAINING)
        test = min(
            (one for one in divided if one.name.lower() in TESTING),
            key=lambda one: TESTING.index(one.name.lower()),
            default=None,
        )
        if test is None:
            raise TfpruneError(f"{root}: expected train and test, received {_names(folders)}")
        others = [one for one in folders if one not in (train, test)]
        notes.append(f"pictures in {train.name} to train, in {test.name} to test")
        if others:
            notes.append(f"folders not used: {_names(others)}")
        found = {TRAIN: _by_class(train, root, unused), TEST: _by_class(test, root, unused)}
    else:
        found = {WHOLE: _by_class(root, root, unused)}
    if unused:
        shown = ", ".join(path.relative_to(root).as_posix() for path in unused[:NAMED])
        more = f" and {len(unused) - NAMED} others" if len(unused) > NAMED else ""
        notes.append(f"not used, as no pictures: {shown}{more}")
    if len({ALONE in files for files in found.values()}) > 1:
        raise TfpruneError(
            f"{root}: expected folders of classes both to train and to test, or in neither"
        )
    classes = tuple(next(iter(found.values())))
    strange = [name for files in found.values() for name in files if name not in classes]
    if strange:
        raise TfpruneError(
            f"{root}: expected the same classes to train and to test, {', '.join(strange)} is in "
            "the test folder alone"
        )
    listed = {
        part: [(path, classes.index(name)) for name, paths in files.items() for path in paths]
        for part, files in found.items()
    }
    paths = [path for files in listed.values() for path, _ in files]
    target = _target(root, paths, shape)
    # As float32, as models are given them.
    bytes_needed = 4 * len(paths) * target.height * target.width * target.channels
    decode: Callable[..., Any] = _streamed if bytes_needed > most_held() else _pictures
    if decode is _streamed:
        notes.append(
            f"streamed: {bytes_needed / 1e9:.2g} GB (as float32) are decoded part by part, as they "
            "are needed"
        )
    parts = {
        part: Split(
            decode(root, [path for path, _ in files], target),
            None if classes == (ALONE,) else np.array([label for _, label in files], np.int64),
        )
        for part, files in listed.items()
    }
    if classes == (ALONE,):
        classes = ()
        notes.append(f"{len(paths):,} pictures without labels, as there are no folders of classes")
    else:
        notes.append(f"{len(paths):,} pictures in {len(classes)} classes: {', '.join(classes)}")
    if target.resized:
        size = f"{target.height}x{target.width}"
        notes.append(f"{target.resized:,} of them brought to {size} (height x width, bilinear)")
    digests = [f"{path.relative_to(root).as_posix()} {file_digest(path)}" for path in paths]
    return Pictures(parts, classes, text_digest("\n".join(digests)), tuple(notes))


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """The folders and files in a folder by name, without hidden ones; no link leads out of it."""
    try:
        entries = sorted(Path(entry.path) for entry in os.scandir(folder))
    except OSError as error:
        raise TfpruneError(f"{folder}: cannot be read ({error.strerror})") from None
    inside = root.resolve()
    folders, files = list[Path](), list[Path]()
    for path in entries:
        if path.name.startswith(".") or path.name.lower() in BYSTANDERS:
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise TfpruneError(f"{path}: a link that leads out of {root}, refused")
        (folders if path.is_dir() else files).append(path)
    return folders, files


def _by_class(folder: Path, root: Path, unused: list[Path]) -> dict[str, list[Path]]:
    """The pictures of each class, by its name, or all under :data:`ALONE`.

    Files that are no pictures are added to ``unused``.
    """
    classes, files = _entries(folder, root)
    beside = _pictures_among(files, folder, unused)
    if not classes:
        if not beside:
            raise TfpruneError(
                f"{folder}: expected a folder of pictures ({', '.join(SUFFIXES)}) for each class, "
                f"or pictures alone, received {_count(files) if files else 'an empty folder'}"
            )
        return {ALONE: beside}
    if beside:
        raise TfpruneError(
            f"{folder}: expected folders of classes alone, or pictures alone, received "
            f"{beside[0].name}" + (f" and {_count(beside[1:])} more" if len(beside) > 1 else "")
            + f" beside {_names(classes[:NAMED])}"
        )  # fmt: skip
    found = {}
    for path in classes:
        inner, files = _entries(path, root)
        if inner:
            raise TfpruneError(
                f"{path}: expected pictures of this class, received the folder {inner[0].name}"
            )
        found[path.name] = _pictures_among(files, path, unused)
        if not found[path.name]:
            raise TfpruneError(
                f"{path}: expected pictures of this class ({', '.join(SUFFIXES)}), received none"
            )
    if len(found) < 2:
        raise TfpruneError(
            f"{folder}: expected a folder for each of two classes or more, received "
            f"{_names(classes)} alone; pictures without labels stand in no folder of their own"
        )
    return found


def _pictures_among(files: Sequence[Path], folder: Path, unused: list[Path]) -> list[Path]:
    """The files that are pictures by the ends of their names; the others join ``unused``."""
    other = [path for path in files if path.suffix.lower() in NOT_READ]
    if other:
        more = f" and {_count(other[1:])} more" if len(other) > 1 else ""
        raise TfpruneError(
            f"{folder}: expected {', '.join(FORMATS)}, received {other[0].name}{more}; convert or "
            "remove them"
        )
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    known = set(pictures)
    unused += [path for path in files if path not in known]
    return pictures


def _count(files: Sequence[Path]) -> str:
    return f"{len(files):,} file{'s' if len(files) != 1 else ''}"


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


@dataclass
class _Target:
    """What pictures are brought to, and how many were of another size."""

    height: int
    width: int
    channels: int
    axis: bool
    resized: int = 0


def _target(root: Path, paths: Sequence[Path], shape: Shape | None) -> _Target:
    """The size and channels of a model's samples; of the pictures, where a model leaves it open."""
    if shape is not None and (
        len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in MODES)
    ):
        raise TfpruneError(
            f"{root}: expected a model of pictures (height, width, channels), the model takes "
            f"{shape}"
        )
    height, width = (None, None) if shape is None else shape[:2]
    channels = None if shape is None else shape[2] if len(shape) == 3 else 1
    if height is None or width is None or channels is None:
        seen = _looked_at(root, paths)
        sizes = sorted({size for size, _ in seen})
        if (height is None or width is None) and len(sizes) > 1:
            raise TfpruneError(
                f"{root}: expected pictures of one size, as the model leaves it open, received "
                f"{len(sizes)} sizes such as {sizes[0][0]}x{sizes[0][1]} and "
                f"{sizes[-1][0]}x{sizes[-1][1]} (height x width)"
            )
        height, width = height or sizes[0][0], width or sizes[0][1]
        channels = channels or (1 if all(mode in ("1", "L") for _, mode in seen) else 3)
        total, stored = len(paths) * height * width * channels, _stored(paths)
        if total > max(ALWAYS, RATIO * stored):
            raise TfpruneError(f"{root}: {stored:,} bytes that unpack to {total:,}, refused")
    axis = shape is None or len(shape) == 3
    return _Target(height, width, channels, axis)


def _stored(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _looked_at(root: Path, paths: Sequence[Path]) -> list[tuple[tuple[int, int], str]]:
    """The height and width of each picture, and how Pillow calls what its pixels are."""
    seen, bad = [], []
    for path in paths:
        try:
            with path.open("rb") as file, opened(file) as image:
                seen.append(((image.height, image.width), image.mode))
        except Exception as error:
            bad.append((path, error))
    _refuse(root, bad, len(paths))
    return seen


def _streamed(root: Path, paths: Sequence[Path], target: _Target) -> StreamedArray:
    """Pictures that are decoded when they are asked for; all are once, to see that they can be."""
    bad: list[tuple[Path, Exception]] = []
    for start in range(0, len(paths), AT_ONCE):
        made, wrong = _decoded(paths[start : start + AT_ONCE], target)
        bad += wrong
    _refuse(root, bad, len(paths))

    def read(index: Index) -> Array:
        some = [paths[at] for at in index]
        pixels, wrong = _decoded(some, replace(target))
        _refuse(root, wrong, len(some))
        return pixels

    return StreamedArray(read, (len(paths), *made.shape[1:]), made.dtype)


def _pictures(root: Path, paths: Sequence[Path], target: _Target) -> Array:
    made, bad = _decoded(paths, target)
    _refuse(root, bad, len(paths))
    return made


def _decoded(paths: Sequence[Path], target: _Target) -> tuple[Array, list[tuple[Path, Exception]]]:
    """Pictures as the target has them, and those that cannot be read."""
    channels = (target.channels,) if target.axis else ()
    made = np.zeros((len(paths), target.height, target.width, *channels), np.uint8)
    bad = []
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                pixels = decoded(file, target.channels)
        except Exception as error:  # Damaged files fail in Pillow in many ways.
            bad.append((path, error))
            continue
        if pixels.shape[:2] != (target.height, target.width):
            target.resized += 1
            pixels = resized(pixels, (target.height, target.width))
        made[number] = pixels if target.axis else pixels[..., 0]
    return made, bad


def _refuse(root: Path, bad: Sequence[tuple[Path, Exception]], count: int) -> None:
    if not bad:
        return
    named = ", ".join(
        f"{path.relative_to(root)} ({' '.join(str(why).split())[:80] or type(why).__name__})"
        for path, why in bad[:NAMED]
    )
    more = ", ..." if len(bad) > NAMED else ""
    raise TfpruneError(
        f"{root}: {len(bad)} of {count} pictures cannot be read: {named}{more}; mend or remove them"
    )
