"""``--test-data``: samples that travel, and the figures that ``tools/run.py`` repeats on them."""

from __future__ import annotations

import hashlib
import json
import re

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import command
from tests.support.litert import in_litert
from tfprune.data.scoring import make_scorer
from tfprune.data.splits import Split
from tfprune.data.test_samples import drawn
from tfprune.graph.predictions import outputs_of
from tfprune.outputs.decisions import rules_of
from tfprune.tflite.converter import convert
from tfprune.tflite.interpreter import LiteModel
from tools import run


def scored(capsys, files, data):
    """What ``run.py`` says of files, by their names."""
    capsys.readouterr()
    words = [*map(str, files), "--data", str(data), "--runs", "0", "--json"]
    code = run.main(words)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return json.loads(out)["files"]


def test_samples_stand_in_the_manifest_and_are_test_data(shipped):
    from tfprune.data.sources import digits
    from tfprune.data.splits import prepare

    folder, manifest = shipped
    about = manifest["test_data"]
    content = (folder / about["file"]).read_bytes()
    assert about["file"] == "cnn_test.npz"
    assert (about["samples"], about["bytes"]) == (60, len(content))
    assert about["sha256"] == hashlib.sha256(content).hexdigest()
    arrays = np.load(folder / about["file"])
    test = prepare(digits(2), "auto", None, 1, 2).test
    known = {image.tobytes(): label for image, label in zip(test.x, test.y, strict=True)}
    assert [known[image.tobytes()] for image in arrays["x_test"]] == arrays["y_test"].tolist()
    assert len({image.tobytes() for image in arrays["x_test"]}) == 60


def test_run_repeats_the_manifests_figures(shipped, capsys):
    folder, manifest = shipped
    files = [folder / artifact["file"] for artifact in manifest["artifacts"]]
    arrays = np.load(folder / manifest["test_data"]["file"])
    entries = scored(capsys, files, folder / manifest["test_data"]["file"])
    for entry, file in zip(entries, files, strict=True):
        right = in_litert(file, arrays["x_test"]).argmax(axis=1) == arrays["y_test"]
        assert entry["accuracy"] == pytest.approx(right.mean())
        assert manifest["test_data"]["scores"][file.name]["accuracy"] == entry["accuracy"]


def test_samples_of_other_data_are_warned_of(shipped, tmp_path, capsys):
    """A file of one export scored on the samples of another: right by chance, at best."""
    folder, manifest = shipped
    about = {key: manifest["dataset"][key] for key in ("name", "sha256")}
    arrays = dict(np.load(folder / "cnn_test.npz"))
    assert json.loads(str(arrays["dataset"])) == about
    pi = tmp_path / "pi"
    pi.mkdir()
    for name in ("cnn_float32.tflite", "cnn_int8.tflite", "manifest.json", "cnn_test.npz"):
        (pi / name).write_bytes((folder / name).read_bytes())
    # Not a file of this export, so nothing is known of it.
    (pi / "cnn_int8.tflite").write_bytes((folder / "cnn_dynamic.tflite").read_bytes())
    files = [str(pi / "cnn_float32.tflite"), str(pi / "cnn_int8.tflite")]

    def warnings(dataset=None, text=None):
        text = json.dumps(dataset) if text is None else text
        np.savez(pi / "other.npz", **{**arrays, "dataset": np.array(text)})
        code = run.main([*files, "--data", str(pi / "other.npz"), "--runs", "0", "--json"])
        out, err = capsys.readouterr()
        assert code == 0
        report = json.loads(out)
        assert "".join(f"run.py: warning: {line}\n" for line in report["warnings"]) == err
        return report["warnings"]

    assert warnings(about) == []
    (said,) = warnings({"name": "mnist", "sha256": "06af5dfe" + "0" * 56})
    digits = f"the data set 'digits' (SHA-256 {about['sha256'][:8]})"
    assert said.startswith(f"{files[0]} was made on {digits}, ")
    assert f"{pi / 'other.npz'} is of 'mnist' (SHA-256 06af5dfe)" in said
    # The same name does not make it the same data.
    assert len(warnings({**about, "sha256": "0" * 64})) == 1
    # What is malformed says nothing of the data; a line break in a name stays in its line.
    for text in ("", "{", "[1]", "{}", "[" * 100_000, '{"name": 1, "sha256": 2}'):
        assert warnings(text=text) == []
    (said,) = warnings({"name": "two\nlines\u202e\x1b[1m", "sha256": ""})
    assert said.isprintable()
    (pi / "manifest.json").write_text(json.dumps({**manifest, "dataset": None}))
    assert warnings({**about, "sha256": "0" * 64}) == []
    (pi / "manifest.json").write_text("[" * 100_000)
    assert warnings({**about, "sha256": "0" * 64}) == []
    (pi / "manifest.json").unlink()
    assert warnings({**about, "sha256": "0" * 64}) == []


