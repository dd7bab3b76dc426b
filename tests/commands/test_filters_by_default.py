"""The commands on a model that has no hidden Dense layer, without ``--layers``."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tests.support.graphs import fill
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import grid
from tfprune.sweep.runner import run as sweep

LINE = "layers: all, so filters too, as the model has no hidden Dense layer that can lose units"


@pytest.fixture(scope="module")
def own(tmp_path_factory, seed):
    """A folder with a model of convolutions and its data."""
    folder = tmp_path_factory.mktemp("filters")
    rng = np.random.default_rng(seed)
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), kl.Conv2D(6, 3, activation="relu", name="conv"),
         kl.GlobalAveragePooling2D(), kl.Dense(3, name="out")]
    )  # fmt: skip
    fill(model, rng).save(folder / "own.keras")
    np.savez(folder / "own.npz", x=rng.normal(0, 1, (80, 8, 8, 2)).astype("float32"))
    return folder


def test_export_takes_filters_and_says_so(own, tmp_path, capfd):
    argv = ["--model", own / "own.keras", "--data", own / "own.npz", "--schemes", "float32"]
    code, out, err = run([*argv, "--remove", "50%", "--output", tmp_path], capfd)
    assert code == 0, err
    assert out.split("\n").count(LINE) == 1
    assert err.split("\n").count(f"tfprune: {LINE}") == 1
    (layer,) = json.loads((tmp_path / "manifest.json").read_text())["prune"]["layers"]
    assert (layer["name"], layer["units_before"], layer["units_after"]) == ("conv", 6, 3)
    code, out, err = run([*argv, "--layers", "dense", "--output", tmp_path / "dense"], capfd)
    assert LINE not in out + err
    assert "filters too, " in err


def test_a_sweep_goes_on_from_what_was_asked_for_by_name(own, tmp_path):
    config = SweepConfig(
        model=str(own / "own.keras"), data=str(own / "own.npz"), output=str(tmp_path / "out"),
        schemes=("float32",), selections="effect", shares="50%", degrees="none", folds="drop",
        refit="0", layers="all",
    )  # fmt: skip
    before = sweep(grid(config), ["sweep"], [].append)
    said: list[str] = []
    after = sweep(grid(replace(config, layers=None)), ["sweep"], said.append)
    assert said.count(LINE) == 1
    assert [row.bytes for row in after.rows] == [row.bytes for row in before.rows]
    assert len((tmp_path / "out" / "sweep.jsonl").read_text().splitlines()) == len(before.rows) == 2
