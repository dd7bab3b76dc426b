"""``--heal`` and ``--finetune``: what is trained, measured and said of it."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def own(tmp_path_factory, seed):
    """A compiled model that has learnt nothing yet, and data that a network like it can learn."""
    keras.utils.set_random_seed(seed)
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1600, 12)).astype("float32")
    y = (np.tanh(x @ rng.standard_normal((12, 8))) @ rng.standard_normal((8, 4))).argmax(1)
    model = keras.Sequential(
        [keras.Input((12,)), kl.Dense(32, activation="relu", name="hidden"), kl.Dense(4)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.RMSprop(0.004), loss)
    model.save(folder / "own.keras")
    np.savez(folder / "own.npz", x=x, y=y)
    np.savez(folder / "unlabelled.npz", x=x)
    return folder


def export(own, data, folder, capfd, *words):
    argv = ["--model", own / "own.keras", "--data", own / data, "--schemes", "float32"]
    code, out, err = run([*argv, "--prune", 70, "--output", folder, *words], capfd)
    assert code == 0, err
    return out, err, json.loads((folder / "manifest.json").read_text())


def scores(manifest, what):
    return {artifact["variant"]: artifact[what] for artifact in manifest["artifacts"]}


def test_healing_needs_no_labels_and_adds_no_file(own, tmp_path, capfd):
    _, _, before = export(own, "unlabelled.npz", tmp_path / "a", capfd)
    out, err, healed = export(own, "unlabelled.npz", tmp_path / "b", capfd, "--heal", 12)
    assert before["training"] == []
    (entry,) = healed["training"]
    assert (entry["how"], entry["variant"], entry["epochs"]) == ("heal", "pruned", 12)
    assert entry["samples"] == healed["dataset"]["train"]
    assert entry["after"] < 0.8 * entry["before"]
    assert entry["held_out"] == healed["dataset"]["validation"]
    assert 1 <= entry["best_epoch"] <= 12
    assert entry["seconds"] > 0
    assert not entry["note"]
    assert re.search(r"^\d of \d: healing$", err, re.M)
    assert re.search(r"^heal: pruned model, 12 epochs of [\d,]+ samples in ", out, re.M)
    ours, theirs = (scores(manifest, "output_error") for manifest in (healed, before))
    assert ours["pruned"] < 0.9 * theirs["pruned"]
    assert ours["original"] == theirs["original"]
    assert {a["file"] for a in healed["artifacts"]} == {a["file"] for a in before["artifacts"]}


def test_healing_may_stop_by_itself_but_moves_pictures_only(own, tmp_path, capfd):
    out, _, made = export(own, "unlabelled.npz", tmp_path, capfd, "--heal", "auto")
    (entry,) = made["training"]
    assert entry["epochs"] in (6, 14, 30)
    assert entry["after"] < entry["before"]
    assert not entry["augment"]
    assert re.search(
        rf"^heal: pruned model, {entry['epochs']} epochs of [\d,]+ samples in ", out, re.M
    )
    argv = ["--model", own / "own.keras", "--data", own / "own.npz", "--output", tmp_path]
    code, _, err = run([*argv, "--heal", "auto", "--augment"], capfd)
    assert code == 2
    assert re.search(r"--augment: expected a model that reads pictures.* shape \(12,\)", err)


def test_fine_tuning_sets_the_unpruned_model_beside_it(own, tmp_path, capfd):
    _, _, before = export(own, "own.npz", tmp_path / "a", capfd)
    words = ("--heal", 3, "--finetune", 8)
    out, err, made = export(own, "own.npz", tmp_path / "b", capfd, *words)
    trained = [(entry["how"], entry["variant"], entry["epochs"]) for entry in made["training"]]
    assert trained == [("heal", "pruned", 3), ("finetune", "finetuned", 8),
                       ("finetune", "pruned", 8)]  # fmt: skip
    files = {artifact["variant"]: artifact["file"] for artifact in made["artifacts"]}
    assert files == {
        "original": "own_float32.tflite",
        "finetuned": "own_finetuned_float32.tflite",
        "pruned": "own_prune70_float32.tflite",
    }
    for name in files.values():
        assert (tmp_path / "b" / name).is_file()
        assert re.search(rf"^{name} ", out, re.M)
    assert re.search(r"^total, 1 files +finetuned", out, re.M)
    assert "compile settings" not in err
    was, now = scores(before, "accuracy"), scores(made, "accuracy")
    assert now["original"] == was["original"]
    # Of four classes the unlearnt models hit a quarter, the tuned ones two thirds and more.
    assert now["finetuned"] > now["original"] + 0.15
    assert now["pruned"] > was["pruned"] + 0.1
    for entry in made["training"]:
        assert entry["after"] < entry["before"]
    saved = keras.models.load_model(tmp_path / "b" / "own_prune70.keras", compile=False)
    (layer,) = made["prune"]["layers"]
    assert saved.get_layer("hidden").units == layer["units_after"] < 32
    _, _, again = export(own, "own.npz", tmp_path / "c", capfd, *words)
    assert [a["sha256"] for a in again["artifacts"]] == [a["sha256"] for a in made["artifacts"]]


@pytest.mark.slow
def test_an_autoencoder_is_tuned_without_labels(tmp_path, capfd):
    x = np.random.default_rng(5).random((400, 5, 5)).astype("float32")
    np.savez(tmp_path / "x.npz", x=x)
    argv = ["--model", "autoencoder", "--units", 20, "--data", tmp_path / "x.npz", "--epochs", 1]
    code, _, err = run(
        [*argv, "--schemes", "float32", "--finetune", 6, "--output", tmp_path / "made"], capfd
    )
    assert code == 0, err
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert len(manifest["training"]) == 2
    for entry in manifest["training"]:
        assert entry["after"] < entry["before"]
    assert scores(manifest, "mse")["finetuned"] < scores(manifest, "mse")["original"]


@pytest.mark.skipif(find_spec("ai_edge_quantizer") is None, reason="needs ai-edge-quantizer")
def test_files_of_4_bits_come_from_a_model_that_healed_at_4_bits(own, tmp_path, capfd):
    argv = ["--model", own / "own.keras", "--data", own / "own.npz", "--schemes", "float32,int4"]
    code, _, err = run(
        [*argv, "--remove", "50%", "--refit", 0, "--output", tmp_path, "--heal", 4], capfd
    )
    assert code == 0, err
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [entry["how"] for entry in manifest["training"]] == ["heal", "heal at 4 bits"]
    rounding = manifest["training"][1]
    assert rounding["after"] < rounding["before"]
    made = {(a["variant"], a["scheme"]): a["made_by"] for a in manifest["artifacts"]}
    assert made["pruned", "int4"] == "healing of 4 epochs at 4 bits"
    assert made["pruned", "float32"] == made["original", "int4"] == "conversion after training"


def test_training_that_does_harm_changes_nothing_and_says_so(own, tmp_path, capfd):
    """The rate of fine-tuning is the one that the file was compiled with."""
    model = keras.models.load_model(own / "own.keras", compile=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(100.0), loss)
    model.save(own / "spoilt.keras")
    argv = ["--model", own / "spoilt.keras", "--data", own / "own.npz", "--schemes", "float32"]
    files = {}
    for name, words in (("a", []), ("b", ["--finetune", 2])):
        code, out, err = run([*argv, "--prune", 70, "--output", tmp_path / name, *words], capfd)
        assert code == 0, err
        files[name] = (tmp_path / name / "spoilt_prune70_float32.tflite").read_bytes()
    assert files["a"] == files["b"]
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert [entry["variant"] for entry in manifest["training"]] == ["finetuned", "pruned"]
    for entry in manifest["training"]:
        assert entry["after"] == entry["before"]
        assert entry["best_epoch"] == 0
        assert entry["note"] in out
        assert "the model stays as it was" in entry["note"]
