"""``python -m tools.export`` as its user meets it, checked by code that shares nothing with it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.graphs import fill, plant
from tfprune.quiet import quiet
from tools.command import main
from tools.export import export

ROOT = Path(__file__).parent.parent
SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8")


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    return {**os.environ, "TFPRUNE_CACHE": str(tmp_path_factory.mktemp("cache"))}


def command(environment, *words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "tools.export", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False,
    )  # fmt: skip


DIGITS = ("--dataset", "digits", "--epochs", "8", "--seed", "5", "--units", "24")


@pytest.fixture(scope="session")
def first(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "made" / "here"
    done = command(
        environment, "--prune", "30", *DIGITS, "--schemes", ",".join(SCHEMES), "--output", folder
    )
    assert done.returncode == 0, done.stderr
    return done, folder, json.loads((folder / "manifest.json").read_text())


def test_files_are_those_that_the_manifest_names(first):
    _, folder, manifest = first
    for artifact in manifest["artifacts"]:
        content = (folder / artifact["file"]).read_bytes()
        assert artifact["bytes"] == len(content)
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    names = {artifact["file"] for artifact in manifest["artifacts"]}
    assert names == {f"cnn{part}_{s}.tflite" for part in ("", "_prune30") for s in SCHEMES}
    assert {p.name for p in folder.iterdir()} == names | {
        "cnn_prune30.keras", "manifest.json", "plots",
    }  # fmt: skip
    plots = {p.name for p in (folder / "plots").iterdir()}
    assert plots == {"hidden_angles.png", "hidden_angle_map.png", "bytes_against_score.png"}
    for plot in (folder / "plots").iterdir():
        assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_manifest_has_its_fields(first):
    _, _, manifest = first
    assert manifest["schema"] == 1
    assert manifest["command"][:3] == ["python", "-m", "tools.export"]
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["created"])
    assert manifest["seed"] == 5
    assert set(manifest["versions"]) >= {"python", "tensorflow", "keras", "numpy", "tfprune"}
    assert set(manifest["git"] or {"commit": 0, "dirty": 0}) == {"commit", "dirty"}
    dataset = manifest["dataset"]
    assert (dataset["name"], dataset["fallback_from"]) == ("digits", None)
    assert len(dataset["sha256"]) == len(manifest["model"]["sha256"]) == 64
    assert dataset["train"] + dataset["validation"] + dataset["test"] == 1797
    assert 0 < dataset["calibration"] <= dataset["train"]
    assert manifest["model"]["name"] == "cnn"
    prune = manifest["prune"]
    assert prune["threshold_degrees"] == 30
    assert (prune["centre"], prune["fold"]) == ("auto", "least-squares")
    assert prune["skipped"] == [{"name": "output", "reason": "output layer"}]
    (layer,) = prune["layers"]
    assert layer["name"] == "hidden"
    assert layer["units_before"] == 24
    gone = layer["similar"] + layer["complementary"] + layer["constant"]
    assert 0 < gone == layer["units_before"] - layer["units_after"]


def test_parameters_and_shapes_really_fall(first):
    _, folder, manifest = first
    units = manifest["prune"]["layers"][0]["units_after"]
    convolutions = (25 * 10 + 10) + (25 * 10 * 20 + 20)
    for artifact in manifest["artifacts"]:
        width = 24 if artifact["variant"] == "original" else units
        dense = (320 * width + width) + (width * 10 + 10)
        assert artifact["parameters"] == convolutions + dense
    model = keras.models.load_model(folder / "cnn_prune30.keras")
    assert model.get_layer("hidden").kernel.shape == (320, units)
    assert model.get_layer("output").kernel.shape == (units, 10)
    size = {(a["variant"], a["scheme"]): a["bytes"] for a in manifest["artifacts"]}
    assert size["original", "float32"] - size["pruned", "float32"] >= 4 * 331 * (24 - units)


def run_litert(path, x):
    """The outputs of a file for float inputs, by the interpreter alone."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (inside,), (outside,) = interpreter.get_input_details(), interpreter.get_output_details()
    made = []
    for sample in x:
        value = sample[None]
        if inside["dtype"] == np.int8:
            scale, zero = inside["quantization"]
            value = np.clip(np.round(value / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(inside["index"], value.astype(inside["dtype"]))
        interpreter.invoke()
        made.append(interpreter.get_tensor(outside["index"])[0].astype(float))
    return np.array(made)


def test_figures_hold_when_measured_again(first):
    from tfprune.datasets import digits
    from tfprune.parts import prepare

    _, folder, manifest = first
    test = prepare(digits(5), "auto", None, 1, 5).test
    reference = run_litert(folder / "cnn_float32.tflite", test.x).argmax(axis=1)
    assert len(test) == manifest["dataset"]["test"]
    for artifact in manifest["artifacts"]:
        decided = run_litert(folder / artifact["file"], test.x).argmax(axis=1)
        assert artifact["accuracy"] == pytest.approx(np.mean(decided == test.y), abs=1e-6)
        assert artifact["agreement"] == pytest.approx(np.mean(decided == reference), abs=1e-6)
        assert 0 < artifact["latency_us"]["p10"] <= artifact["latency_us"]["median"]
    best = max(a["accuracy"] for a in manifest["artifacts"])
    worst = min(a["accuracy"] for a in manifest["artifacts"])
    assert best > 0.8
    assert worst > best - 0.03


def test_stdout_is_two_tables_and_stderr_progress_without_chatter(first):
    done, _, manifest = first
    out = done.stdout
    assert re.search(r"^data: digits; [\d,]+ train, [\d,]+ calibration, .* test$", out, re.M)
    assert "uint8 scaled from 0..255 to 0..1" in out
    assert re.search(r"^layer +units +kept +similar +complementary +constant +skipped", out, re.M)
    assert re.search(r"^output .* output layer$", out, re.M)
    assert re.search(r"^file +variant +scheme +bytes +times smaller +accuracy %", out, re.M)
    for artifact in manifest["artifacts"]:
        row = re.search(rf"^{artifact['file']} .*$", out, re.M).group()
        assert f"{artifact['bytes']:,}" in row
        assert f"{100 * artifact['accuracy']:.2f}" in row
    for variant in ("original", "pruned"):
        total = sum(a["bytes"] for a in manifest["artifacts"] if a["variant"] == variant)
        assert re.search(rf"^total, 5 files +{variant} .* {total:,}", out, re.M)
    for step in ("training", "activations", "converting", "testing pruned int8", "latency"):
        assert step in done.stderr
        assert f"{step}:" not in out
    noise = ("WARNING", "cuda", "oneDNN", "XNNPACK", "Saved artifact", "absl", "Warning", "I0000")
    assert not [word for word in noise if word.lower() in (out + done.stderr).lower()]


def test_json_is_the_manifest_and_the_second_run_does_not_train(first, environment, tmp_path):
    done = command(
        environment, "--prune=30", *DIGITS, "--schemes", "int8", "--json", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "manifest.json").read_text())
    assert "from the cache" in done.stderr
    assert "training" not in done.stderr
    again, before = json.loads(done.stdout), first[2]
    assert again["model"] == before["model"]
    assert again["prune"] == before["prune"]
    same = {a["file"]: a["sha256"] for a in before["artifacts"]}
    assert again["artifacts"][1]["sha256"] == same["cnn_prune30_int8.tflite"]


def test_ctrl_c_leaves_nothing_half_written(environment, tmp_path):
    (tmp_path / "manifest.json").write_text("before")
    words = ("--dataset", "digits", "--epochs", "4000", "--output", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-m", "tools.export", *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        seen = ""
        while "epoch" not in seen:
            seen += running.stderr.read(1)
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert "interrupted" in err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == "before"


@pytest.mark.parametrize(
    ("module", "delay"),
    [("difflib", 0), ("fire.core", 0), ("tfprune.request", 0), ("tfprune.request", 0.4)],
)
def test_ctrl_c_while_it_still_imports_is_one_line(environment, tmp_path, module, delay):
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "tools.export", "--output", str(tmp_path)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        # Python names every module on stderr when it has been imported.
        while not running.stderr.readline().endswith(f" {module}\n"):
            assert running.poll() is None
        time.sleep(delay)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    said = [line for line in err.splitlines() if line and not line.startswith("import time:")]
    assert said == ["tools.export: interrupted; nothing was changed"]
    assert (running.returncode, out) == (130, "")
    assert not list(tmp_path.iterdir())


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


def run(argv, capfd):
    """The command in this process: exit code, stdout, stderr."""
    with warnings.catch_warnings():  # The command sets its own filters.
        code = main(export, [str(word) for word in argv])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_a_model_of_the_users_own(files, tmp_path, capfd):
    argv = ["--model", files / "own.keras", "--data", files / "own.npz", "--output", tmp_path]
    code, out, err = run([*argv, "--schemes", "float32,int8", "--prune", 25.5], capfd)
    assert code == 0, err
    assert "channel axis added: (8, 8) to (8, 8, 1)" in out
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
    assert "input zeta: uint8 scaled" in out
    assert "input words: uint8 left as it is" in out
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
    assert "nothing to prune" in err
    first, second = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]
    assert first["bytes"] == second["bytes"]


OWN = ["--model", "{}/own.keras", "--data", "{}/own.npz"]
BAD = {
    "unknown flag": (["--prun", "30"], "unknown flag --prun; did you mean --prune?"),
    "unknown flag, last": ([*OWN, "--colour=red"], "unknown flag --colour=red; expected one of"),
    "stray word": ([*OWN, "quickly"], "stray word 'quickly'"),
    "separator": ([*OWN, "--", "--prun", "30"], "stray word '--'"),
    "dunder": (["__class__"], "stray word '__class__'"),
    "shorthand": ([*OWN, "-o", "x"], "stray word '-o'"),
    "negated": ([*OWN, "--nojson"], "unknown flag --nojson"),
    "twice": ([*OWN, "--prune", "30", "--prune=20"], "--prune: given twice"),
    "empty output": ([*OWN, "--output="], "--output: expected a value, received none"),
    "no layers": ([*OWN, "--layers", ","], "--layers: expected names"),
    "few samples": ([*OWN, "--calibration", "3"], "at least 8 samples"),
    "built-in layer": (["--dataset", "digits", "--layers", "nope"], "layer 'nope' is not"),
    "stray word, first": (["30"], "stray word '30'"),
    "no value": (["--output", "--prune", "30"], "--output: expected a value"),
    "percent": (["--prune", "30%"], "degrees between 0 and 90, received '30%'"),
    "text": (["--prune", "abc"], "degrees between 0 and 90, received 'abc'"),
    "nan": (["--prune", "nan"], "degrees between 0 and 90, received 'nan'"),
    "zero": (["--prune=0"], "degrees between 0 and 90, received '0'"),
    "right angle": (["--prune=90"], "degrees between 0 and 90, received '90'"),
    "negative": (["--prune", "-5"], "degrees between 0 and 90, received '-5'"),
    "layer": (
        [*OWN, "--layers", "third"],
        "layer 'third' is not a Dense or convolution layer",
    ),
    "layer to skip": ([*OWN, "--skip", "third"], "layer 'third' is not"),
    "both": ([*OWN, "--layers", "first", "--skip", "first"], "both name first"),
    "scheme": ([*OWN, "--schemes", "int8,int5"], "expected some of float32, .* received 'int5'"),
    "fold": ([*OWN, "--fold", "origami"], "--fold: expected one of least-squares"),
    "centre": ([*OWN, "--centre", "middle"], "centre: expected auto"),
    "dataset": (["--dataset", "imagenet"], "--dataset: expected one of auto, mnist, digits"),
    "scale": ([*OWN, "--scale", "big"], "--scale: expected one of auto, none"),
    "batch": ([*OWN, "--batch", "0"], "--batch: expected a whole number from 1 or dynamic"),
    "model": (["--model", "resnet"], "--model: expected cnn, mlp, autoencoder or the path"),
    "no data": (["--model", "{}/own.keras"], "expected data for a model of your own; add --data"),
    "missing model": (["--model", "{}/no.keras", *OWN[2:]], "no.keras: no such file"),
    "truncated model": (["--model", "{}/truncated.keras", *OWN[2:]], "is it truncated?"),
    "foreign model": (["--model", "{}/foreign.keras", *OWN[2:]], "expected a .keras file"),
    "other zip": (["--model", "{}/zip.keras", *OWN[2:]], "Keras cannot read it"),
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
    said = [line for line in err.splitlines() if not line.startswith("tfprune: data: ")]
    # Progress bars may stand before the message, on lines of their own.
    last = said[-1]
    assert last.startswith("tools.export: ")
    assert re.search(message, last)
    assert "Traceback" not in err
    if "activations" not in err:
        assert len(said) == 1
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


def test_help_names_every_flag(capfd):
    code, out, _ = run(["--help"], capfd)
    assert code == 0
    for flag in ("prune", "dataset", "data", "model", "fold", "layers", "schemes", "output"):
        assert f"--{flag}=" in out
    assert "FIRE_METADATA" not in out


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_cnn_on_mnist(mnist, environment, tmp_path, seed):
    """At 30 degrees a fifth of the units goes, for 0.2 points, and int8 is 4 times smaller."""
    done = command(
        environment, "--prune", "30", "--dataset", "mnist", "--data", mnist, "--seed", seed,
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (layer,) = manifest["prune"]["layers"]
    assert layer["units_after"] <= 0.8 * layer["units_before"]
    of = {(a["variant"], a["scheme"]): a for a in manifest["artifacts"]}
    whole = of["original", "float32"]
    assert whole["accuracy"] > 0.985
    for scheme in ("float32", "float16", "dynamic", "int8"):
        assert of["pruned", scheme]["accuracy"] >= whole["accuracy"] - 0.002
    assert 4 * of["pruned", "int8"]["bytes"] <= whole["bytes"]
