"""``export`` of streamed data does what it does with data in memory."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tfprune.data import files, scales, splits
from tfprune.tflite import interpreter
from tfprune.training import soft_targets
from tfprune.utils import streamed
from tfprune.utils.streamed import StreamedArray

SAME = ("file", "accuracy", "agreement", "parameters", "bytes")


@pytest.fixture
def pair(tmp_path, rng):
    """A model of small pictures, and labelled samples in a file."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([
        keras.Input((6, 5, 1), name="picture"),
        kl.Conv2D(6, 3, activation="relu"),
        kl.Flatten(),
        kl.Dense(12, "relu"),
        kl.Dense(3, "softmax"),
    ])  # fmt: skip
    x = rng.integers(0, 256, (400, 6, 5), np.uint8)
    y = model.predict(x[..., None] / 255, verbose=0).argmax(axis=1)
    model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return "--model", tmp_path / "net.keras", "--data", tmp_path / "data.npz"


@pytest.fixture
def little_memory(monkeypatch):
    """A function after which nothing fits, and notes how much is read at once."""

    monkeypatch.setattr(interpreter, "RUNS", 3)

    def begin():
        read = []
        monkeypatch.setattr(scales, "AT_ONCE", 64)
        monkeypatch.setattr(soft_targets, "PREDICTED", 64)
        for module in (files, splits):
            monkeypatch.setattr(module, "most_held", lambda: 100 * 4 * 30)
        monkeypatch.setattr(streamed, "AT_ONCE", 64 * 4 * 30)
        whole = StreamedArray.__array__

        def noted(self, *how, **more):
            read.append(len(self))
            return whole(self, *how, **more)

        monkeypatch.setattr(StreamedArray, "__array__", noted)
        return read

    return begin


@pytest.mark.slow
def test_export_of_streamed_data(pair, tmp_path, capfd, little_memory):
    words = [*pair, "--remove", "50%", "--layers", "all", "--schemes", "float32", "--heal",
             "1", "--test-data", "5", "--calibration", "200", "--refit", "5"]  # fmt: skip
    assert run([*words, "--output", tmp_path / "whole"], capfd)[0] == 0
    read = little_memory()
    code, _, said = run([*words, "--output", tmp_path / "streamed"], capfd)
    assert code == 0 and "data: streamed: " in said
    # Of 400 samples; the most that is read at once are 256 of a byte a value.
    assert max(read) <= 256
    whole, ours = (
        json.loads((tmp_path / name / "manifest.json").read_text())
        for name in ("whole", "streamed")
    )
    for one, other in zip(ours["artifacts"], whole["artifacts"], strict=True):
        assert {key: one[key] for key in SAME} == {key: other[key] for key in SAME}
    assert ours["test_data"]["sha256"] == whole["test_data"]["sha256"]
    ((one,), (other,)) = ours["training"], whole["training"]
    assert [one["before"], one["after"]] == pytest.approx([other["before"], other["after"]], 1e-3)
