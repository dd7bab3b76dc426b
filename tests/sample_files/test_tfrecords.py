"""Records are the same samples as in an ``.npz``; those of strangers are refused in a line."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from tests.support.records import message, png, write
from tfprune.data import files, sources
from tfprune.errors import TfpruneError
from tfprune.utils.streamed import StreamedArray

COUNT = 30


def load(path, **how):
    return sources.load("auto", str(path), 3, print, **{"shape": None, **how})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["models", "datasets", "numbers", "text"])
def test_records_are_the_same_data(tmp_path, rng, monkeypatch, kind, stream):
    x = rng.integers(0, 256, (COUNT, 8, 6, 3), np.uint8)
    y = rng.integers(0, 3, COUNT)
    how = {"shape": (8, 6, 3)}
    if kind == "models":
        records = [
            message(image__encoded=png(one), image__class__label=label)
            for one, label in zip(x, y, strict=True)
        ]
    elif kind == "datasets":
        records = [
            message(image=png(one), label=label, file_name="x")
            for one, label in zip(x, y, strict=True)
        ]
    else:
        x = rng.normal(size=(COUNT, 8, 6, 3)).astype(np.float32)
        named = [str(b) if kind == "text" else b for b in y]
        records = [
            message(values=one, kind=label, other=1.0) for one, label in zip(x, named, strict=True)
        ]
        how |= {"feature": "values", "label": "kind"}
    write(tmp_path / "a.tfrecord-00000-of-00002", records[:10])
    write(tmp_path / "a.tfrecord-00001-of-00002", records[10:])
    np.savez(tmp_path / "same.npz", x=x, y=y)
    expected = load(tmp_path / "same.npz", inputs=("x",))
    if stream:
        monkeypatch.setattr(files, "most_held", lambda: 100)
    raw = load(tmp_path / "a.tfrecord*", **how)
    assert isinstance(raw.train.x, StreamedArray) == stream
    assert raw.classes == (("0", "1", "2") if kind == "text" else ())
    for ours, theirs in ((raw.train, expected.train), (raw.test, expected.test)):
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)


def damaged(path, kind):
    """A file of a stranger, and what is said of it."""
    good = [message(values=[1.0, 2.0], label=n % 2) for n in range(6)]
    if kind == "check sum":
        content = bytearray(write(path, good).read_bytes())
        content[-8] ^= 255
        path.write_bytes(content)
        return "record 6: expected a tf.train.Example"
    if kind == "cut":
        path.write_bytes(write(path, good).read_bytes()[:-9])
        return "record 6: cut short"
    if kind == "length":
        path.write_bytes(struct.pack("<Q", 2**62) + bytes(100))
        return "record 1: cut short"
    if kind == "gzip":
        path.write_bytes(gzip.compress(write(path, good).read_bytes()))
        return "unpack it: gunzip"
    records, said = {
        "empty": ([], "expected at least one record"),
        "other": ([*good, b"\xff\xff\xff"], "record 7: expected a tf.train.Example"),
        "ragged": ([*good, message(values=[1.0], label=0)], "record 7: expected 2 values"),
        "unlabelled": ([*good, message(values=[1.0, 2.0])], "record 7: it has no label 'label'"),
        "mixed": ([*good, message(values=[1.0, 2.0], label="a")], "labels 'label' of one kind"),
        "several": ([message(a=1.0, b=2.0)], "which feature is it? --feature NAME, one of a, b"),
        "picture": ([message(image=b"no")], "record 1: 'image' is no picture"),
    }[kind]
    write(path, records)
    return said


@pytest.mark.parametrize(
    "kind",
    [
        "check sum", "cut", "length", "gzip", "empty", "other", "ragged", "unlabelled", "mixed",
        "several", "picture",
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_told(tmp_path, kind):
    said = damaged(tmp_path / "x.tfrecord", kind)
    with pytest.raises(TfpruneError) as failed:
        load(tmp_path / "x.tfrecord")
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
