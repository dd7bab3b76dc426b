"""Keras' own data sets by name: as Keras loads them, or a line that says where they have to lie."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from tfprune.data.keras_data_sets import KERAS_DATA, load_keras
from tfprune.errors import TfpruneError


@pytest.mark.parametrize("name", KERAS_DATA)
def test_what_cannot_be_had_says_where_it_has_to_lie(name, monkeypatch, tmp_path):
    def fails(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(f"keras.src.datasets.{name}.get_file", fails)
    with pytest.raises(TfpruneError, match=f"--dataset {name}: not on this machine") as caught:
        load_keras(name, 0, tmp_path, 1.0)
    message = str(caught.value)
    assert "(no network)" in message
    assert str(tmp_path / "datasets" / KERAS_DATA[name].split("/")[0]) in message


def test_what_lies_in_the_cache_is_read(monkeypatch, tmp_path, rng):
    folder = tmp_path / "datasets"
    folder.mkdir()
    arrays = {}
    for stem, count in (("train", 30), ("t10k", 10)):
        arrays[stem] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        for kind, head, data in (
            ("labels-idx1", 8, np.arange(count, dtype=np.uint8)),
            ("images-idx3", 16, arrays[stem]),
        ):
            with gzip.open(folder / f"{stem}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes(head) + data.tobytes())
    monkeypatch.setattr(
        "keras.src.datasets.fashion_mnist.get_file", lambda name, **_: folder / name
    )
    raw = load_keras("fashion_mnist", 0, tmp_path, 5.0)
    np.testing.assert_array_equal(raw.train.x, arrays["train"])
    np.testing.assert_array_equal(raw.test.x, arrays["t10k"])
    np.testing.assert_array_equal(raw.test.y, np.arange(10))
