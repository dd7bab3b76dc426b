"""``tools.export --remove``: a share of units in place of degrees."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import fill


@pytest.fixture
def own(tmp_path, rng):
    layers = [keras.Input((5,)), kl.Dense(12, "relu", name="hidden"), kl.Dense(3, name="out")]
    fill(keras.Sequential(layers), rng).save(tmp_path / "own.keras")
    x = rng.normal(0, 1, (300, 5)).astype("float32")
    np.savez(tmp_path / "own.npz", x=x, y=rng.integers(0, 3, 300))
    return tmp_path


def export(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "tools.export", "--model", str(folder / "own.keras"), "--data",
         str(folder / "own.npz"), "--schemes", "float32", "--output", str(folder / "made"), *words],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def test_the_share_goes_and_is_told(own):
    done = export(own, "--remove", "25%", "--select", "span", "--refit", "5")
    assert done.returncode == 0, done.stderr
    assert "3 in the span of the others" in done.stdout
    manifest = json.loads((own / "made" / "manifest.json").read_text())
    told = manifest["prune"]
    assert (told["remove"], told["select"], told["refit"]) == (0.25, "span", 5)
    assert told["threshold_degrees"] is None
    assert told["layers"][0]["units_after"] == 9
    names = {entry["file"] for entry in manifest["artifacts"]}
    assert names == {"own_float32.tflite", "own_remove25_float32.tflite"}
    small = keras.models.load_model(own / "made" / "own_remove25.keras")
    assert small.get_layer("hidden").units == 9


def test_widths_are_multiples_where_asked(own):
    done = export(own, "--remove", "25%", "--round-to", "8", "--refit", "0")
    assert done.returncode == 0, done.stderr
    told = json.loads((own / "made" / "manifest.json").read_text())["prune"]
    assert (told["remove"], told["round_to"]) == (0.25, 8)
    small = keras.models.load_model(own / "made" / "own_remove25.keras")
    assert small.get_layer("hidden").units == told["layers"][0]["units_after"] == 8
    page = (own / "made" / "report.html").read_text()
    assert "widths are multiples of" in page


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--prune", "30", "--remove", "50%"], "--prune and --remove: expected one of them"),
        (["--remove", "50"], "--remove: expected a share between 0 and 1"),
        (["--remove", "100%"], "--remove: expected a share between 0 and 1"),
        (["--remove", "half"], "--remove: expected a share between 0 and 1"),
        (["--remove", "50%", "--fold", "scaled"], "--fold: expected least-squares or drop"),
        (["--select", "effect"], "--select effect: needs a share to remove"),
        (["--round-to", "1"], "--round-to: expected a whole number from 2 to 1024, such as 8"),
        (["--refit", "-1"], "--refit: expected a whole number from 0"),
    ],
)
def test_mistakes_are_one_line(own, words, complaint):
    done = export(own, *words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (own / "made").exists()
