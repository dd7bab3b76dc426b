"""The files that the repository brings along in exported/example/."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.litert import in_litert
from tfprune.job.model_card import card

ROOT = Path(__file__).parent.parent
NAMES = {"cnn_float32.tflite", "cnn_prune30_int8.tflite"}


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)


# What the commands of the README and the tests write into a checkout.
WRITTEN = (
    ".venv/bin/python", "exported/manifest.json", "exported/cnn_float32.tflite",
    "exported/cnn_prune30.keras", "exported/cnn_test.npz", "exported/plots/hidden_angles.png",
    "exported/.tfprune-lock", "exported/example/.tfprune-lock", "sweep/sweep.png",
    "studies/zheng/results.md", "tfprune.egg-info/PKG-INFO", "build/lib/tfprune/job/pipeline.py",
    "dist/tfprune.whl", "tfprune/__pycache__/job.cpython-311.pyc", ".hypothesis/examples",
    ".pytest_cache/README.md", ".mypy_cache/3.11/x.json", ".ruff_cache/0.8/x", ".coverage",
    "mnist.npz",
)  # fmt: skip


def test_what_commands_write_is_not_for_git():
    done = git("check-ignore", "--no-index", *WRITTEN)
    if done.returncode == 128:
        pytest.skip("not a checkout of git")
    assert done.stdout.decode().split() == list(WRITTEN)
    tracked = git("ls-files", "exported", "sweep", "studies").stdout.decode().split()
    assert {name for name in tracked if not name.startswith("exported/example/")} == {
        "exported/.gitkeep"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The committed files: those of the checkout may have been written over since."""
    archive = git("archive", "--format=zip", "HEAD", "exported/example")
    if archive.returncode:
        return ROOT / "exported" / "example"
    made = tmp_path_factory.mktemp("example")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(made)
    return made / "exported" / "example"


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_it_is_small_and_whole(folder, manifest):
    assert {entry["file"] for entry in manifest["artifacts"]} == NAMES
    assert [entry["variant"] for entry in manifest["artifacts"]] == ["original", "pruned"]
    assert manifest["dataset"]["name"] == "mnist"
    test = manifest["test_data"]
    assert test["samples"] == 100
    listed = {entry["file"] for entry in manifest["files"]}
    assert listed == {*NAMES, "cnn.md", "cnn_test.npz"}
    assert {path.name for path in folder.iterdir()} == {*listed, "manifest.json"}
    arrays = np.load(folder / test["file"])
    dataset = {key: manifest["dataset"][key] for key in ("name", "sha256")}
    assert json.loads(str(arrays["dataset"])) == dataset
    for entry in (*manifest["artifacts"], test, *manifest["files"]):
        content = (folder / entry["file"]).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert (folder / "cnn.md").read_text() == card(manifest)


def test_its_figures_hold(folder, manifest):
    arrays = np.load(folder / manifest["test_data"]["file"])
    images, labels = arrays["x_test"], arrays["y_test"]
    assert len(images) == len(labels) == 100
    for entry in manifest["artifacts"]:
        right = in_litert(folder / entry["file"], images).argmax(axis=1) == labels
        expected = manifest["test_data"]["scores"][entry["file"]]["accuracy"]
        assert right.mean() == pytest.approx(expected)
        # A hundred samples are few: the scores of all test data are near.
        assert entry["accuracy"] == pytest.approx(expected, abs=0.05)


def test_microcontrollers_give_the_same_bits(folder, manifest):
    pytest.importorskip("tflite_micro", reason="needs requirements-tflm.txt")
    from tfprune.micro.tflm import tflm_version, tried
    from tfprune.tflite.interpreter import LiteModel

    (entry,) = [e for e in manifest["artifacts"] if e["scheme"] == "int8"]
    data = (folder / entry["file"]).read_bytes()
    images = np.load(folder / manifest["test_data"]["file"])["x_test"]
    trial = tried(data, LiteModel(data).fed([images]), "it")
    assert (trial.values, trial.different, trial.kernels) == (1000, 0, "reference")
    # Versions may plan their memory otherwise.
    if tflm_version() == manifest["microcontrollers"]["tflite_micro"]:
        assert trial.arena == entry["arena_bytes"]
