"""``python -m tools.inspect`` as its user meets it."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import fill
from tests.support.paths import ROOT
from tfprune.cli.flags import read
from tfprune.job.config import JobConfig

# Not by an import statement: the folder has no __init__.py.
inspect = importlib.import_module("tools.inspect.__main__").main


@pytest.fixture(scope="module")
def home(tmp_path_factory, seed):
    """A folder with a model and data, names with a blank in them, and labels."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(seed)
    model = keras.Sequential(
        [keras.Input((6,)), kl.Dense(12, "relu", name="hidden"), kl.Dense(3, name="out")]
    )
    fill(model, rng).save(folder / "my model.keras")
    x = rng.normal(size=(300, 6)).astype("float32")
    np.savez(folder / "my data.npz", x=x, y=model.predict(x, verbose=0).argmax(axis=1))
    return folder


def call(capfd, *words):
    with warnings.catch_warnings():  # The command sets its own filters.
        code = inspect([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_without_data_it_starts_without_any(home):
    done = subprocess.run(
        [sys.executable, "-m", "tools.inspect", str(home / "my model.keras")],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    parameters = 6 * 12 + 12 + 12 * 3 + 3
    assert done.stdout.startswith(f"my model: {parameters} parameters, {6 * 12 + 12 * 3} ")
    assert re.search(rf"(?m)^total +{parameters} +108 +168$", done.stdout)
    assert "+- hidden (dense, 12 units)\n|  +- consumed by out\n" in done.stdout
    line = done.stdout.splitlines()[-1]
    words = shlex.split(line.removeprefix("next: "), comments=True)
    assert words[:3] == ["python", "-m", "tools.inspect"]
    assert words[3:] == ["--model", str(home / "my model.keras"), "--data", "PATH"]


@pytest.mark.parametrize("ending", ["html", "png"])
def test_with_data_it_measures_writes_and_recommends(home, tmp_path, capfd, ending):
    file = tmp_path / f"found.{ending}"
    data = ("--model", home / "my model.keras", "--data", home / "my data.npz")
    code, out, err = call(capfd, *data, "--seed", 3, "--out", file)
    assert code == 0, err
    assert "Sensitivity: accuracy in % on " in out
    start = b"<!DOCTYPE html>" if ending == "html" else b"\x89PNG"
    assert file.read_bytes().startswith(start)

    line = out.splitlines()[-1]
    words = shlex.split(line.removeprefix("next: "), comments=True)
    assert words[:3] == ["python", "-m", "tools.export"]
    config = read(JobConfig, words[3:], "export").validate()
    assert (config.model, config.data) == (str(data[1]), str(data[3]))
    assert (config.seed, config.layers) == (3, ("all",))
    assert (config.prune is None) != (config.remove is None)
    assert re.search(r"  # expect [\d,]+ parameters in place of 123 \(", line)


def test_json_is_what_the_function_returns(home, capfd):
    code, out, _ = call(capfd, home / "my model.keras", "--json")
    found = json.loads(out)
    assert (code, found["parameters"], found["macs"], found["measured"]) == (0, 123, 108, None)


def test_a_terminal_that_knows_no_blocks_gets_others(home):
    words = [home / "my model.keras", "--data", home / "my data.npz"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.inspect", *map(str, words)], capture_output=True, cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "(. 1, : 3, * 10, # 20 points lost or more)" in done.stdout.decode("ascii")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.keras"], "nowhere.keras"),
        (["model.txt"], "--model: expected cnn, "),
        (["a.keras", "b.keras"], "stray word 'b.keras'"),
        (["a.keras", "--dat", "x"], "unknown flag --dat; did you mean --data?"),
        (["a.keras", "--out", "found.txt"], "--out: expected a file's name that ends in .html, "),
        (["a.keras", "--out", "no/found.html"], "--out: there is no folder 'no'; make it first"),
        (["a.keras", "--out", "found.png"], "--out: found.png would show the scores with units "),
        (["a.keras", "--layers", "hidden", "--skip", "hidden"], "--layers and --skip both name"),
    ],
)
def test_a_mistake_is_a_line(words, said, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capfd, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tools.inspect: ")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_one_answer_for_all_asks_for_the_range_before_anything_is_recommended(tmp_path, rng, capfd):
    """The first class is the answer wherever values are below 1."""
    hidden = keras.layers.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(2, "softmax")])
    hidden.set_weights([rng.uniform(0.5, 1, (6, 8)), np.zeros(8)])
    model.layers[-1].set_weights([np.tile([[-1.0, 1.0]], (8, 1)), np.array([3000.0, -3000.0])])
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=rng.integers(0, 256, (300, 6), np.uint8))
    data = ("--model", tmp_path / "model.keras", "--data", tmp_path / "x.npz")
    code, out, err = call(capfd, *data)
    assert code == 0, err
    assert "does the model take another range? --scale none" in err
    words = shlex.split(out.splitlines()[-1].removeprefix("next: "), comments=True)
    assert words[:3] == ["python", "-m", "tools.inspect"]
    assert words[-2:] == ["--scale", "none"]
    code, out, err = call(capfd, *data, "--scale", "none")
    assert "another range" not in err
    assert shlex.split(out.splitlines()[-1].removeprefix("next: "))[2] == "tools.export"
