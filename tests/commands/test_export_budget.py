"""``tools.export --target-...`` and ``--max-drop``: budgets in place of degrees."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tests.support.graphs import fill
from tfprune.data import sources, splits
from tfprune.job.halving import TRIES
from tfprune.tflite.interpreter import LiteModel


@pytest.fixture(scope="module")
def own(tmp_path_factory, seed):
    """A model with every hidden unit twice, and data whose labels are what it decides.

    So half of the units can go at no loss, and much more cannot.
    """
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(seed)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            kl.Dense(40, activation="relu", name="first"),
            kl.Dense(40, activation="relu", name="second"),
            kl.Dense(4, name="out"),
        ]
    )
    fill(model, rng)
    for name in ("first", "second"):
        kernel, bias = model.get_layer(name).get_weights()
        kernel[:, 20:], bias[20:] = kernel[:, :20], bias[:20]
        model.get_layer(name).set_weights([kernel, bias])
    x = rng.standard_normal((6000, 10)).astype("float32")
    outputs = model.predict(x, verbose=0)
    # Decisions that rounding to 8 bits does not change.
    second, first = np.sort(outputs, axis=1)[:, -2:].T
    clear = np.flatnonzero(first - second > 0.3 * outputs.std())[:2400]
    assert len(clear) == 2400
    x, outputs = x[clear], outputs[clear]
    model.save(folder / "own.keras")
    np.savez(folder / "own.npz", x=x, y=outputs.argmax(axis=1))
    np.savez(folder / "values.npz", x=x, y=outputs)
    return folder


def export(own, folder, capfd, *words, schemes="float32", data="own.npz"):
    return run(
        ["--model", own / "own.keras", "--data", own / data, "--schemes", schemes,
         "--refit", 0, "--output", folder, *words], capfd,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "amount", "name"),
    [("params", "50%", "params50"), ("macs", "900", "macs900"), ("bytes", "7000", "bytes7000")],
)
def test_a_budget_is_met_and_told(own, tmp_path, capfd, flag, amount, name):
    code, out, err = export(own, tmp_path, capfd, f"--target-{flag}", amount)
    assert code == 0, err
    told = json.loads((tmp_path / "manifest.json").read_text())
    budget = told["prune"]["budget"]
    assert told["prune"]["threshold_degrees"] is None
    small = keras.models.load_model(tmp_path / f"own_{name}.keras")
    first, second = (small.get_layer(layer).units for layer in ("first", "second"))
    kernels = 10 * first + first * second + second * 4
    file = tmp_path / f"own_{name}_float32.tflite"
    reached = {
        "params": kernels + first + second + 4, "macs": kernels, "bytes": file.stat().st_size
    }[flag]  # fmt: skip
    assert budget["reached"] == reached <= budget["limit"]
    assert f"reached {reached:,} of {budget['whole']:,}" in out
    assert "one unit more makes" in out


def test_the_drop_is_that_of_the_file_on_held_out_data(own, tmp_path, capfd):
    code, _, err = export(own, tmp_path, capfd, "--max-drop", "1.5", schemes="int8,float32")
    assert code == 0, err
    told = json.loads((tmp_path / "manifest.json").read_text())["prune"]
    tried = told["tried"]
    assert told["max_drop"] == 1.5
    assert 2 <= len(tried) <= TRIES
    assert [one["fits"] for one in tried] == [one["drop"] <= 1.5 for one in tried]
    assert err.count("fits\n") + err.count("too much\n") == len(tried)
    assert f"stopped after {len(tried)} tries; the smallest that fits has" in err
    best = min((one for one in tried if one["fits"]), key=lambda one: one["parameters"])
    assert f" is known to ± {best['margin']:.2f} on" in err
    samples = json.loads((tmp_path / "manifest.json").read_text())["dataset"]["validation"]
    for one in tried:
        assert one["margin"] >= 200 / samples - 1e-4  # Never sure to the last answer.
        # Back to the answers that changed: a whole number, at least those that were lost.
        lost, spread = one["drop"] / 100, one["margin"] / 200
        changed = samples * (samples * spread**2 + lost**2)
        assert abs(changed - round(changed)) < 0.05
        assert round(changed) >= abs(round(samples * lost))
    # The copies can go at no loss; so a try with room for the others fits.
    copies_gone = (10 * 20 + 20) + (20 * 20 + 20) + (20 * 4 + 4)
    roomy = [one for one in tried if one["parameters"] >= copies_gone]
    assert all(one["fits"] for one in roomy)
    small = keras.models.load_model(tmp_path / "own_drop1.5.keras")
    assert small.count_params() == best["parameters"]
    file = tmp_path / "own_drop1.5_int8.tflite"
    assert file.stat().st_size == best["bytes"]
    # The file again, on the samples that the project's split holds back: found by their number.
    with np.load(own / "own.npz") as data:
        x = data["x"]
    raw = sources.load("auto", str(own / "own.npz"), 0, lambda line: None, inputs=["input_layer"])
    held = splits.prepare(raw, "auto", None, 10_000, 0).validation
    assert len(held) < len(x) / 5
    assert all((sample == x).all(axis=1).any() for sample in held.arrays[0])
    right = LiteModel(file.read_bytes()).predict(held.arrays)[0].argmax(1) == held.y
    whole = keras.models.load_model(own / "own.keras").predict(held.arrays[0], verbose=0)
    drop = 100 * (np.mean(whole.argmax(1) == held.y) - np.mean(right))
    assert best["drop"] == pytest.approx(drop, abs=1e-3)


@pytest.mark.slow
def test_workers_write_what_one_process_writes(own, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("tfprune.job.halving.TRIES", 3)
    told = []
    for name, more in (("alone", []), ("shared", ["--workers", 2])):
        code, _, err = run(
            ["--model", own / "own.keras", "--data", own / "own.npz", "--max-drop", 1.5,
             "--schemes", "int8", "--refit", 2, "--heal", 1, "--output", tmp_path / name, *more],
            capfd,
        )  # fmt: skip
        assert code == 0, err
        prune = json.loads((tmp_path / name / "manifest.json").read_text())["prune"]
        said = [line for line in err.splitlines() if "max-drop" in line]
        told.append((prune, said))
    assert told[0] == told[1]
    assert any(one["fits"] for one in told[0][0]["tried"])
    for file in ("own_int8.tflite", "own_drop1.5_int8.tflite"):
        alone, shared = (tmp_path / name / file for name in ("alone", "shared"))
        assert alone.read_bytes() == shared.read_bytes()
    models = [
        keras.models.load_model(tmp_path / name / "own_drop1.5.keras")
        for name in ("alone", "shared")
    ]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_in_which_nothing_can_go_is_told(tmp_path, capfd):
    model = keras.Sequential([keras.Input((10,)), kl.Dense(4, name="out")])
    model.save(tmp_path / "single.keras")
    x = np.random.default_rng(0).standard_normal((200, 10)).astype("float32")
    np.savez(tmp_path / "own.npz", x=x, y=model.predict(x, verbose=0).argmax(axis=1))
    words = ["--model", tmp_path / "single.keras", "--data", tmp_path / "own.npz"]
    code, _, err = run([*words, "--max-drop", 1, "--output", tmp_path / "made"], capfd)
    assert code == 2
    assert "--max-drop: nothing can go (out: output layer)" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--prune", "30", "--target-params", "50%"], "--prune and --target-params: expected one"),
        (["--max-drop", "1", "--remove", "50%"], "--remove and --max-drop: expected one of them"),
        (["--target-params", "0"], "--target-params: expected a share such as 50%"),
        (["--target-bytes", "20k"], "--target-bytes: expected a share such as 50%"),
        (["--target-macs", "50%", "--select", "span"], "--select: a budget knows effect only"),
        (["--max-drop", "1", "--select", "span"], "--select: --max-drop knows effect only"),
        (
            ["--max-drop", "1", "--fold", "scaled"],
            "--fold: expected least-squares or drop with --max-drop",
        ),
        (["--max-drop", "-1"], "--max-drop: expected percent points from 0 to 100"),
        (["--target-params", "10"], "--target-params: 10 parameters cannot be reached; the least"),
    ],
)
def test_mistakes_are_one_line(own, tmp_path, capfd, words, complaint):
    code, _, err = export(own, tmp_path / "made", capfd, *words)
    assert code == 2
    assert complaint in err
    assert not (tmp_path / "made").exists()


def test_points_need_classes(own, tmp_path, capfd):
    code, _, err = export(own, tmp_path / "made", capfd, "--max-drop", "1", data="values.npz")
    assert code == 2
    assert "expected data with labels of classes" in err


def test_a_drop_that_cannot_be_held_names_the_least(own, tmp_path, capfd, monkeypatch):
    """One try, which is at a tenth of the parameters."""
    monkeypatch.setattr("tfprune.job.halving.TRIES", 1)
    code, _, err = export(own, tmp_path / "made", capfd, "--max-drop", "0")
    assert code == 2
    assert "points cannot be held" in err
    assert "the least drop of 1 tries" in err
