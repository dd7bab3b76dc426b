"""A file that cannot be made does not end the run: the others are there, and it is named."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tfprune import TfpruneError, export
from tfprune.job import micro_files, variants
from tfprune.tflite import converter
from tools.compare import main as compare


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A recurrent model of more steps than int8 files are made of, and one of Dense layers."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(3)
    for name, first in (("looped", kl.GRU(4, name="gru")), ("plain", kl.Flatten())):
        hidden = kl.Dense(12, activation="relu", name="hidden")
        layers = [keras.Input((300, 1)), first, hidden, kl.Dense(3, activation="softmax")]
        keras.Sequential(layers, name=name).save(folder / f"{name}.keras")
    np.savez(folder / "data.npz", x=rng.normal(0, 1, (200, 300, 1)).astype("float32"))
    return folder


def words(files, name, output, *more):
    own = ["--model", files / f"{name}.keras", "--data", files / "data.npz", "--remove", "50%"]
    return [*own, "--refit", "0", "--output", output, *more]


def test_a_scheme_that_cannot_be_made_leaves_the_others(files, tmp_path, capfd):
    made = tmp_path / "made"
    argv = words(files, "looped", made, "--schemes", "float32,int8")
    code, out, err = run(argv, capfd)
    assert code == 3, err
    names = ["looped_float32.tflite", "looped_remove50_float32.tflite"]
    assert sorted(path.name for path in made.glob("*.tflite")) == names
    manifest = json.loads((made / "manifest.json").read_text())
    assert [entry["file"] for entry in manifest["artifacts"]] == names
    failed = [(entry["variant"], entry["scheme"], entry["file"]) for entry in manifest["failed"]]
    assert failed == [
        ("original", "int8", "looped_int8.tflite"),
        ("pruned", "int8", "looped_remove50_int8.tflite"),
    ]
    # Not to try --qat, which knows no recurrent layers.
    told = "pruned int8 file: model .*recurrent layers.*; choose other --schemes$"
    for text in (out, err):
        assert any(re.search(told, line) for line in text.splitlines())
    assert "2 of 4 files were not written" in err
    assert "Not written: pruned int8" in (made / "looped.md").read_text()
    # The gate shuts, for a file that was there before.
    before = dict(manifest, failed=[])
    entry = {"file": "looped_int8.tflite", "bytes": 5000}
    before["artifacts"] = [*manifest["artifacts"], entry]
    (tmp_path / "before.json").write_text(json.dumps(before))
    flags = ["--baseline", tmp_path / "before.json", "--candidate", made / "manifest.json"]
    assert compare([str(flag) for flag in (*flags, "--allow-removed", "--all")]) == 1
    out, err = capfd.readouterr()
    assert "could not be made" in out
    assert "looped_remove50_int8.tflite: could not be made" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--schemes", "int8"], "original int8 file: model .* recurrent layers"),
        (["--schemes", "int8,int16x8"], "original int8 file: .*likewise the others"),
    ],
)
def test_where_nothing_can_be_made_nothing_is_written(files, tmp_path, capfd, more, said):
    code, out, err = run(words(files, "looped", tmp_path / "made", *more), capfd)
    assert (code, out) == (2, "")
    assert re.search(said, err.splitlines()[-1])
    assert not (tmp_path / "made").exists()


def test_a_file_that_a_budget_needs_stays_an_error(files, tmp_path, capfd, monkeypatch):
    """The pruned int8 file fails once it is made for good."""

    def fails(model, schemes, *more):
        for scheme, data in converter.convert_each(model, schemes, *more):
            yield scheme, TfpruneError("it is wrong") if scheme == "int8" else data

    monkeypatch.setattr(variants, "convert_each", fails)
    argv = words(files, "plain", tmp_path / "made", "--schemes", "int8,float32")
    argv[argv.index("--remove") : argv.index("--remove") + 2] = ["--target-bytes", "90%"]
    code, out, err = run(argv, capfd)
    assert (code, out) == (2, "")
    assert "--target-bytes needs the pruned int8 file: it is wrong" in err.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_one_variant_may_fail_alone(files, tmp_path, capfd, monkeypatch):
    calls = []

    def fails(model, schemes, *more):
        calls.append(model)
        for scheme, data in converter.convert_each(model, schemes, *more):
            wrong = scheme == "int8" and len(calls) == 2
            yield scheme, TfpruneError("it is wrong") if wrong else data

    monkeypatch.setattr(variants, "convert_each", fails)
    argv = words(files, "plain", tmp_path, "--schemes", "int8,float32", "--json")
    code, out, err = run(argv, capfd)
    assert code == 3, err
    manifest = json.loads(out)
    made = [(entry["variant"], entry["scheme"]) for entry in manifest["artifacts"]]
    assert made == [("original", "int8"), ("original", "float32"), ("pruned", "float32")]
    (failed,) = manifest["failed"]
    assert (failed["variant"], failed["scheme"]) == ("pruned", "int8")
    assert failed["reason"] == "it is wrong; choose other --schemes, or try --qat 3"


@pytest.mark.parametrize("wrong", [{"original"}, {"original", "pruned"}])
def test_boards_are_told_of_the_int8_files_that_there_are(
    files, tmp_path, capfd, monkeypatch, wrong
):
    pytest.importorskip("tflite_micro", reason="needs requirements-tflm.txt")
    whole = keras.saving.load_model(files / "plain.keras").count_params()

    def fails(model, schemes, *more, **options):
        fault = ("original" if model.count_params() == whole else "pruned") in wrong
        for scheme, data in converter.convert_each(model, schemes, *more, **options):
            yield scheme, TfpruneError("it is wrong") if scheme == "int8" and fault else data

    for place in (variants, micro_files):
        monkeypatch.setattr(place, "convert_each", fails)
    own = ("--schemes", "int8,float32", "--json", "--c-array", "--device", "raspberry-pi-pico")
    code, out, err = run(words(files, "plain", tmp_path / "made", *own), capfd)
    assert code == 3, err
    made = json.loads(out)
    assert {entry["variant"] for entry in made["failed"]} == wrong
    assert len(made["artifacts"]) == 4 - len(wrong)
    source = tmp_path / "made" / "plain_remove50_int8.cc"
    assert source.exists() == ("pruned" not in wrong)
    if "pruned" not in wrong:
        (entry,) = made["microcontrollers"]["files"]
        assert entry["file"] == "plain_remove50_int8.tflite"
    # Where int8 is all that was asked for, it ends at once.
    own = ("--schemes", "int8", "--c-array")
    code, out, err = run(words(files, "plain", tmp_path / "none", *own), capfd)
    assert (code, out) == (2, "")
    assert "it is wrong" in err.splitlines()[-1]


def test_the_library_says_which_scheme_failed_and_what_to_call(tmp_path):
    """One line and no second error above it; nothing is written."""
    model = keras.Sequential([keras.Input((300, 1)), kl.GRU(4), kl.Dense(2)], name="m")
    x = np.random.default_rng(0).normal(size=(20, 300, 1)).astype("float32")
    for schemes, advice in (
        (["float32", "int8", "float16"], 'to write the others: schemes=["float32", "float16"]'),
        (["int8"], 'perhaps another can be made: schemes=["float32"]'),
    ):
        with pytest.raises(TfpruneError) as caught:
            export(model, tmp_path, schemes, x)
        text = str(caught.value)
        assert text.startswith(
            "schemes: int8 failed: model m: no file quantised from samples can be made"
        )
        assert text.endswith(f"; nothing was written; {advice}")
        assert caught.value.__cause__ is None
        assert not list(tmp_path.iterdir())
    # No scheme's fault: it speaks of the model alone.
    model.layers[-1].set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    with pytest.raises(TfpruneError, match="^model m: expected finite outputs"):
        export(model, tmp_path, ["float32", "int8"], x)


def test_a_scheme_that_fails_does_not_end_the_others_of_convert_each():
    model = keras.Sequential([keras.Input((300, 1)), kl.GRU(4), kl.Dense(2)])
    x = np.random.default_rng(0).normal(size=(20, 300, 1)).astype("float32")
    results = dict(converter.convert_each(model, ["int8", "float32"], [x]))
    assert isinstance(results["int8"], TfpruneError)
    assert isinstance(results["float32"], bytes)
    model.layers[-1].set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    results = dict(converter.convert_each(model, ["dynamic", "float32"], [x]))
    assert all("finite" in str(result) for result in results.values())
