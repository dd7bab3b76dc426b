"""Reads samples from ``.tfrecord`` files of ``tf.train.Example`` messages.

The names of features are the file's own. Two are known: those of the TensorFlow models
(``image/encoded``, ``image/class/label``) and those of TensorFlow Datasets (``image``, ``label``).
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.sample_files.columns import Table
from tfprune.sample_files.pictures import MODES, decoded, opened, resized
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import Held, Scratch

Shape = tuple[int | None, ...]
SUFFIX = ".tfrecord"
FEATURES = ("image/encoded", "image")
LABELS = ("image/class/label", "label")
# A record: its length and a check sum, what it holds, another check sum.
HEAD, TAIL = 12, 4
GZIP = b"\x1f\x8b"
# Samples that are made into an array at once.
TOGETHER = 256
# Features and classes that are named in a message.
NAMED = 10


def is_tfrecord(path: Path) -> bool:
    """Whether a file is called as one, such as ``x.tfrecord-00000-of-00010``."""
    return any(suffix.lower().startswith(SUFFIX) for suffix in path.suffixes)


def contents(
    path: Path, feature: str | None, shape: Shape | None
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape of the samples of a file, and their type, by its first record.

    Parameters and errors are those of :func:`read_records`.
    """
    count = sum(1 for _ in _lengths(path))
    _, example = next(_examples(path), (0, None))
    if example is None:
        raise TfpruneError(f"{path}: expected at least one record, received none")
    one = _Sample(path, example, feature, shape).of(example, 1)
    return (count, *one.shape), one.dtype


def held_bytes(path: Path, feature: str | None, shape: Shape | None) -> int:
    """Bytes that the samples of a file take as float32, by its first record; 0 if it has none."""
    try:
        return 4 * math.prod(contents(path, feature, shape)[0])
    except TfpruneError:
        return 0  # What is wrong with it is told by what reads it.


def read_records(
    paths: Sequence[Path],
    feature: str | None,
    label: str | None,
    shape: Shape | None,
    stream: bool = False,
) -> Table:
    """Reads the samples of one file, or of several.

    Parameters
    ----------
    paths : sequence of Path
    feature : str or None
        That holds the sample: an encoded picture, or a list of numbers of one length. By default
        one of :data:`FEATURES`, else the only one beside the label.
    label : str or None
        That holds the label: a number, numbers, or text. By default one of :data:`LABELS`, if it is
        there.
    shape : tuple of int or None
        Of a sample as the model takes it, to which pictures are brought.
    stream : bool
        Whether samples are left in a scratch file.

    Raises
    ------
    TfpruneError
        If a file or record cannot be read; names the record.
    """
    kept: Held | Scratch = Scratch(paths[0]) if stream else Held()
    labels, waiting = list[Any](), list[Array]()
    sample = None
    label_name = label
    counts = list[int]()
    for path in paths:
        number = 0
        for number, example in _examples(path):
            if sample is None:
                names = example.features.feature
                label_name = label or next((name for name in LABELS if name in names), None)
                sample = _Sample(path, example, feature, shape, label_name)
            where = f"{path}: record {number}"
            waiting.append(sample.of(example, number, path))
            if label_name is not None:
                labels.append(_label(example, label_name, where))
            if len(waiting) == TOGETHER:
                kept.add(np.stack(waiting))
                waiting = []
        counts.append(number)
    if sample is None:
        raise TfpruneError(f"{paths[0]}: expected at least one record, received none")
    if waiting:
        kept.add(np.stack(waiting))
    notes = [f"samples: feature {sample.name!r}"]
    if sample.resized:
        notes.append(f"{sample.resized:,} pictures brought to {sample.size[0]}x{sample.size[1]}")
    y, classes = None, tuple[str, ...]()
    if label_name is not None:
        y, classes = _numbers(paths[0], label_name, labels)
        notes.append(f"labels: feature {label_name!r}")
        if classes:
            shown = ", ".join(f"{n} {name!r}" for n, name in enumerate(classes[:NAMED]))
            notes.append(f"labels are text, sorted into {len(classes)} classes: {shown}")
    return Table(kept.rows(), y, classes, tuple(notes), tuple(counts))


def _lengths(path: Path) -> Iterator[int]:
    """The length of each record; refuses lengths that the file has not, before room is made."""
    try:
        size = path.stat().st_size if path.is_file() else -1
        with path.open("rb") as file:
            if size < 0:
                raise TfpruneError(f"{path}: expected a readable file, received a folder or a pipe")
            at, number = 0, 0
            while at < size:
                file.seek(at)
                head = file.read(HEAD)
                if head[:2] == GZIP and not at:
                    raise TfpruneError(f"{path}: it is compressed by gzip; unpack it: gunzip")
                number += 1
                length = struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else size
                at += HEAD + length + TAIL
                if at > size:
                    raise TfpruneError(f"{path}: record {number}: cut short, or no record at all")
                yield length
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None


