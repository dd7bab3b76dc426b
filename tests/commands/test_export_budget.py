"""``tools.export --target-...`` and ``--max-drop``: budgets in place of degrees."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as kl

from tests.support.commands import run
from tests.support.graphs import fill
from tfprune.data import sources, splits
from tfprune.job.drop_search import TRIES, halving
from tfprune.job.records import Tried
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


@given(st.integers(2, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_halving_ends_near_the_border(whole, least_share, border_share):
    least = max(1, int(whole * least_share))
    border = least * (whole / least) ** border_share
    limits = []

    def attempt(limit):
        limits.append(limit)
        return Tried(limit, limit, 0.0, limit >= border)

    tried = halving(attempt, whole, least)
    assert len(tried) <= TRIES
    assert all(least <= limit <= whole for limit in limits)
    fitting = [one.parameters for one in tried if one.fits]
    failing = [one.parameters for one in tried if not one.fits]
    high, low = min([whole, *fitting]), max([least, *failing])
    # What is left to know halves with every try.
    assert math.log(high / low) <= math.log(whole / least) / 2 ** (len(tried) - 1) + 2 / low


@given(st.sets(st.integers(10, 10_000), min_size=2, max_size=20), st.integers(0, 19))
def test_no_model_is_tried_twice(sizes, border):
    sizes = sorted(sizes)
    least_that_fits = sizes[min(border, len(sizes) - 1)]

    def attempt(limit):
        place = max(n for n, size in enumerate(sizes) if size <= limit)
        larger = sizes[place + 1] if place + 1 < len(sizes) else None
        return Tried(sizes[place], 0, 0.0, sizes[place] >= least_that_fits, larger)

    tried = [one.parameters for one in halving(attempt, sizes[-1], sizes[0])]
    assert len(set(tried)) == len(tried)
    if len(tried) < TRIES:
        assert least_that_fits in (*tried, sizes[0], sizes[-1])


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
        (["--target-params", "10"], "(--layers all may reach more)"),
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
    monkeypatch.setattr("tfprune.job.drop_search.TRIES", 1)
    code, _, err = export(own, tmp_path / "made", capfd, "--max-drop", "0")
    assert code == 2
    assert "points cannot be held" in err
    assert "the least drop of 1 tries" in err