def test_more_samples_than_there_are_is_a_mistake(environment, tmp_path):
    done = command(
        environment, "--dataset", "digits", "--test-data", "1000", "--output", tmp_path / "out"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tools.export: --test-data: expected at most 359 samples, received 1000\n"
    assert not (tmp_path / "out").exists()
    done = command(environment, "--test-data", "0", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "--test-data: expected a whole number from 1" in done.stderr


def models():
    """Models whose labels mean different things, each with test data."""
    rng = np.random.default_rng(8)
    x = rng.random((50, 20), dtype=np.float32)
    made = keras.Input((20,), name="made")
    logit = keras.Model(made, kl.Dense(1)(made), name="logit")
    yield logit, {"made": x}, (logit.predict(x, verbose=0)[:, 0] > 0.1).astype(int), "accuracy"
    chance = keras.Model(made, kl.Dense(1, activation="sigmoid")(made), name="chance")
    yield chance, {"made": x}, rng.integers(0, 2, (50, 1)), "accuracy"
    several = keras.Model(made, [kl.Dense(9)(made), kl.Dense(5)(made)], name="several")
    yield several, {"made": x}, rng.integers(0, 5, 50), "accuracy"
    yield (
        keras.Model(made, kl.Dense(4)(made), name="rows"),
        {"made": x},
        np.eye(4)[rng.integers(0, 4, 50)],
        "accuracy",
    )
    years = rng.integers(0, 90, 50).astype(float)
    yield keras.Model(made, kl.Dense(1)(made), name="years"), {"made": x}, years, "mse"
    copy = keras.Model(made, kl.Dense(20)(kl.Dense(9)(made)), name="copy")
    yield copy, {"made": x}, None, "mse"
    other = keras.Input((3,), name="also")
    both = keras.Model([made, other], kl.Dense(6)(kl.Concatenate()([made, other])), name="both")
    pair = {"made": x, "also": rng.random((50, 3), dtype=np.float32)}
    yield both, pair, rng.integers(0, 6, 50), "accuracy"
    half = keras.Input((20,), name="made", dtype="float16")
    narrow = keras.Model(half, kl.Dense(3, dtype="float16")(half), name="narrow")
    yield narrow, {"made": x.astype(np.float16)}, rng.integers(0, 3, 50), "accuracy"
    # Logits that all lie between 0 and 1: it is the layer that says what they are.
    small = keras.Model(
        made, kl.Dense(1, kernel_initializer=keras.initializers.Constant(0.04))(made), name="small"
    )
    yield small, {"made": x}, rng.integers(0, 2, 50), "accuracy"
    bits = keras.Model(made, kl.Dense(5, activation="sigmoid")(made), name="bits")
    yield bits, {"made": x}, rng.integers(0, 2, (50, 5)), "accuracy"
    picture = keras.Input((4, 6, 2), name="picture")
    mask = keras.Model(picture, kl.Conv2D(3, 3, padding="same")(picture), name="mask")
    pixels = rng.random((50, 4, 6, 2), dtype=np.float32)
    yield mask, {"picture": pixels}, rng.integers(0, 3, (50, 4, 6, 1)), "accuracy"
    bright = keras.Model(made, kl.Dense(3)(made), name="bright")
    # Whole numbers up to 255 that are not to be scaled.
    grey = rng.integers(0, 256, (50, 20)).astype(np.float32)
    yield bright, {"made": grey}, rng.integers(0, 3, 50), "accuracy"


NAMES = ["logit", "chance", "several", "rows", "years", "copy", "both", "narrow", "bright"]
NAMES += ["small", "bits", "mask"]


@pytest.fixture(scope="module")
def cases():
    return {case[0].name: case for case in models()}


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_a_few_samples_are_those_of_evaluating_them(capsys, tmp_path, cases, name):
    model, x, y, metric = cases[name]
    arrays = list(x.values())
    reference = outputs_of(model, arrays)
    part = Split(x if len(x) > 1 else arrays[0], y)
    measure = make_scorer(reference, part, rules_of(model, reference))
    assert measure.metric == metric
    files = {scheme: tmp_path / f"{scheme}.tflite" for scheme in ("float32", "int8")}
    outputs = []
    for scheme, data in convert(model, list(files), arrays):
        files[scheme].write_bytes(data)
        outputs.append(LiteModel(data, list(x)).predict([a.astype(np.float32) for a in arrays]))
    for count in (1, 7, 50):
        chosen = drawn(count, measure, 50, seed=3)
        assert np.array_equal(chosen.index, drawn(count, measure, 50, seed=3).index)
        assert len(set(chosen.index)) == count
        chosen.write(tmp_path / "t.npz", arrays, list(x))
        entries = scored(capsys, files.values(), tmp_path / "t.npz")
        for entry, out in zip(entries, outputs, strict=True):
            assert entry[metric] == pytest.approx(chosen.score(out)[metric], rel=1e-5)
            if name == "small":
                # All are above 0, so all are class 1.
                assert entry[metric] == np.mean(y[chosen.index])
            if count == 50:
                assert entry[metric] == pytest.approx(measure.scores(out)[metric], rel=1e-5)


@pytest.fixture
def three():
    """A model of three outputs, data, and labels for each: classes, yes or no, values."""
    rng = np.random.default_rng(4)
    x = rng.random((50, 20), dtype=np.float32)
    data = keras.Input((20,), name="data")
    ends = [
        kl.Dense(5, name="kind")(data),
        kl.Dense(3, activation="sigmoid", name="bits")(data),
        kl.Dense(2, name="far")(data),
    ]
    labels = {
        "kind": rng.integers(0, 5, 50),
        "bits": rng.integers(0, 2, (50, 3)),
        "far": rng.normal(size=(50, 2)),
    }
    return keras.Model(data, ends, name="three"), x, labels


def by_hand(outputs, labels):
    kind, bits, far = outputs
    alone = {
        "accuracy_kind": np.mean(kind.argmax(axis=1) == labels["kind"]),
        "accuracy_bits": np.mean((bits > 0.5) == labels["bits"]),
        "mse_far": np.mean((far - labels["far"]) ** 2),
    }
    mean = (alone["accuracy_kind"] + alone["accuracy_bits"]) / 2
    return {**alone, "accuracy": mean, "mse": alone["mse_far"]}


def test_the_labels_of_every_output_travel(capsys, tmp_path, three):
    """Scored by hand on what the file makes in LiteRT."""
    model, x, labels = three
    reference = outputs_of(model, [x])
    rules, names = rules_of(model, reference), ["kind", "bits", "far"]
    measure = make_scorer(reference, Split(x, None, labels), rules, names=names)
    ((_, content),) = convert(model, ["float32"], [x])
    file = tmp_path / "three_float32.tflite"
    file.write_bytes(content)
    chosen = drawn(17, measure, 50, seed=3)
    chosen.write(tmp_path / "t.npz", [x], ["data"])
    arrays = np.load(tmp_path / "t.npz")
    assert {"x_test", "y_test_kind", "y_test_bits", "y_test_far"} < set(arrays)
    made = LiteModel(content, ["data"]).predict([x])
    expected = by_hand(
        [out[chosen.index] for out in made], {n: y[chosen.index] for n, y in labels.items()}
    )
    (entry,) = scored(capsys, [file], tmp_path / "t.npz")
    for name, value in expected.items():
        assert entry[name] == pytest.approx(value, rel=1e-5)
    assert chosen.score(made) == pytest.approx(expected, rel=1e-5)
    assert run.main([str(file), "--data", str(tmp_path / "t.npz"), "--runs", "0"]) == 0
    heads = ["kind: accuracy %", "bits: accuracy %", "far: mse", "accuracy %", "mse"]
    assert re.search(r"\s+".join(heads), capsys.readouterr().out)
    few = {name: array for name, array in arrays.items() if name != "y_test_bits"}
    np.savez(tmp_path / "few.npz", **few)
    assert run.main([str(file), "--data", str(tmp_path / "few.npz"), "--runs", "0"]) == 2
    assert "its labels do not fit the outputs" in capsys.readouterr().err


def test_own_labels_go_by_the_names_that_the_manifest_knows(capsys, tmp_path, three):
    model, x, labels = three
    reference = outputs_of(model, [x])
    names = ["kind", "bits", "far"]
    measure = make_scorer(
        reference, Split(x, None, labels), rules_of(model, reference), names=names
    )
    ((_, content),) = convert(model, ["float32"], [x])
    file = tmp_path / "three_float32.tflite"
    file.write_bytes(content)
    np.savez(tmp_path / "own.npz", x=x, **{f"y_{name}": y for name, y in labels.items()})
    assert not {"accuracy", "mse"} & set(scored(capsys, [file], tmp_path / "own.npz")[0])
    entry = {"file": file.name, "sha256": hashlib.sha256(content).hexdigest()}
    document = {"artifacts": [entry], "scoring": measure.about}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    (found,) = scored(capsys, [file], tmp_path / "own.npz")
    expected = by_hand(LiteModel(content, ["data"]).predict([x]), labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
