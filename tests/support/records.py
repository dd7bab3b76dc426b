"""Writes ``.tfrecord`` files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image


def feature(value: Any) -> tf.train.Feature:
    """A feature of text or bytes, or of numbers."""
    if isinstance(value, (bytes, str)):
        value = value.encode() if isinstance(value, str) else value
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    value = np.atleast_1d(value)
    if value.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=value.ravel()))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value.ravel()))


def message(**features: Any) -> bytes:
    """A record of features by their names, in which ``__`` stands for a slash."""
    made = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return bytes(tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString())


def write(path: Path, records: Iterable[bytes]) -> Path:
    """A file of records."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def png(pixels: Any) -> bytes:
    """A picture as a file's content."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()
