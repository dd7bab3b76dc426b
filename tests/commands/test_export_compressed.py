"""``--qat``, ``--cluster`` and ``--sparsity`` as a user of ``tools.export`` meets them."""

from __future__ import annotations

import gzip
import json
import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.tfmot.qat import quantisation_aware
from tfprune.utils.console import quiet
from tools.export import main


def run(argv, capfd):
    with warnings.catch_warnings():  # The command sets its own filters.
        code = main([str(word) for word in argv])
    return (code, *capfd.readouterr())


@pytest.fixture
def own(tmp_path, rng):
    """A user's own model, and data without labels."""
    data = keras.Input((6,), name="data")
    x = kl.Dense(16, activation="relu", name="hidden")(data)
    model = fill(keras.Model(data, kl.Dense(3, name="out")(x)), rng)
    model.save(tmp_path / "own.keras")
    np.savez(tmp_path / "own.npz", x=rng.normal(0, 1, (400, 6)).astype("float32"))
    return [
        "--model", tmp_path / "own.keras", "--data", tmp_path / "own.npz",
        "--output", tmp_path / "made",
    ]  # fmt: skip


@pytest.fixture
def trained_file(monkeypatch):
    """The int8 file of the training is kept, whichever of the two does better."""
    monkeypatch.setattr("tfprune.job.variants.distance", lambda outputs, targets: 0.0)


@pytest.mark.trains
@pytest.mark.usefixtures("trained_file")
def test_all_three_at_once(own, tmp_path, capfd):
    argv = [*own, "--schemes", "float32,int8,dynamic", "--sparsity", "50%", "--cluster", 8]
    code, out, err = run([*argv, "--qat", 2], capfd)
    assert code == 0, err
    assert "gzip shows their worth" in err
    assert "gzip" in out
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert manifest["compression"] == {"sparsity": 0.5, "clusters": 8, "qat_epochs": 2}
    made = {(a["variant"], a["scheme"]): a for a in manifest["artifacts"]}
    assert [scheme for _, scheme in made] == ["float32", "int8", "dynamic"] * 2
    assert made["original", "int8"]["made_by"] == "conversion after training"
    steps = "sparsity 50 %, 8 clusters, "
    assert made["pruned", "float32"]["made_by"] == steps + "conversion after training"
    training = "quantisation-aware training of 2 epochs"
    assert made["pruned", "int8"]["made_by"] == steps + training
    for artifact in made.values():
        content = (tmp_path / "made" / artifact["file"]).read_bytes()
        assert artifact["gzip_bytes"] == len(gzip.compress(content))
        assert artifact["agreement"] > 0.6
    small = keras.models.load_model(tmp_path / "made" / "own_prune30.keras")
    for name in ("hidden", "out"):
        kernel = small.get_layer(name).get_weights()[0]
        assert abs(np.mean(kernel == 0) - 0.5) <= 1 / kernel.size
        assert len(np.unique(kernel)) <= 8
    with quiet():
        interpreter = Interpreter(str(tmp_path / "made" / "own_prune30_int8.tflite"))
    for detail in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert detail["dtype"] == np.int8
        assert detail["shape"][0] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("trained_file")
def test_training_changes_the_int8_file_of_the_pruned_model_alone(own, tmp_path, capfd):
    contents = []
    for more in ([], ["--qat", 1], ["--qat", 1]):
        code, out, err = run([*own, "--schemes", "float32,int8", *more], capfd)
        assert code == 0, err
        assert "gzip" not in out
        files = sorted((tmp_path / "made").glob("*.tflite"))
        contents.append({file.stem: file.read_bytes() for file in files})
    plain, first, second = contents
    changed = [name for name in plain if plain[name] != first[name]]
    assert changed == ["own_prune30_int8"]
    assert first == second
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    assert not any("gzip_bytes" in artifact for artifact in manifest["artifacts"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--qat", "0"], "--qat: expected a whole number from 1"),
        (["--qat", "many"], "--qat: expected a whole number"),
        (["--qat", "1", "--schemes", "float32"], "--qat: it makes the int8 file"),
        (["--cluster", "1"], "--cluster: expected a whole number from 2 to 256, received 1"),
        (["--cluster", "257"], "--cluster: expected a whole number from 2 to 256"),
        (["--sparsity", "50"], "--sparsity: expected a share between 0 and 1"),
        (["--sparsity", "100%"], "received '100%'"),
        (["--sparsity", "0"], "received '0'"),
        (["--sparsity", "nan"], "received 'nan'"),
        (["--sparsity", "half"], "received 'half'"),
    ],
)
def test_mistakes_are_told_before_the_work(flags, says, own, tmp_path, capfd):
    code, out, err = run([*own, *flags], capfd)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("flags", [["--qat", 1], ["--cluster", 4], ["--sparsity", 0.5]])
def test_a_model_that_cannot_be_carried_is_told_before_the_work(flags, own, tmp_path, capfd, rng):
    data = keras.Input((6,), name="data")
    x = kl.Dense(8, activation="hard_sigmoid", name="odd")(data)
    fill(keras.Model(data, kl.Dense(3)(x)), rng).save(tmp_path / "own.keras")
    code, _, err = run([*own, *flags], capfd)
    assert code == 2
    assert "layer odd (Dense) cannot be carried to tf_keras: its activation hard_sigmoid" in err
    assert not (tmp_path / "made").exists()


def test_the_int8_file_without_training_is_kept_where_it_is_better(
    own, tmp_path, capfd, monkeypatch
):
    code, _, err = run([*own, "--schemes", "int8"], capfd)
    assert code == 0, err
    plain = (tmp_path / "made" / "own_prune30_int8.tflite").read_bytes()

    def spoilt(model, **settings):
        """Trained next to nothing, and of a model that computes something else."""
        model = keras.models.clone_model(model)
        model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
        return quantisation_aware(model, **settings)

    monkeypatch.setattr("tfprune.tfmot.qat.RATE", 1e-9)
    monkeypatch.setattr("tfprune.job.variants.quantisation_aware", spoilt)
    code, out, err = run([*own, "--schemes", "int8", "--qat", 1], capfd)
    assert code == 0, err
    assert (tmp_path / "made" / "own_prune30_int8.tflite").read_bytes() == plain
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    (entry,) = manifest["training"]
    assert (entry["how"], entry["best_epoch"]) == ("qat", 0)
    assert entry["after"] == entry["before"]
    assert "converted without training" in entry["note"]
    assert entry["note"] in out
    made = {(a["variant"], a["scheme"]): a["made_by"] for a in manifest["artifacts"]}
    assert made["pruned", "int8"] == "conversion after training"