def _examples(path: Path) -> Iterator[tuple[int, Any]]:
    """The records as messages, counted from 1."""
    import tensorflow as tf

    for _ in _lengths(path):
        pass
    number = 0
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    while True:
        number += 1
        try:
            record = next(records)
            example = tf.train.Example.FromString(record)
        except StopIteration:
            return
        except Exception as error:  # A check sum that is wrong, or other messages.
            why = type(error).__name__.removesuffix("Error")
            raise TfpruneError(
                f"{path}: record {number}: expected a tf.train.Example, received something else "
                f"({why})"
            ) from None
        yield number, example


def _values(example: Any, name: str) -> Any:
    """What a feature holds, as a list; empty if it is not there."""
    feature = example.features.feature.get(name)
    kind = None if feature is None else feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else []


class _Sample:
    """Makes arrays of records; the first one says what they hold."""

    def __init__(
        self,
        path: Path,
        example: Any,
        feature: str | None,
        shape: Shape | None,
        label: str | None = None,
    ) -> None:
        there = sorted(example.features.feature)
        others = [name for name in there if name not in (label, *LABELS)]
        known = [name for name in FEATURES if name in there]
        name = feature or (known or (others if len(others) == 1 else [""]))[0]
        if name not in there:
            listed = ", ".join(there[:NAMED]) + (", ..." if len(there) > NAMED else "")
            asked = f"--feature {feature}: no such feature" if feature else "which feature is it?"
            raise TfpruneError(f"{path}: {asked} --feature NAME, one of {listed or 'none'}")
        self.name, self._path, self.resized = name, path, 0
        values = _values(example, name)
        self.size: tuple[int, int] = (0, 0)
        self._open = False
        if len(values) == 1 and isinstance(values[0], bytes):
            self._picture(path, values[0], shape)
        self._length = len(values)

    def _picture(self, path: Path, content: bytes, shape: Shape | None) -> None:
        if shape is not None and (
            len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (*MODES, None))
        ):
            raise TfpruneError(
                f"{path}: expected a model of pictures (height, width, channels), the model takes "
                f"{shape}"
            )
        try:
            with opened(io.BytesIO(content)) as image:
                size, grey = (image.height, image.width), image.mode in ("1", "L")
        except Exception as error:
            raise TfpruneError(f"{path}: record 1: {self.name!r} is no picture ({error})") from None
        wanted = (None, None) if shape is None else shape[:2]
        self._open = None in wanted
        self.size = (wanted[0] or size[0], wanted[1] or size[1])
        self._axis = shape is None or len(shape) == 3
        given = shape[2] if shape is not None and len(shape) == 3 else None
        self._channels = given or (1 if grey or not self._axis else 3)

    def of(self, example: Any, number: int, path: Path | None = None) -> Array:
        """A record's sample."""
        where = f"{path or self._path}: record {number}"
        values = _values(example, self.name)
        if len(values) != self._length or not values:
            raise TfpruneError(
                f"{where}: expected {self._length} values of {self.name!r}, received {len(values)}"
            )
        is_bytes = isinstance(values[0], bytes)
        if is_bytes != any(self.size):
            raise TfpruneError(f"{where}: {self.name!r} is no list of numbers, or no picture")
        if not is_bytes:
            return np.asarray(values, np.float32 if isinstance(values[0], float) else np.int64)
        try:
            pixels = decoded(io.BytesIO(values[0]), self._channels)
        except Exception as error:  # Damaged pictures fail in Pillow in many ways.
            why = " ".join(str(error).split())[:80] or type(error).__name__
            raise TfpruneError(f"{where}: {self.name!r} cannot be read ({why})") from None
        if pixels.shape[:2] != self.size:
            if self._open:
                raise TfpruneError(
                    f"{where}: expected pictures of one size, as the model leaves it open, "
                    f"received {self.size} and {pixels.shape[:2]}"
                )
            self.resized += 1
            pixels = resized(pixels, self.size)
        return pixels if self._axis else pixels[..., 0]


def _label(example: Any, name: str, where: str) -> Any:
    values = list(_values(example, name))
    if not values:
        there = ", ".join(sorted(example.features.feature)[:NAMED])
        raise TfpruneError(f"{where}: it has no label {name!r}; it has {there or 'nothing'}")
    return values if len(values) > 1 else values[0]


def _numbers(path: Path, name: str, labels: Sequence[Any]) -> tuple[Array, tuple[str, ...]]:
    """Labels as numbers, and what text they were."""
    if all(isinstance(one, bytes) for one in labels):
        text = [one.decode("utf-8", "backslashreplace") for one in labels]
        classes, y = np.unique(text, return_inverse=True)
        return y.astype(np.int64), tuple(map(str, classes))
    try:
        y = np.array(labels)
        if y.dtype.kind not in "iuf":
            raise ValueError
    except ValueError:
        raise TfpruneError(
            f"{path}: expected labels {name!r} of one kind, numbers or text, received several"
        ) from None
    return y, ()
