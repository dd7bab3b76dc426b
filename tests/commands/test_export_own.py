"""``python -m tools.export`` on models and data of a user's own, good and bad."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tests.support.graphs import fill, plant


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A user's own model and data, and broken ones."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(3)
    data = keras.Input((8, 8, 1), name="data")
    x = kl.Dense(20, activation="relu", name="first")(kl.Flatten()(data))
    x = kl.BatchNormalization()(x)
    second = kl.Dense(12, activation="tanh", name="second")(x)
    both = kl.Concatenate()([x, second])
    model = fill(keras.Model(data, kl.Dense(3, activation="softmax", name="out")(both)), rng)
    model.save(folder / "own.keras")
    keras.Sequential([keras.Input((8, 8, 1)), kl.Flatten(), kl.Dense(3)]).save(
        folder / "nothing.keras"
    )
    images = rng.integers(0, 256, (300, 8, 8), np.uint8)
    np.savez(folder / "own.npz", x=images, y=rng.integers(0, 3, 300))
    np.savez(folder / "unlabelled.npz", x=images)
    np.savez(folder / "few.npz", x=images[:6])
    (folder / "archive.npy").write_bytes((folder / "own.npz").read_bytes())
    np.savez(folder / "other.npz", x=images[:, :7])
    np.savez(folder / "empty.npz", x=images[:0])
    np.savez(folder / "nan.npz", x=np.where(images > 0, images, np.nan))
    np.savez(folder / "labels.npz", x=images, y=np.arange(300))
    content = (folder / "own.keras").read_bytes()
    (folder / "truncated.keras").write_bytes(content[: len(content) // 2])
    (folder / "foreign.keras").write_bytes(b"GIF89a")
    (folder / "file").write_text("")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    kernel, bias = model.get_layer("second").get_weights()
    model.get_layer("second").set_weights([kernel * np.nan, bias])
    model.save(folder / "nan.keras")
    return folder


def test_a_model_of_the_users_own(files, tmp_path, capfd):
    argv = [files / "own.keras", "--data", files / "own.npz", "--output", tmp_path]
    code, _, err = run([*argv, "--schemes", "float32,int8", "--prune", 25.5], capfd)
    assert code == 0, err
    assert err.count("channel axis added: (8, 8) to (8, 8, 1)") == 1
    assert f"files in {tmp_path}; the report is {tmp_path}/report.html" in err
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["model"] == {
        "name": "own",
        "sha256": hashlib.sha256((files / "own.keras").read_bytes()).hexdigest(),
    }
    assert manifest["dataset"]["name"] == "own"
    assert [layer["name"] for layer in manifest["prune"]["layers"]] == ["first", "second"]
    assert (tmp_path / "own_prune25.5_int8.tflite").is_file()


def test_a_model_of_several_inputs(tmp_path, capfd):
    rng = np.random.default_rng(3)
    zeta, alpha = keras.Input((8, 8, 1), name="zeta"), keras.Input((8, 8, 1), name="alpha")
    words = keras.Input((5,), dtype="int32", name="words")
    seen = kl.Flatten()(kl.Subtract()([zeta, alpha]))
    read = kl.Flatten()(kl.Embedding(50, 3)(words))
    hidden = kl.Dense(20, activation="relu", name="hidden")(kl.Concatenate()([seen, read]))
    out = kl.Dense(3, activation="softmax", name="out")(hidden)
    model = fill(keras.Model({"zeta": zeta, "alpha": alpha, "words": words}, out), rng)
    plant(model, "hidden", 0, 1)
    model.save(tmp_path / "two.keras")
    arrays = {
        "x_zeta": rng.integers(0, 256, (300, 8, 8), np.uint8),
        "x_alpha": rng.random((300, 8, 8, 1)),
        "x_words": rng.integers(0, 50, (300, 5), np.uint8),
    }
    taken = {
        "zeta": arrays["x_zeta"][..., None] / np.float32(255),
        "alpha": arrays["x_alpha"].astype("float32"),
        "words": arrays["x_words"].astype("int32"),
    }
    classes = np.asarray(model.predict(taken, verbose=0)).argmax(axis=1)
    np.savez(tmp_path / "two.npz", **arrays, y=classes)
    argv = ["--model", tmp_path / "two.keras", "--data", tmp_path / "two.npz", "--prune", 2]
    code, out, err = run(
        [*argv, "--schemes", "float32,int8", "--batch", "dynamic", "--output", tmp_path / "made"],
        capfd,
    )
    assert code == 0, err
    assert "input zeta: uint8 scaled" in err
    assert "input words: uint8 left as it is" in err
    made = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert made["prune"]["layers"][0]["units_after"] == 19
    for artifact in made["artifacts"]:
        # The labels are what the model decides for the arrays as they were meant.
        assert artifact["accuracy"] == artifact["agreement"]
        assert artifact["accuracy"] > (0.999 if artifact["scheme"] == "float32" else 0.9)
    np.savez(tmp_path / "bad.npz", **arrays, x_beta=np.zeros(300))
    code, out, err = run([*argv[:3], tmp_path / "bad.npz"], capfd)
    assert (code, out) == (2, "")
    assert "for each input NAME of the model (alpha, words, zeta) and no other" in err


def test_without_labels_agreement_stands_for_accuracy(files, tmp_path, capfd):
    argv = ["--model", files / "own.keras", "--data", files / "unlabelled.npz"]
    code, out, err = run([*argv, "--schemes", "int8", "--output", tmp_path], capfd)
    assert code == 0, err
    artifacts = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    assert all({"agreement", "output_error"} <= set(a) for a in artifacts)
    assert not any({"accuracy", "mse"} & set(a) for a in artifacts)
    assert "agreement %" in out
    assert "output error %" in out
    assert "accuracy" not in out


def test_a_model_with_nothing_to_prune_says_so(files, tmp_path, capfd):
    argv = ["--model", files / "nothing.keras", "--data", files / "own.npz"]
    code, out, err = run([*argv, "--schemes", "float32", "--output", tmp_path], capfd)
    assert code == 0
    assert "nothing to prune" in out
    assert "\nWARNING: nothing was pruned: no layer of those asked for can lose units" in err
    first, second = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    assert first["bytes"] == second["bytes"]


OWN = ["--model", "{}/own.keras", "--data", "{}/own.npz"]
BAD = {
    "unknown flag": (["--prun", "30"], "unknown flag --prun; did you mean --prune?"),
    "unknown flag, last": ([*OWN, "--xyz=red"], "unknown flag --xyz=red; expected one of"),
    "stray word": ([*OWN, "quickly"], "stray word 'quickly'"),
    "files": ([*OWN, "README.md"], "stray word 'README.md'; a pattern of files is quoted"),
    "separator": ([*OWN, "--", "--prun", "30"], "stray word '--'"),
    "dunder": (["__class__"], "--model: expected .* received '__class__'"),
    "shorthand": ([*OWN, "-o", "x"], "stray word '-o'"),
    "negated": ([*OWN, "--nojson"], "unknown flag --nojson"),
    "twice": ([*OWN, "--prune", "30", "--prune=20"], "--prune: given twice"),
    "empty output": ([*OWN, "--output="], "--output: expected a value, received none"),
    "no layers": ([*OWN, "--layers", ","], "--layers: expected names"),
    "few samples": ([*OWN, "--calibration", "3"], "at least 8 samples"),
    "built-in layer": (["--dataset", "digits", "--layers", "nope"], "layer 'nope' is no layer"),
    "stray word, first": (["30"], "--model: expected .* received '30'"),
    "no value": (["--output", "--prune", "30"], "--output: expected a value"),
    "percent": (["--prune", "30%"], "degrees between 0 and 90, received '30%'"),
    "text": (["--prune", "abc"], "degrees between 0 and 90, received 'abc'"),
    "nan": (["--prune", "nan"], "degrees between 0 and 90, received 'nan'"),
    "zero": (["--prune=0"], "degrees between 0 and 90, received '0'"),
    "right angle": (["--prune=90"], "degrees between 0 and 90, received '90'"),
    "negative": (["--prune", "-5"], "degrees between 0 and 90, received '-5'"),
    "layer": (
        [*OWN, "--layers", "third"],
        "layer 'third' is no layer of the model with units",
    ),
    "layer to skip": ([*OWN, "--skip", "third"], "layer 'third' is no layer"),
    "both": ([*OWN, "--layers", "first", "--skip", "first"], "both name first"),
    "scheme": ([*OWN, "--schemes", "int8,int5"], "expected some of float32, .* received 'int5'"),
    "fold": ([*OWN, "--fold", "origami"], "--fold: expected one of least-squares"),
    "centre": ([*OWN, "--centre", "middle"], "--centre: expected auto"),
    "dataset": (["--dataset", "imagenet"], "--dataset: expected one of auto, mnist, digits"),
    "scale": ([*OWN, "--scale", "big"], "--scale: expected one of auto, none"),
    "batch": (
        [*OWN, "--batch", "0"],
        "--batch: expected a whole number from 1 to 4096, or dynamic",
    ),
    "large batch": ([*OWN, "--batch", "100000"], "--batch: expected a whole number from 1 to 4096"),
    "model": (["--model", "resnet"], "--model: expected cnn, mlp, autoencoder or the path"),
    "layer of another kind": (
        ["--dataset", "digits", "--layers", "flatten"],
        "'flatten' is no layer of the model with units; these are: conv1, conv2",
    ),
    "two arrays": (
        ["--model", "{}/own.keras", "--data", "{}/archive.npy"],
        "an archive, not a single array",
    ),
    "no data": (["--model", "{}/own.keras"], "expected data for a model of your own; add --data"),
    "missing model": (["--model", "{}/no.keras", *OWN[2:]], "no.keras: no such file"),
    "truncated model": (["--model", "{}/truncated.keras", *OWN[2:]], "is it truncated?"),
    "foreign model": (["--model", "{}/foreign.keras", *OWN[2:]], "expected a .keras file"),
    "other zip": (["--model", "{}/zip.keras", *OWN[2:]], "which Keras does not write"),
    "missing data": ([*OWN[:2], "--data", "{}/no.npz"], "no.npz: no such file"),
    "foreign data": ([*OWN[:2], "--data", "{}/own.keras"], "expected a readable .npz|expected arr"),
    "shape": ([*OWN[:2], "--data", "{}/other.npz"], r"shape \(8, 8, 1\) .* received \(7, 8\)"),
    "empty": ([*OWN[:2], "--data", "{}/empty.npz"], "expected at least one sample"),
    "nan data": ([*OWN[:2], "--data", "{}/nan.npz"], "received NaN or infinity"),
    "nan weights": (["--model", "{}/nan.keras", *OWN[2:]], "layer second: expected finite weights"),
    "labels": ([*OWN[:2], "--data", "{}/labels.npz"], "fit no output of the model"),
    "output": ([*OWN, "--output", "{}/file/below"], "--output .*: expected a folder"),
    "number": (["--units", "many"], "--units: expected a whole number, received 'many'"),
    "size": (["--units", "0"], "--units: expected a whole number from 1 to 65535, received 0"),
    "units": ([*OWN, "--units", "3"], "--units: for built-in models only"),
    "no epochs of healing": (["--heal", "0"], "--heal: expected a whole number from 1 .* 0"),
    "healing backwards": ([*OWN, "--heal=-3"], "--heal: expected a whole number from 1 .* -3"),
    "healing in part": ([*OWN, "--heal", "1.5"], "--heal: expected a whole number, received '1.5'"),
    "healing for a while": (["--heal", "long"], "--heal: .* received 'long'; or auto"),
    "moved without healing": (
        [*OWN, "--augment"],
        "--augment: it is a part of healing; add --heal",
    ),
    "no epochs of tuning": ([*OWN, "--finetune", "0"], "--finetune: expected a whole number from"),
    "tuning backwards": (["--finetune=-1"], "--finetune: expected a whole number from 1 .* -1"),
    "tuning without labels": (
        [*OWN[:2], "--data", "{}/unlabelled.npz", "--finetune", "2"],
        "--finetune: expected labels to train on, in train and test data; --heal needs none",
    ),
    "data and digits": (["--dataset", "digits", *OWN[2:]], "not used with --dataset digits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_changes_nothing(case, files, tmp_path, capfd):
    words, message = BAD[case]
    (tmp_path / "manifest.json").write_text("before")
    argv = [word.replace("{}", str(files)) for word in words]
    if "--output" not in argv:
        argv += ["--output", str(tmp_path)]
    code, out, err = run(argv, capfd)
    assert code == 2
    assert out == ""
    # Progress bars may stand before the message, on lines of their own.
    last = err.splitlines()[-1]
    assert last.startswith("tools.export: ")
    assert re.search(message, last)
    assert "Traceback" not in err
    if "activations" not in err:
        assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "before"


def test_something_in_the_way_of_the_files_changes_nothing(files, tmp_path, capfd):
    (tmp_path / "plots").write_text("mine")
    (tmp_path / "own_float32.tflite").write_text("before")
    argv = ["--model", files / "own.keras", "--data", files / "own.npz", "--schemes", "float32"]
    code, out, err = run([*argv, "--output", tmp_path], capfd)
    assert (code, out) == (2, "")
    assert "plots is in the way, a file of that name" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own_float32.tflite", "plots"]
    assert (tmp_path / "own_float32.tflite").read_text() == "before"
