"""``python -m tools.reproduce`` as its user meets it, and the studies as data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.studies import tiny
from tfprune.errors import TfpruneError
from tfprune.studies import kinds, networks, runner, study
from tfprune.studies.data import find_data
from tfprune.studies.record import Record, key_of
from tfprune.studies.summary import Results
from tfprune.studies.tables import cut_table, table, to_json, to_markdown
from tools.reproduce import main

# By hand from what the studies published: study -> label of the row -> figure.
PUBLISHED = {
    "fanyu": {
        "(2) CNN: average loss": 0.0665,
        "(2) CNN: correct of 10,000": 9795,
        "(3) CNN on auto-encoded images: average loss": 0.0673,
        "(3) CNN on auto-encoded images: correct of 10,000": 9793,
        "(4) pruned auto-encoder: average loss": 0.0681,
        "(4) pruned auto-encoder: correct of 10,000": 9796,
        "(5) pruned auto-encoder and CNN: average loss": 0.0697,
        "(5) pruned auto-encoder and CNN: correct of 10,000": 9782,
        "Table 2, linear: error": 8.4,
        "Table 2, 3-NN: error": 2.4,
        "Table 2, pairwise linear: error": 7.6,
        "Table 2, large MLP: error": 1.6,
        "Table 2, LeNet1 (Keras): error": 1.7,
        "Table 2, LeNet4 (Keras): error": 1.1,
    },
    "zhu": {
        "BP network 784-300-10: accuracy": 97.65,
        "classified from its 6 units: accuracy": 74.38,
        "CNN after LeNet: accuracy": 98.84,
        "auto-encoder: loss": 0.1398,
        "convolutional auto-encoder: loss": 0.1129,
    },
    "bastani": {
        "hidden layers none: error": 2.69,
        "hidden layers 10: error": 1.73,
        "hidden layers 16: error": 1.74,
        "hidden layers 32: error": 1.81,
        "hidden layers 32+16: error": 1.93,
        "sigmoid in place of softmax: error": 59.62,
        "full-batch gradient descent: error": 90.2,
        "CNN on 100 % of the data: error": 2.25,
        "HOG+SVM on 100 % of the data: error (above 5 %)": 5,
    },
    "zheng": {
        "Table 2, CNN: accuracy": 97.8,
        "validation, CNN: accuracy before": 97.5,
        "validation, CNN at 15 degrees: accuracy after": 97.5,
        "validation, CNN at 15 degrees: units removed (published 26.5 to 39 %)": 32.5,
        "validation, FNN at 25 degrees: change of accuracy": -0.5,
        "validation, FNN at 25 degrees: units removed": 9.5,
        "CNN at 15 degrees: accuracy": 97.37,
        "CNN at 30 degrees: accuracy": 97.4,
        "CNN at 30 degrees: units removed": 40,
    },
    "mchunu": {
        "784-512-10, SGD: accuracy (just under 50 %)": 50,
        "784-512-10, Adam: accuracy (above 95 %)": 95,
        "784-512-64-10, ReLU, tanh, SGD: accuracy (below 50 %)": 50,
        "tried: 784-512-10, SGD, mean squared error: accuracy": 50,
        "tried: 784-512-64-10, SGD, mean squared error: accuracy": 50,
    },
}


@pytest.mark.parametrize("name", study.NAMES)
def test_every_published_figure_stands_in_the_data(name):
    found = {
        row.label: row.published
        for one in study.load(name).experiments
        for row in one.rows
        if row.published is not None
    }
    assert found == PUBLISHED[name]


def test_the_full_settings_are_the_studies():
    made = {name: study.load(name) for name in study.NAMES}
    assert made["fanyu"].models["cnn"]["batch"] == made["fanyu"].models["autoencoder"]["batch"]
    assert made["fanyu"].epochs("cnn") == made["fanyu"].epochs("autoencoder") == 10
    assert made["zhu"].epochs("bp") == 6
    assert made["zhu"].models["bp"]["optimizer"] == {"type": "Adam", "learning_rate": 0.005}
    assert next(one.runs for one in made["zhu"].experiments if one.id == "bp") == 10
    assert {made["zhu"].epochs(name) for name in ("autoencoder", "convolutional")} == {20}
    assert (made["zheng"].epochs("cnn"), made["zheng"].epochs("fnn")) == (10, 100)
    assert {(one.train, one.test) for one in made["zheng"].experiments} == {(20_000, 2_000)}
    points = {one.id: one.settings["degrees"] for one in made["zheng"].experiments if "." in one.id}
    wanted = range(15, 61, 5)
    assert points == {f"{net}.{at}": at for net in ("cnn", "fnn") for at in wanted}
    assert made["mchunu"].models["sgd"]["batch"] == 64
    # Parameters by hand: 784 * 512 + 512 + 512 * 64 + 64 + 64 * 10 + 10.
    assert networks.build(made["mchunu"].models["deep"]).count_params() == 435_402
    # 13 * 13 * 64 + 64 filters, 2 * 2 * 64 numbers after pooling, 32 and 16 hidden units.
    change = next(one for one in made["bastani"].experiments if one.id == "hidden.32+16")
    net = networks.build(made["bastani"].models["cnn"], change.settings["change"])
    assert net.count_params() == 10_880 + 257 * 32 + 33 * 16 + 17 * 10
    drawn = net.layers[0].kernel.numpy()
    assert -1 <= drawn.min() < -0.99
    assert 0.99 < drawn.max() < 1


@pytest.fixture(scope="module")
def digits():
    return find_data(None, 0, lambda line: None)


def go(made, data, folder, seed=0):
    said = []
    results = runner.run(made, data, folder, seed=seed, command=["test"], say=said.append)
    return results, said


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("fanyu", ("autoencoder", "reconstructed", "both-pruned", "tied-pruned", "table2.3-NN")),
        ("zhu", ("autoencoder", "code")),
        ("bastani", ("hidden.32+16", "pooling.6", "full-batch", "sigmoid", "hog.10 %")),
        ("zheng", ("cnn", "cnn.30", "cnn.60")),
    ],
)
def test_the_experiments_run(name, only, digits, tmp_path):
    if any(one.startswith("hog") for one in only):
        pytest.importorskip("skimage")
    results, _ = go(tiny(name, only=only), digits, tmp_path)
    assert {record.experiment for record in results.records} == set(only)
    lines = table(results).splitlines()[2:]
    assert lines
    assert all("to do" not in line for line in lines)
    assert not any(re.search(r"[+-]\d", line.rpartition("|")[0][-20:]) for line in lines)
    text = (tmp_path / "results.md").read_text()
    assert "A quick run" in text
    assert "On digits, not on MNIST" in text
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn
    assert all(f"]({name})" in text for name in drawn)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """One study as from a fresh clone: without MNIST, with --quick."""
    folder = tmp_path_factory.mktemp("fresh")
    environ = {key: value for key, value in os.environ.items() if key != "TFPRUNE_MNIST"}
    line = [sys.executable, "-m", "tools.reproduce", "mchunu", "--quick"]
    done = subprocess.run(
        line, cwd=folder, env={**environ, "PYTHONPATH": str(ROOT)}, timeout=600, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    return done, folder / "studies" / "mchunu"


@pytest.mark.trains
def test_a_quick_study_on_the_bundled_digits(reproduced):
    done, folder = reproduced
    assert done.returncode == 0, done.stderr
    assert "1,797 handwritten digits, not on MNIST" in done.stderr
    assert "A QUICK RUN, on digits" in done.stdout
    assert "mchunu: 100%" in done.stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.md", "results.json", "results.jsonl", "curves.png", "squared.png"}
    made = json.loads((folder / "results.json").read_text())
    assert (made["quick"], made["comparable"]) == (True, False)
    assert made["runs"] == {"done": 6, "wanted": 6}
    measured = {row["experiment"]: row["measured"]["mean"] for row in made["rows"]}
    # What 1,150 digits in few epochs have taught Adam, and SGD has not learnt yet: 96 and 40.
    assert measured["adam"] > measured["sgd"] + 20
    assert all(row["difference"] is None for row in made["rows"])
    assert "not comparable" in (folder / "results.md").read_text()


def test_an_interrupted_study_goes_on(digits, tmp_path, monkeypatch):
    made = tiny("fanyu", only=("table2.linear", "table2.3-NN", "table2.large MLP"))
    calls = []

    def breaks(bench, experiment):
        calls.append(experiment.id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kinds.classifier(bench, experiment)

    monkeypatch.setitem(kinds.KINDS, "classifier", breaks)
    with pytest.raises(KeyboardInterrupt):
        go(made, digits, tmp_path)
    journal = tmp_path / "results.jsonl"
    first = journal.read_text()
    assert len(first.splitlines()) == 1
    assert "1 of 3 runs done; the same command goes on" in (tmp_path / "results.md").read_text()
    # What was cut off in the middle of a line is run again.
    journal.write_text(first + first[:40])
    results, said = go(made, digits, tmp_path)
    assert said == ["fanyu (quick): 3 runs on digits, 1 of them done before"]
    assert calls == ["table2.linear", "table2.3-NN", "table2.3-NN", "table2.large MLP"]
    assert journal.read_text().startswith(first)
    assert len(results.records) == 3
    go(made, digits, tmp_path)
    assert len(calls) == 4
    # Another seed is another run.
    go(made, digits, tmp_path, seed=5)
    assert len(calls) == 7


def test_figures_that_went_astray_are_an_error_and_not_kept(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(
        kinds.KINDS, "classifier", lambda bench, one: kinds.Outcome({"error": float("nan")})
    )
    with pytest.raises(TfpruneError, match="table2.linear, run 1: expected a finite error"):
        go(tiny("fanyu", only=("table2.linear",)), digits, tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def record(run, **values):
    return Record(f"key{run}", "test", "one", run, values)


def by_hand(comparable=True, records=None, missing=None):
    rows = (
        study.Row("accuracy", "accuracy", 97.5, ours="ours.accuracy", cut=True, note="why"),
        study.Row("loss", "loss"),
    )
    one = study.Experiment("one", "prune", (), {}, 3, 10, 10, rows)
    about = {
        "command": ["python", "-m", "tools.reproduce"], "seed": 0, "versions": {"keras": "3"},
        "git": None, "data": {"name": "MNIST", "sha256": "0" * 64, "train": 10, "test": 10},
    }  # fmt: skip
    made = study.Study("test", "test: a study", "text", False, {}, (one,))
    return Results(made, comparable, records or [], 3, missing or {}, about)


def test_the_arithmetic_of_the_tables():
    removed = {"study.removed": 30.0, "study.constant": 20.0, "study.similar": 10.0}
    removed |= {"study.complementary": 0.0, "zeroed.bytes": 2000.0, "study.bytes": 1500.0}
    results = by_hand(
        records=[
            record(0, accuracy=96.0, loss=0.5, **{"ours.accuracy": 97.0}, **removed),
            record(1, accuracy=98.0, loss=0.25, **{"ours.accuracy": 97.0}),
            record(2, accuracy=97.0, loss=0.75, **{"ours.accuracy": 97.0}),
        ]
    )
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table(results).split("\n")
    ]
    # Of 96, 98, 97: mean 97, squared distances 1 + 1 + 0, over 2; of 0.5, 0.25, 0.75: 2 / 16 / 2.
    assert cells[2] == ["accuracy", "97.50 %", "97.00 ± 1.00 %", "3", "-0.50"]
    assert cells[3] == ["loss", "", "0.5000 ± 0.2500", "3", ""]
    (row,) = [line.split("|")[1:-1] for line in cut_table(results).split("\n")[2:]]
    assert [cell.strip() for cell in row] == [
        "accuracy", "97.00 ± 1.00 %", "97.00 ± 0.00 %", "30.0 = 20.0 + 10.0 + 0.0", "",
        "2,000", "1,500", "",
    ]  # fmt: skip
    plain = json.loads(to_json(results))["rows"][0]
    assert (plain["published"], plain["difference"]) == (97.5, -0.5)
    assert plain["measured"] == {"mean": 97.0, "deviation": 1.0, "runs": 3}
    assert "- accuracy: why" in to_markdown(results)


def test_what_is_not_mnist_is_not_compared_and_what_is_missing_says_so():
    results = by_hand(comparable=False, records=[record(0, accuracy=96.0)])
    assert "| not comparable |" in re.sub(" +", " ", table(results))
    assert "1 of 3 runs done" in to_markdown(results)
    lacking = by_hand(missing={"one": "needs requirements-studies.txt"})
    assert table(lacking).count("needs requirements-studies.txt") == 2


def test_without_scikit_image_its_rows_say_so(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)
    results, _ = go(tiny("bastani", only=("hog.10 %",)), digits, tmp_path)
    assert results.missing == {"hog.10 %": "needs requirements-studies.txt"}
    text = (tmp_path / "results.md").read_text()
    assert "needs requirements-studies.txt" in text
    assert "the same command goes on" not in text


def test_the_key_holds_what_values_depend_on_and_no_more():
    def key(made, at=0, **more):
        told = {"seed": 0, "data": "digest", "versions": {"keras": "3"}, **more}
        return key_of(made, made.experiments[0], at, **told)

    made = study.load("mchunu")
    assert key(made) == key(study.load("mchunu", runs=1))
    row = replace(made.experiments[0].rows[0], note="told otherwise", published=1.0)
    first = replace(made.experiments[0], rows=(row,))
    assert key(made) == key(replace(made, experiments=(first,)))
    models = {**made.models, "sgd": {**made.models["sgd"], "epochs": 11}}
    others = [
        key(made, 1), key(made, seed=1), key(made, data="other"), key(made, versions={}),
        key(study.load("mchunu", quick=True)), key(replace(made, models=models)),
    ]  # fmt: skip
    assert len({key(made), *others}) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fany"], "study: expected one of fanyu, zhu, bastani, zheng, mchunu, or all"),
        ([], "study: expected one of fanyu"),
        (["--quick"], "study: expected one of fanyu"),
        (["fanyu", "zhu"], "stray word 'zhu'"),
        (["fanyu", "--runs", "0"], "--runs: expected a whole number from 1, received 0"),
        (["fanyu", "--runs", "x"], "--runs: expected a whole number, received 'x'"),
        (["fanyu", "--seed", "-1"], "--seed"),
        (["fanyu", "--quik"], "did you mean --quick?"),
        (["--data", "nowhere.npz", "fanyu"], "nowhere.npz: no such file"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_data_must_be_digits_with_classes(tmp_path, capsys):
    path = tmp_path / "data.npz"
    x = np.zeros((20, 28, 28), np.uint8)
    np.savez(path, x_train=x, x_test=x)
    assert main(["mchunu", "--data", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "expected a class from 0 to 9 for each image" in capsys.readouterr().err
    with pytest.raises(TfpruneError, match="28x28"):
        np.savez(path, x_train=x[:, :8], y_train=x[:, 0, 0], x_test=x[:, :8], y_test=x[:, 0, 0])
        find_data(str(path), 0, lambda line: None)


def test_the_list_names_all_five(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(study.NAMES)
    # Labels that stand in PUBLISHED, counted.
    assert all(f"{len(PUBLISHED[line.split()[0]])} published figures" in line for line in lines)


def test_real_mnist_is_known_as_such(mnist):
    data = find_data(str(mnist), 0, lambda line: None)
    assert (data.name, data.is_mnist, len(data.train), len(data.test)) == (
        "MNIST", True, 60_000, 10_000,
    )  # fmt: skip
