"""The stages that commands tell on stderr: each once, in order, of the right total."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.cli import export, inspection, sweep
from tfprune.job.config import JobConfig
from tfprune.job.stages import planned

COMMANDS = {"export": export, "sweep": sweep, "inspect": inspection}
FIRST, LAST = ["model and data", "activations"], ["converting", "latency", "testing"]


@pytest.fixture(scope="module")
def own(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("stages")
    rng = np.random.default_rng(seed)
    layers = [keras.Input((5,)), kl.Dense(12, "relu", name="hidden"), kl.Dense(3, name="out")]
    fill(keras.Sequential(layers), rng).save(folder / "own.keras")
    x = rng.normal(0, 1, (300, 5)).astype("float32")
    np.savez(folder / "own.npz", x=x, y=rng.integers(0, 3, 300))
    return folder


def command(own, capfd, name, *words):
    """What a command writes to stdout, and its stages; neither stream is a terminal."""
    argv = ["--model", own / "own.keras", "--data", own / "own.npz", *words]
    with warnings.catch_warnings():  # The command sets its own filters.
        code = COMMANDS[name].main([str(word) for word in argv], f"tools.{name}")
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "\r" not in err
    assert "%|" not in err
    assert not re.search(r"^\d+ of \d+: ", out, re.M)
    return out, re.findall(r"^(\d+) of (\d+): (.*)$", err, re.M)


def numbered(names):
    return [(str(n), str(len(names)), name) for n, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    ("words", "between"),
    [
        ((), []),
        (("--remove", "50%", "--heal", "2"), ["selection", "reconstruction", "healing"]),
        (("--target-params", "60%", "--refit", "0"), ["budget"]),
    ],
)
def test_export(own, tmp_path, capfd, words, between):
    words = (*words, "--schemes", "float32", "--output", tmp_path)
    out, stages = command(own, capfd, "export", *words)
    assert stages == numbered([*FIRST, *between, *LAST])
    assert out.startswith("data: own; ")


def test_sweep_and_inspect(own, tmp_path, capfd):
    words = ("--quick", "--selections", "effect", "--folds", "drop", "--refit", "0")
    for _ in range(2):  # Also where all was measured before.
        more = ("--schemes", "float32", "--output", tmp_path)
        _, stages = command(own, capfd, "sweep", *words, *more)
        assert stages == numbered([*FIRST, "sweep"])
    out, stages = command(own, capfd, "inspect")
    assert stages == numbered([*FIRST, "sensitivity", "recommendation"])
    assert out.startswith("own")


@pytest.mark.parametrize(
    ("options", "between"),
    [
        ({"prune": 20, "refit": 5}, ["reconstruction"]),
        ({"remove": 0.5, "fold": "drop"}, ["selection"]),
        ({"target_bytes": 0.5}, ["budget", "reconstruction"]),
        ({"max_drop": 1.0, "heal": 3}, ["search"]),
        ({"heal": 3, "finetune": 2}, ["healing", "fine-tuning"]),
        ({"heal": 3, "schemes": ("int4",)}, ["healing", "healing at 4 bits"]),
        (
            {"heal": 3, "sparsity": 0.5, "qat": 2, "schemes": ("int4", "int8")},
            ["healing", "compression", "quantisation-aware training"],
        ),
    ],
)
def test_what_is_planned_follows_from_the_options(options, between):
    config = JobConfig(dataset="digits", **options).validate()
    assert planned(config) == [*FIRST, *between, *LAST]
    board = JobConfig(dataset="digits", schemes=("int8",), device="raspberry-pi-pico").validate()
    assert planned(board) == [*FIRST, LAST[0], "memory", *LAST[1:]]
