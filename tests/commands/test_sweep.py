"""``python -m tools.sweep`` as its user meets it, and what it is made of."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec

import keras
import numpy as np
import pytest

import tfprune
from tests.support.commands import run_litert
from tests.support.paths import ROOT
from tfprune.data.sources import digits
from tfprune.data.splits import prepare
from tfprune.errors import TfpruneError
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import grid
from tfprune.sweep.plot import picture
from tfprune.sweep.results_log import ResultsLog, Row
from tfprune.sweep.runner import run
from tfprune.sweep.tables import Sweep, to_csv, to_markdown
from tools.export import main as export
from tools.sweep import main as sweep

SEED = 3
GRID = (
    "--selections", "effect,angle", "--shares", "50%", "--degrees", "35", "--refit", "0,5",
    "--folds", "least-squares,outgoing", "--schemes", "float32,int8",
)  # fmt: skip
# Unpruned; at the share two selections, each without and with refitting; at the angle two folds.
POINTS = 1 + 4 + 2


def command(*words, cwd):
    return [sys.executable, "-m", "tools.sweep", *map(str, words)], {
        "cwd": cwd, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True,
    }  # fmt: skip


def call(*words, cwd):
    line, options = command(*words, cwd=cwd)
    return subprocess.run(line, capture_output=True, timeout=900, check=False, **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory, seed):
    """A folder with a small classifier of digits: random features, and what reads them fitted."""
    folder = tmp_path_factory.mktemp("sweep")
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dense(10, name="output"),
        ]
    )
    train = prepare(digits(SEED), "auto", None, 1, SEED).train
    features = keras.Model(model.inputs[0], model.get_layer("hidden").output)
    hidden = np.column_stack([features.predict(train.x, verbose=0), np.ones(len(train))])
    products = hidden.T.astype(float) @ hidden
    # A ridge, as large weights that cancel out would leave nothing of a file of 4 bits.
    products += 0.03 * products.trace() / len(products) * np.eye(len(products))
    fit = np.linalg.solve(products, hidden.T @ np.eye(10)[train.y])
    model.get_layer("output").set_weights([fit[:-1], fit[-1]])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    model.save(folder / "tiny.keras")
    return folder


def lines(folder):
    return (folder / "sweep.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def swept(home):
    """A sweep that was interrupted, gone on with, and mended: what each time left."""
    words = ("--model", "tiny.keras", "--dataset", "digits", "--seed", SEED, *GRID)
    line, options = command(*words, cwd=home)
    out = home / "sweep"
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as running:
        while not ((out / "sweep.md").is_file() and len(lines(out)) >= 5):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        printed = running.communicate(timeout=60)
    states = [(running.returncode, *printed, {p.name: p.read_bytes() for p in out.iterdir()})]
    for cut in (0, 40):
        # The second time the last line is cut off.
        with (out / "sweep.jsonl").open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) - cut)
        done = call(*words, cwd=home)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        states.append((done.returncode, done.stdout, done.stderr, files))
    return states


def test_an_interrupt_is_one_line_and_leaves_a_usable_state(swept):
    code, out, err, files = swept[0]
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        "tools.sweep: interrupted; what was measured is kept, and the same command goes on "
        "from there"
    )
    assert "Traceback" not in err
    assert f"{POINTS} points in float32, int8: {2 * POINTS} files" in err
    written = list(csv.DictReader(io.StringIO(files["sweep.csv"].decode())))
    kept = [json.loads(line) for line in files["sweep.jsonl"].decode().splitlines()]
    assert 4 <= len(written) <= len(kept) < 2 * POINTS
    assert re.search(rf"of {2 * POINTS} files measured, \d+ left", files["sweep.md"].decode())
    assert not [name for name in files if name.startswith(".")]


def test_a_resumed_sweep_measures_nothing_twice_but_a_line_that_was_cut_off(swept):
    before, after, again = (state[3]["sweep.jsonl"].decode() for state in swept)
    assert [state[0] for state in swept[1:]] == [0, 0]
    assert after.startswith(before)
    keys = [json.loads(line)["key"] for line in after.splitlines()]
    assert len(keys) == len(set(keys)) == 2 * POINTS
    count = len(before.splitlines())
    assert f"{2 * POINTS} files, {count} of them measured before" in swept[1][2]
    assert f"{2 * POINTS - 1} of them measured before" in swept[2][2]
    assert again == after
    assert swept[2][3] == swept[1][3]
    assert swept[2][1] == swept[1][1]


def test_the_csv_is_the_journal_and_marks_what_a_double_loop_finds(swept):
    files = swept[1][3]
    written = list(csv.DictReader(io.StringIO(files["sweep.csv"].decode())))
    kept = {row["key"]: row for row in map(json.loads, files["sweep.jsonl"].decode().splitlines())}
    assert len(written) == len(kept)
    for row in written:
        for name, value in kept[row["key"]].items():
            assert row[name] == ("" if value is None else str(value)), name
    figures = [(int(row["bytes"]), float(row["validation"])) for row in written]
    best = {
        (size, value)
        for size, value in figures
        if not any((s <= size and v > value) or (s < size and v >= value) for s, v in figures)
    }
    marked = [at for row, at in zip(written, figures, strict=True) if row["pareto"] == "1"]
    assert set(marked) == best
    assert len(marked) == len(best)


def test_tables_and_picture(swept):
    _, out, _, files = swept[1]
    text = files["sweep.md"].decode()
    assert "python -m tools.sweep --model tiny.keras --dataset digits" in text
    sizes = [int(size.replace(",", "")) for size in re.findall(r"\| +\d+ \| +([\d,]+) \|", text)]
    written = list(csv.DictReader(io.StringIO(files["sweep.csv"].decode())))
    best = [row for row in written if row["pareto"] == "1"]
    assert sizes[: len(best)] == sorted(int(row["bytes"]) for row in best)
    assert sizes[len(best) :] == sorted(int(row["bytes"]) for row in written)
    assert text.count("●") == len(best)
    for row in best:
        assert f"{float(row['test']):.2%}"[:-1] in out
    assert "chosen on 120 validation samples" in out
    assert files["sweep.png"].startswith(b"\x89PNG")


def test_figures_hold_when_made_and_measured_again(home, swept):
    data = prepare(digits(SEED), "auto", None, 10_000, SEED)
    # As commands do, without the loss, which says whether outputs are logits.
    model = keras.models.load_model(home / "tiny.keras", compile=False)
    rows = [json.loads(line) for line in swept[1][3]["sweep.jsonl"].decode().splitlines()]
    wanted = {"select": "effect", "unit": "share", "refit": 5, "fold": "least-squares"}
    found = {r["scheme"]: r for r in rows if {k: r[k] for k in wanted} == wanted}
    assert len(found) == 2
    result = tfprune.prune(
        model, data.calibration.x, remove=0.5, select="effect", refit=5,
        validation=data.validation.take(slice(256)).x,
    )  # fmt: skip
    paths = tfprune.export(
        result.model, home / "again", ["float32", "int8"], data.calibration.x, name="again"
    )
    reference = run_litert(paths["float32"], data.test.x)
    whole = model.predict(data.test.x, verbose=0)
    for scheme, row in found.items():
        content = paths[scheme].read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        for name, part in (("validation", data.validation), ("test", data.test)):
            decided = run_litert(paths[scheme], part.x).argmax(axis=1)
            assert row[name] == pytest.approx(np.mean(decided == part.y), abs=1e-6)
            if name == "test":
                agree = np.mean(decided == whole.argmax(axis=1))
                assert row["agreement"] == pytest.approx(agree, abs=1e-6)
        assert (row["units_before"], row["units"]) == (16, 8)
        assert row["parameters"] == 196 * 8 + 8 + 8 * 10 + 10
    assert reference.shape == (len(data.test), 10)


def asked(folder, data, model, **more):
    path = folder / "model.keras"
    model.save(path)
    np.savez(folder / "data.npz", **data)
    return SweepConfig(
        model=str(path), data=str(folder / "data.npz"), output=str(folder / "out"), **more
    )


def regression(rng, model, labels=True):
    """Samples, and as labels what the model makes of them: it has no error before pruning."""
    x = rng.normal(size=(200, *model.inputs[0].shape[1:])).astype(np.float32)
    return {"x": x, **({"y": model.predict(x, verbose=0)} if labels else {})}


@pytest.mark.trains
def test_values_are_scored_by_their_error_and_healed_points_stand_beside(tmp_path, rng):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="output")(hidden))
    config = asked(tmp_path, regression(rng, model), model, schemes=("float32",), heal=8)
    lists = {"selections": "effect", "shares": "50%", "degrees": "none", "folds": "drop"}
    wanted = grid(replace(config, **lists))
    said = []
    made = run(wanted, ["sweep"], said.append)
    plain, bare, healed = made.rows
    assert [row.heal for row in made.rows] == [0, 0, 8]
    assert {row.metric for row in made.rows} == {"mse"}
    assert plain.test < 1e-9
    assert healed.test < 0.9 * bare.test
    assert bare.sha256 != healed.sha256
    assert "3 points in float32: 3 files" in said
    # Without labels agreement with the unpruned model is all that can be told.
    config = asked(tmp_path, regression(rng, model, labels=False), model, schemes=("float32",))
    unlabelled = run(
        replace(wanted, config=config.validate(), points=wanted.points[:2]), ["s"], said.append
    )
    assert [row.metric for row in unlabelled.rows] == ["agreement"] * 2
    # Other data and other settings have other keys, and leave the rows that are there.
    assert len(lines(tmp_path / "out")) == 5


def test_widths_are_rounded(tmp_path, rng):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="output")(hidden))
    config = asked(tmp_path, regression(rng, model), model, schemes=("float32",), round_to=4)
    config = replace(config, selections="random", shares="40%", degrees="none", folds="drop")
    made = run(grid(config), ["sweep"], lambda line: None)
    assert [(row.units, row.round_to) for row in made.rows] == [(8, None), (4, 4)]
    assert "random 40 % drop widths by 4: `--remove 40% " in to_markdown(made)


def test_a_scheme_that_is_refused_is_a_row_with_the_reason(tmp_path, rng):
    inputs = keras.Input((300, 1))  # More steps than int8 files are made of.
    state = keras.layers.LSTM(3)(inputs)
    hidden = keras.layers.Dense(6, "relu", name="hidden")(state)
    model = keras.Model(inputs, keras.layers.Dense(1, name="output")(hidden))
    config = asked(tmp_path, regression(rng, model), model, schemes=("int8", "float32"))
    config = replace(config, selections="random", shares="50%", degrees="none")
    made = run(grid(replace(config, folds="drop")), ["sweep"], lambda line: None)
    assert [row.scheme for row in made.rows] == ["int8", "float32"] * 2
    for row in made.rows:
        assert ("recurrent layers" in row.reason) == (row.bytes is None) == (row.scheme == "int8")
    assert "random 50 % drop, int8: model" in (tmp_path / "out" / "sweep.md").read_text()
    refused = replace(config, schemes=("int8",), output=str(tmp_path / "none"))
    for _ in range(2):
        with pytest.raises(TfpruneError, match="no file .* can be made of recurrent layers"):
            run(grid(refused), ["sweep"], lambda line: None)
    assert len(lines(tmp_path / "none")) == 1


def test_a_model_without_hidden_units_is_told_before_the_work(tmp_path, rng):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="output")(inputs))
    config = asked(tmp_path, regression(rng, model), model)
    with pytest.raises(TfpruneError, match="nothing to prune: output: output layer"):
        run(grid(config), ["sweep"], lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shares", "150%"), "--shares: expected a share between 0 and 1, .*received '150%'"),
        (("--degrees", "10,95"), "--degrees: expected a number of degrees .*'95'"),
        (("--selections", "effect,best"), "--selections: expected one of effect, .*'best'"),
        (("--folds", "merge"), "--folds: expected one of least-squares, .*'merge'"),
        (("--refit", "0,-5"), "--refit: expected whole numbers from 0 .*received '-5'"),
        (("--selections", "random", "--shares", "none"), "no point to try: shares take the folds"),
        (("--folds", "scaled", "--degrees", "none"), "no point to try"),
        (("--schemes", "int9"), "--schemes: expected some of float32"),
        (("--heal", "0"), "--heal: expected a whole number from 1"),
        (("--augment",), "--augment: it is a part of healing; add --heal EPOCHS, or auto"),
        (("--round-to", "1"), "--round-to: expected a whole number from 2"),
        (("--model", "none.keras"), "expected data for a model of your own"),
        (("--model", "none.keras", "--dataset", "digits"), "none.keras"),
        (("--quik",), "unknown flag --quik; did you mean --quick?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capfd, words, said):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():  # The command sets its own filters.
        assert sweep(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.match(f"tools.sweep: .*{said}", err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_journal_of_something_else_is_told_by_its_line(tmp_path):
    row = Row("a", "effect", 0.5, "share", "drop", 0, 0, "int8", "accuracy", 0.9, 0.9, 100)
    journal = ResultsLog(tmp_path / "sweep.jsonl")
    journal.append(row)
    assert ResultsLog(tmp_path / "sweep.jsonl").rows == {"a": row}
    with (tmp_path / "sweep.jsonl").open("a") as file:
        file.write('{"key": 1}\n')
    with pytest.raises(TfpruneError, match=r"sweep.jsonl, line 2: expected a row of tools.sweep"):
        ResultsLog(tmp_path / "sweep.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError, match="expected a folder that can be written"):
        ResultsLog(tmp_path / "file" / "sweep.jsonl")


@pytest.mark.parametrize("metric", ["accuracy", "mse", "agreement"])
@pytest.mark.parametrize("values", [(), (0.0,), (1.0, 1.0), (0.99, 0.1, 0.985), (0.0, 3e-9)])
def test_whatever_comes_there_is_a_picture_and_a_table(metric, values):
    rows = [
        Row(str(at), *("effect", 0.5, "share", "drop", 0, at % 2, "int4"), metric, value, value, 99)
        for at, value in enumerate(values)
    ]
    rows.append(Row("r", "unpruned", None, "", "", 0, 0, "int8", metric, reason="a | reason"))
    about = {"model": "m", "data": "d", "validation": 5, "test": 6, "calibration": 7}
    made = Sweep(rows, len(rows) + 1, about, ["sweep"])
    assert picture(made).startswith(b"\x89PNG")
    assert "- unpruned, int8: a &#124; reason" in to_markdown(made)
    assert to_csv(made).count("\n") == len(rows) + 1


def test_what_was_measured_once_serves_every_pruning(rng):
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(12, "relu", name="first")(inputs)
    hidden = keras.layers.Dense(10, "tanh", name="second")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3, name="output")(hidden))
    x = rng.normal(size=(300, 6)).astype(np.float32)
    known = tfprune.Pruner(model, x, skip=["first"])
    ways = ({"remove": 0.5, "refit": 0}, {"threshold": 60}, {"remove": 0.3, "select": "span"})
    for how in (*ways, ways[0]):
        ours = known.prune(**how)
        anew = tfprune.prune(model, x, skip=["first"], **how)
        assert ours.layers == anew.layers
        assert ours.skipped == anew.skipped
        for mine, other in zip(ours.model.get_weights(), anew.model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.skipif(find_spec("ai_edge_quantizer") is None, reason="needs ai-edge-quantizer")
def test_a_healed_int4_file_is_that_of_the_export(home, tmp_path):
    words = ["--model", str(home / "tiny.keras"), "--dataset", "digits", "--seed", str(SEED),
             "--schemes", "float32,int4", "--heal", "2"]  # fmt: skip
    at_half = ["--selections", "effect", "--shares", "50%", "--degrees", "none", "--refit", "0",
               "--folds", "least-squares"]  # fmt: skip
    swept = call(*words, *at_half, "--output", "swept", cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    rows = [json.loads(line) for line in lines(tmp_path / "swept")]
    ours = {row["scheme"]: row["sha256"] for row in rows if row["heal"]}
    asked = [*words, "--remove", "50%", "--refit", "0", "--output", str(tmp_path / "made")]
    assert export(asked) == 0
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    theirs = {a["scheme"]: a["sha256"] for a in manifest["artifacts"] if a["variant"] == "pruned"}
    assert ours == theirs
