"""``--adapt``: data that differ from those that a model was trained on."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.commands import run
from tests.support.graphs import fill


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose decisions are the labels, and the data in other units than it learnt on."""
    folder = tmp_path_factory.mktemp("adapted")
    rng = np.random.default_rng(5)
    layers = [keras.Input((6,)), kl.Dense(12), kl.BatchNormalization(), kl.ReLU(), kl.Dense(3)]
    layers += [kl.Activation("softmax")]
    x = rng.normal(size=(600, 6)).astype("float32")
    model = tfprune.adapt(fill(keras.Sequential(layers, name="net"), rng), x)
    # Means of the outputs taken out, so that no class is rare.
    kernel, _ = model.layers[-2].get_weights()
    logits = keras.Model(model.inputs, model.layers[-2].output).predict(x, verbose=0)
    model.layers[-2].set_weights([kernel, model.layers[-2].get_weights()[1] - logits.mean(axis=0)])
    model.save(folder / "net.keras")
    layers = [keras.Input((6,)), kl.Dense(12), kl.BatchNormalization(), kl.ReLU(), kl.Dense(1)]
    fill(keras.Sequential(layers, name="values"), rng).save(folder / "values.keras")
    labels = model.predict(x, verbose=0).argmax(axis=1)
    np.savez(folder / "moved.npz", x=3 * x + 2, y=labels)
    np.savez(folder / "same.npz", x=x, y=labels)
    np.savez(folder / "unlabelled.npz", x=3 * x + 2)
    keras.Sequential([keras.Input((6,)), kl.Dense(9), kl.Dense(3)]).save(folder / "none.keras")
    return folder


def exported(folder, data, tmp_path, capfd, *more, model="net"):
    argv = ["--model", folder / f"{model}.keras", "--data", folder / data, "--output", tmp_path]
    code, _, err = run(
        [*argv, "--schemes", "float32", "--remove", "10%", "--scale", "none", *more], capfd
    )
    assert code == 0, err
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    scores = {one["variant"]: one["accuracy"] for one in manifest["artifacts"] if "accuracy" in one}
    return manifest, scores, err


def test_that_it_would_help_is_said_and_that_it_did(folder, tmp_path, capfd):
    manifest, before, err = exported(folder, "moved.npz", tmp_path / "1", capfd)
    assert "instead: add --adapt" in err
    (told,) = [one for one in manifest["warnings"] if one["advice"] == ["add --adapt"]]
    manifest, after, err = exported(folder, "moved.npz", tmp_path / "2", capfd, "--adapt")
    assert "add --adapt" not in err
    assert err.count("--adapt: with BatchNormalization's means") == 1
    assert any(note.startswith("--adapt") for note in manifest["dataset"]["notes"])
    # The original's files stay as they were; the pruned model is as good as the adapted one.
    assert after["original"] == before["original"] < 0.9
    assert after["pruned"] > before["original"] + 0.05
    assert " in place of " in told["message"]


def test_where_it_does_not_help_the_original_is_kept(folder, tmp_path, capfd):
    _, before, err = exported(folder, "same.npz", tmp_path / "1", capfd)
    assert "--adapt" not in err
    _, after, err = exported(folder, "same.npz", tmp_path / "2", capfd, "--adapt")
    assert "so they are left as they were" in err
    assert after == before


@pytest.mark.parametrize(
    ("model", "measure"), [("net", "% of the answers change"), ("values", "output error ")]
)
def test_without_labels_nothing_tells(folder, tmp_path, capfd, model, measure):
    _, _, err = exported(folder, "unlabelled.npz", tmp_path, capfd, "--adapt", model=model)
    (line,) = [line for line in err.splitlines() if "without labels nothing tells" in line]
    assert measure in line


def test_a_model_without_it_is_refused(folder, tmp_path, capfd):
    argv = ["--model", folder / "none.keras", "--data", folder / "same.npz", "--output", tmp_path]
    code, out, err = run([*argv, "--adapt"], capfd)
    assert (code, out) == (2, "")
    assert "--adapt: it sets the statistics of BatchNormalization, and the model has none" in err
    assert not list(tmp_path.iterdir())
