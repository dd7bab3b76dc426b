"""Labels for several outputs: scored, searched by and trained on, each by its name."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.job.test_findings import run as run_of
from tests.support.commands import run
from tests.support.graphs import fill
from tfprune.data.files import Reading, read
from tfprune.data.scoring import make_scorer
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.graph.predictions import output_names, outputs_of
from tfprune.job.findings import findings
from tfprune.training.finetuning import FineTuner

X = np.zeros((4, 3), np.float32)
KIND = np.array([[2.0, 0, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]])
SIDE = np.array([[0.9], [0.2], [0.7], [0.1]])
FAR = np.array([[1.0], [2.0], [3.0], [4.0]])
YS = {"kind": np.array([0, 1, 2, 2]), "side": np.array([1, 1, 1, 0]), "far": FAR + 2}
NAMES = ["kind", "side", "far"]


def scorer(*names, only=None):
    ys = {name: YS[name] for name in names}
    return make_scorer([KIND, SIDE, FAR], Split(X, None, ys), names=NAMES, only=only)


def test_every_output_is_scored_and_the_mean():
    scores = scorer("far", "side", "kind").scores([KIND, SIDE, FAR])
    assert (scores["accuracy_kind"], scores["accuracy_side"]) == (0.75, 0.75)
    assert scores["accuracy"] == 0.75
    assert (scores["mse"], scores["mse_far"]) == (4.0, 4.0)
    other = scorer("kind", "side").scores([np.roll(KIND, 1, 0), 1 - SIDE, FAR])
    # By hand: the kinds are then 0, 0, 1, 2, the sides 0, 1, 0, 1.
    assert (other["accuracy_kind"], other["accuracy_side"]) == (0.5, 0.25)
    assert other["accuracy"] == 0.375


def test_outputs_without_labels_are_held_against_the_original():
    measure = scorer("kind", "side")
    # Nothing says whether it decides.
    assert measure.judged_by == ("accuracy", "agreement_far", "output_error_far")
    assert measure.held_against == (
        "labels are held against outputs kind, side; accuracy is the mean of kind and side"
    )
    assert [one["name"] for one in measure.about["outputs"]] == ["kind", "side"]


def test_an_output_of_which_no_accuracy_speaks_is_judged_by_itself():
    """By hand; values are held against the original with labels and without."""
    far = scorer("kind", "side", "far")
    assert far.judged_by == ("accuracy", "output_error_far")
    scores = far.scores([np.roll(KIND, 1, 0), SIDE, FAR + 0.5])
    deviation = np.sqrt(1.25)  # Of 1, 2, 3, 4.
    assert scores["output_error_far"] == pytest.approx(0.5 / deviation)
    kind = scorer("side", "far")
    assert kind.judged_by == ("accuracy", "agreement_kind", "output_error_kind", "output_error_far")
    # Rows 2, 0, 1, 0 in place of 0, 1, 2, 0; sides and values are all others.
    others = kind.scores([KIND[[2, 1, 2, 0]], 1 - SIDE, -FAR])
    assert others["agreement_kind"] == 0.75
    assert others["agreement"] == 0.0


@pytest.mark.parametrize(
    ("judged", "words"),
    [
        ("output_error_box", "error of output box 30.0 %, 0.0 % unpruned"),
        ("agreement_kind", "70.00 % of the classes of output kind are the original's, 100.00 %"),
    ],
)
def test_what_was_lost_names_the_output(judged, words):
    whole, less = (0.0, 0.3) if judged.startswith("output") else (1.0, 0.7)
    same = {"accuracy": 0.9, "agreement": 0.1}
    before, after = ([{**same, judged: value}] for value in (whole, less))
    (one,) = findings(run_of(before, after, ("accuracy", judged)))
    assert words in one.message


def test_one_output_alone():
    measure = scorer(*NAMES, only="side")
    assert (measure.output, measure.metric, measure.others) == (1, "accuracy", ())
    assert measure.scores([KIND, SIDE, FAR])["accuracy"] == 0.75
    plain = make_scorer([KIND, SIDE], Split(X, np.array([0, 1, 1, 0])), names=NAMES, only="side")
    assert plain.output == 1
    with pytest.raises(TfpruneError, match=r"--output-name: .*\(kind, side, far\), received 'sid'"):
        scorer("kind", only="sid")
    with pytest.raises(TfpruneError, match="--output-name side: the data has no y_side"):
        scorer("kind", only="side")


def test_labels_that_do_not_fit_name_their_output():
    ys = {"kind": np.array([0, 1, 2, 9])}
    with pytest.raises(TfpruneError, match="labels of output kind: data: labels from 0 to 9 fit"):
        make_scorer([KIND, SIDE, FAR], Split(X, None, ys), names=NAMES)


@pytest.fixture
def two(rng):
    data = keras.Input((6,), name="data")
    hidden = kl.Dense(24, activation="relu", name="hidden")(data)
    kind = kl.Dense(3, activation="softmax", name="kind")(hidden)
    side = kl.Dense(1, activation="sigmoid", name="side")(hidden)
    return fill(keras.Model(data, [kind, side], name="two"), rng)


@pytest.fixture
def file(two, rng, tmp_path):
    """The model and data whose labels it answers."""
    x = rng.normal(size=(400, 6)).astype("float32")
    kind, side = two(x)
    labels = np.argmax(kind, axis=1), (np.asarray(side)[:, 0] > 0.5).astype(int)
    arrays = {
        f"{key}_{part}{end}": array[where]
        for part, where in (("train", slice(300)), ("test", slice(300, None)))
        for key, end, array in (("x", "", x), ("y", "_kind", labels[0]), ("y", "_side", labels[1]))
    }
    np.savez(tmp_path / "two.npz", **arrays)
    two.compile("sgd", ["sparse_categorical_crossentropy", "binary_crossentropy"])
    two.save(tmp_path / "two.keras")
    return tmp_path


def test_names_of_outputs(two):
    assert output_names(two) == ["kind", "side"]
    first, second = two.outputs
    assert output_names(keras.Model(two.inputs, {"b": first, "a": second})) == ["a", "b"]
    assert output_names(keras.Sequential([keras.Input((2,)), kl.Dense(1, name="z")])) == ["z"]


def test_a_file_that_names_no_output_or_says_it_twice(file):
    reading = Reading(0, ("data",), None, ("kind", "side"))
    train = read(str(file / "two.npz"), reading).train
    assert {name: y.shape for name, y in train.ys.items()} == {"kind": (300,), "side": (300,)}
    arrays = dict(np.load(file / "two.npz"))
    for more, message in (
        ({"y_train_kinds": np.zeros(300)}, r"y_train_kinds is no label .* are kind, side"),
        ({"y_train": np.zeros(300)}, "expected y_train or y_train_NAME for outputs, received both"),
        ({"y_train_kind": np.zeros(30)}, "a label of output kind for each of 300 samples"),
    ):
        np.savez(file / "bad.npz", **(arrays | more))
        with pytest.raises(TfpruneError, match=message):
            read(str(file / "bad.npz"), reading)


def test_the_command_scores_searches_and_trains_by_all(file, capfd):
    argv = ["--model", file / "two.keras", "--data", file / "two.npz", "--schemes", "float32"]
    words = ["--max-drop", 20, "--finetune", 1, "--refit", 0]
    code, out, err = run([*argv, *words, "--output", file / "made"], capfd)
    assert code == 0, err
    assert "outputs kind, side; accuracy is the mean of kind and side" in err
    assert "kind: accuracy %" in out
    assert "arrays not used" not in err
    made = json.loads((file / "made" / "manifest.json").read_text())
    for entry in made["artifacts"]:
        mean = (entry["accuracy_kind"] + entry["accuracy_side"]) / 2
        assert entry["accuracy"] == pytest.approx(mean, abs=1e-6)
    assert made["artifacts"][0]["accuracy"] == 1.0
    assert all(one["drop"] <= 20 for one in made["prune"]["tried"] if one["fits"])


def test_fine_tuning_learns_every_output(two, rng):
    """The loss is the sum of the outputs' own, by hand."""
    x = rng.normal(size=(32, 6)).astype("float32")
    ys = {"kind": rng.integers(0, 3, 32), "side": rng.integers(0, 2, 32)}
    kind, side = outputs_of(two, [x])
    measure = make_scorer([kind, side], Split(x, None, ys), names=output_names(two))
    expected = -np.log(kind[np.arange(32), ys["kind"]]).mean() - np.mean(
        np.log(np.where(ys["side"] == 1, side[:, 0], 1 - side[:, 0]))
    )
    assert FineTuner(two, Split(x, None, ys), None, measure).loss(two) == pytest.approx(
        expected, rel=1e-4
    )


def test_inspect_takes_them_as_a_dict_or_a_list(two, rng):
    x = rng.normal(size=(200, 6)).astype("float32")
    kind, side = (np.asarray(out) for out in two(x))
    labels = [kind.argmax(axis=1), (side[:, 0] > 0.5).astype(int)]
    for y in (labels, dict(zip(("kind", "side"), labels, strict=True)), {"kind": labels[0]}):
        found = tfprune.inspect(two, x, y)
        assert (found.measured.score, found.measured.original) == ("accuracy", 1.0)
    with pytest.raises(TfpruneError, match=r"names of outputs \(kind, side\), received sort"):
        tfprune.inspect(two, x, {"sort": labels[0]})
