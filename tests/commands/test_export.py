"""``python -m tools.export`` as its user meets it, checked by code that shares nothing with it."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tests.support.commands import command, run_litert
from tests.support.paths import ROOT

SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8")


DIGITS = ("--dataset", "digits", "--epochs", "8", "--seed", "5", "--units", "24")


@pytest.fixture(scope="session")
def first(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "made" / "here"
    done = command(
        environment, "--prune", "60", *DIGITS, "--schemes", ",".join(SCHEMES), "--output", folder
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
    assert names == {f"cnn{part}_{s}.tflite" for part in ("", "_prune60") for s in SCHEMES}
    assert {p.name for p in folder.iterdir()} == names | {
        "cnn.md", "cnn_prune60.keras", "manifest.json", "plots", "report.html",
    }  # fmt: skip
    plots = {p.name for p in (folder / "plots").iterdir()}
    assert plots == {"hidden_angles.png", "hidden_angle_map.png", "bytes_against_score.png"}
    for plot in (folder / "plots").iterdir():
        assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.trains
def test_the_manifest_has_its_fields(first):
    _, _, manifest = first
    assert manifest["schema"] == 1
    assert manifest["command"][:3] == ["python", "-m", "tools.export"]
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest["created"])
    assert manifest["seed"] == 5
    assert set(manifest["versions"]) >= {"python", "tensorflow", "keras", "numpy", "tfprune"}
    git = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    told = manifest["git"]
    assert (told and told["commit"]) == (None if head.returncode else head.stdout.strip())
    assert told is None or type(told["dirty"]) is bool
    dataset = manifest["dataset"]
    assert (dataset["name"], dataset["fallback_from"]) == ("digits", None)
    assert len(dataset["sha256"]) == len(manifest["model"]["sha256"]) == 64
    assert dataset["train"] + dataset["validation"] + dataset["test"] == 1797
    assert 0 < dataset["calibration"] <= dataset["train"]
    assert manifest["model"]["name"] == "cnn"
    prune = manifest["prune"]
    assert prune["threshold_degrees"] == 60
    assert (prune["centre"], prune["fold"]) == ("mean", "least-squares")
    assert prune["skipped"] == [{"name": "output", "reason": "output layer"}]
    (layer,) = prune["layers"]
    assert layer["name"] == "hidden"
    assert layer["units_before"] == 24
    gone = layer["similar"] + layer["complementary"] + layer["constant"]
    # At so wide an angle some always go.
    assert 0 < gone == layer["units_before"] - layer["units_after"]


@pytest.mark.trains
def test_parameters_and_shapes_really_fall(first):
    _, folder, manifest = first
    units = manifest["prune"]["layers"][0]["units_after"]
    convolutions = (25 * 10 + 10) + (25 * 10 * 20 + 20)
    for artifact in manifest["artifacts"]:
        width = 24 if artifact["variant"] == "original" else units
        dense = (320 * width + width) + (width * 10 + 10)
        assert artifact["parameters"] == convolutions + dense
        # Biases keep four bytes in files of 8 bits, eight with activations of 16; 8 are a shape.
        biases = 10 + 20 + width + 10
        beside = {"int8": 3 * biases, "int16x8": 7 * biases}.get(artifact["scheme"], 0)
        byte = {"float32": 4, "float16": 2}.get(artifact["scheme"], 1)
        if artifact["scheme"] != "dynamic":
            assert artifact["weights_bytes"] == byte * artifact["parameters"] + beside + 8
        assert artifact["weights_bytes"] < artifact["bytes"] < artifact["weights_bytes"] + 3400
    model = keras.models.load_model(folder / "cnn_prune60.keras")
    assert model.get_layer("hidden").kernel.shape == (320, units)
    assert model.get_layer("output").kernel.shape == (units, 10)
    size = {(a["variant"], a["scheme"]): a["bytes"] for a in manifest["artifacts"]}
    assert size["original", "float32"] - size["pruned", "float32"] >= 4 * 331 * (24 - units)


@pytest.mark.trains
def test_figures_hold_when_measured_again(first):
    from tfprune.data.sources import digits
    from tfprune.data.splits import prepare

    _, folder, manifest = first
    test = prepare(digits(5), "auto", None, 1, 5).test
    reference = run_litert(folder / "cnn_float32.tflite", test.x).argmax(axis=1)
    assert len(test) == manifest["dataset"]["test"]
    for artifact in manifest["artifacts"]:
        decided = run_litert(folder / artifact["file"], test.x).argmax(axis=1)
        assert artifact["accuracy"] == pytest.approx(np.mean(decided == test.y), abs=1e-6)
        assert artifact["agreement"] == pytest.approx(np.mean(decided == reference), abs=1e-6)
        assert 0 < artifact["latency_us"]["p10"] <= artifact["latency_us"]["median"]
    # Ten classes, of which nothing learnt would hit a tenth.
    learnt = [a["accuracy"] for a in manifest["artifacts"] if a["variant"] == "original"]
    assert min(learnt) > 0.5


def test_stdout_is_two_tables_and_stderr_progress_without_chatter(first):
    done, _, manifest = first
    out = done.stdout
    assert re.search(r"^data: digits; [\d,]+ train, [\d,]+ calibration, .* test$", out, re.M)
    assert "uint8 scaled from 0..255 to 0..1" in done.stderr
    assert re.search(r"^layer +units +kept +similar +complementary +constant +note", out, re.M)
    assert re.search(r"^output .* output layer$", out, re.M)
    head = r"^file +variant +scheme +bytes += weights +\+ overhead +times smaller +accuracy %"
    assert re.search(head, out, re.M)
    for artifact in manifest["artifacts"]:
        row = re.search(rf"^{artifact['file']} .*$", out, re.M).group()
        size, weights = artifact["bytes"], artifact["weights_bytes"]
        assert re.search(rf" {size:,} +{weights:,} +{size - weights:,} ", row)
        assert f"{100 * artifact['accuracy']:.2f}" in row
    for variant in ("original", "pruned"):
        total = sum(a["bytes"] for a in manifest["artifacts"] if a["variant"] == variant)
        assert re.search(rf"^total, 5 files +{variant} .* {total:,}", out, re.M)
    for step in ("training", "activations", "converting", "testing", "latency"):
        assert step in done.stderr
        assert f"{step}:" not in out
    assert re.findall(r"^(\d of 5): ", done.stderr, re.M) == [f"{n} of 5" for n in range(1, 6)]
    assert "\x1b" not in done.stderr
    noise = ("WARNING", "cuda", "oneDNN", "XNNPACK", "Saved artifact", "absl", "Warning", "I0000")
    # Whether so many units cost accuracy, which is warned of, depends on the training.
    chatter = out + re.sub(r"^WARNING: .*$", "", done.stderr, flags=re.M)
    assert not [word for word in noise if word.lower() in chatter.lower()]


def test_json_is_the_manifest_and_the_second_run_does_not_train(first, environment, tmp_path):
    # What an earlier run left in the folder.
    digest = hashlib.sha256(b"old").hexdigest()
    entries = [{"file": name, "sha256": digest} for name in ("old.tflite", "plots/old.png")]
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": entries}))
    (tmp_path / "plots").mkdir()
    for name in ("old.tflite", "plots/old.png", "mine.tflite", "plots/mine.png"):
        (tmp_path / name).write_text("old")
    done = command(
        environment, "--prune=60", *DIGITS, "--schemes", "int8", "--json", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "manifest.json").read_text())
    assert "from the cache" in done.stderr
    assert "training" not in done.stderr
    again, before = json.loads(done.stdout), first[2]
    assert again["model"] == before["model"]
    assert again["prune"] == before["prune"]
    same = {a["file"]: a["sha256"] for a in before["artifacts"]}
    assert again["artifacts"][1]["sha256"] == same["cnn_prune60_int8.tflite"]
    assert "removing what an earlier run wrote" in done.stderr
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    listed = {entry["file"] for entry in again["files"]}
    assert files == listed | {"manifest.json", "mine.tflite", "plots/mine.png"}
    for entry in again["files"]:
        content = (tmp_path / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()


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
    [("difflib", 0), ("fire.core", 0), ("tfprune.job.config", 0), ("tfprune.job.config", 0.4)],
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


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("seed", [0, 1])
def test_the_cnn_on_mnist(mnist, environment, tmp_path, seed):
    """At 30 degrees many units go, for less than half a point, and int8 is 4 times smaller."""
    done = command(
        environment, "--prune", "30", "--dataset", "mnist", "--data", mnist, "--seed", seed,
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (layer,) = manifest["prune"]["layers"]
    # 43 and 47 of 64 were left; of 10,000 images a few are decided otherwise on other kernels.
    assert layer["units_after"] <= 0.9 * layer["units_before"]
    of = {(a["variant"], a["scheme"]): a for a in manifest["artifacts"]}
    whole = of["original", "float32"]
    assert whole["accuracy"] > 0.98
    for scheme in ("float32", "float16", "dynamic", "int8"):
        assert of["pruned", scheme]["accuracy"] >= whole["accuracy"] - 0.005
    assert 4 * of["pruned", "int8"]["bytes"] <= whole["bytes"]
