"""What ``tools/run.py`` makes of a user's own data: its range, and what its labels mean."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.litert import in_litert
from tfprune.tflite.converter import convert
from tools import run


@pytest.fixture
def score(capsys, tmp_path):
    """Runs files on arrays: the figures of each, and the notes."""

    def do(files, *words, **arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        capsys.readouterr()
        data = ("--data", str(tmp_path / "own.npz"))
        code = run.main([*map(str, files), *data, "--runs", "0", "--json", *words])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        report = json.loads(out)
        return report["files"], report["notes"]

    return do


def written(folder, model, x, schemes=("float32",)):
    """A model's files."""
    files = []
    for scheme, content in convert(model, schemes, [x]):
        files.append(folder / f"{model.name}_{scheme}.tflite")
        files[-1].write_bytes(content)
    return files


def manifest(folder, files, **about):
    """What ``tools.export`` writes beside files, as far as it matters here."""
    entries = [
        {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    ]
    (folder / "manifest.json").write_text(json.dumps({"artifacts": entries, **about}))


def scale(dtype, factor):
    return {"dataset": {"scales": {"image": {"dtype": dtype, "factor": factor, "auto": factor}}}}


@pytest.fixture(scope="module")
def bytes_and_files(tmp_path_factory):
    """A model that divides by 255 itself, and the bytes that it knows."""
    keras.utils.set_random_seed(3)
    stack = [
        kl.Rescaling(1 / 255),
        kl.Flatten(),
        kl.Dense(4, bias_initializer=keras.initializers.RandomNormal(0, 0.5)),
    ]
    model = keras.Sequential([keras.Input((5, 5, 1), name="image"), *stack], name="own")
    x = np.random.default_rng(1).integers(0, 256, (40, 5, 5, 1), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("bytes")
    files = written(folder, model, x.astype(np.float32), ("float32", "int8"))
    return x, model.predict(x, verbose=0).argmax(axis=1), files


LEFT, SCALED = "uint8 left as it is", "uint8 scaled from 0..255 to 0..1"


def test_a_quantised_file_says_itself_which_range_it_takes(bytes_and_files, score):
    x, y, (_, int8) = bytes_and_files
    (entry,), notes = score([int8], x=x, y=y)
    assert notes == [f"{LEFT} (as the file takes values up to 255)"]
    assert entry["accuracy"] > 0.9
    decided = in_litert(int8, x.astype(np.float32)).argmax(axis=1)
    assert entry["accuracy"] == np.mean(decided == y)


def test_a_manifest_says_which_range_a_file_takes(bytes_and_files, score, tmp_path):
    x, y, files = bytes_and_files
    copy = tmp_path / "own_float32.tflite"
    copy.write_bytes(files[0].read_bytes())
    (entry,), notes = score([copy], x=x, y=y)
    assert notes == [f"{SCALED} (assumed; --scale none leaves it)"]
    assert entry["accuracy"] < 1
    manifest(tmp_path, [copy], **scale("uint8", 1.0))
    (entry,), notes = score([copy], x=x, y=y)
    assert notes == [f"{LEFT} (as manifest.json says)"]
    assert entry["accuracy"] == 1
    manifest(tmp_path, [copy], **scale("uint8", 1 / 255))
    assert score([copy], x=x, y=y)[1] == [f"{SCALED} (as manifest.json says)"]
    (entry,), notes = score([copy], "--scale", "none", x=x, y=y)
    assert (entry["accuracy"], notes) == (1, [])
    # It was made of floats, or of another file, or is not what it should be: nothing is known.
    broken = [scale("float32", 1.0), {"dataset": {"scales": []}}, {"dataset": None}, {}]
    for about in broken:
        manifest(tmp_path, [copy], **about)
        assert "assumed" in score([copy], x=x, y=y)[1][0]
    manifest(tmp_path, files, **scale("uint8", 1.0))
    (tmp_path / "own_float32.tflite").write_bytes(files[0].read_bytes() + b"\0" * 16)
    assert "assumed" in score([copy], x=x, y=y)[1][0]


def test_bytes_of_0_and_1_are_not_made_smaller(bytes_and_files, score):
    x, _, (float32, _) = bytes_and_files
    few = (x > 127).astype(np.uint8)
    y = in_litert(float32, few.astype(np.float32)).argmax(axis=1)
    (entry,), notes = score([float32], x=few, y=y)
    assert (entry["accuracy"], notes) == (1, [])


def test_a_logit_decides_where_the_manifest_says(score, tmp_path):
    """Logits that all lie between 0 and 1 look like probabilities."""
    dense = kl.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,), name="image"), dense], name="logit")
    x = np.linspace(0.1, 0.9, 10, dtype=np.float32)[:, None]
    y = (np.arange(10) >= 3).astype(int)
    files = written(tmp_path, model, x)
    (entry,), notes = score(files, x=x, y=y)
    assert entry["accuracy"] == pytest.approx(np.mean((x[:, 0] > 0.5) == y))
    expected = "each unit decides alone above 0.5 (as its values lie between 0 and 1)"
    assert notes == [expected]
    manifest(tmp_path, files, scoring={"thresholds": [0.0]})
    (entry,), notes = score(files, x=x, y=y)
    assert entry["accuracy"] == pytest.approx(0.7)
    assert notes == ["each unit decides alone above 0 (as manifest.json says)"]
    for thresholds in ([], {}, ["many"], [[0]], None):
        manifest(tmp_path, files, scoring={"thresholds": thresholds})
        assert score(files, x=x, y=y)[1] == [expected]


@pytest.mark.parametrize(("activation", "known"), [("sigmoid", False), ("linear", True)])
def test_several_labels_at_once_are_decisions_of_each_unit(score, tmp_path, activation, known):
    dense = kl.Dense(3, activation=activation, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3,), name="image"), dense], name="bits")
    x = np.array([[2, -1, -3], [-1, -2, 1], [1, 1, 2], [-2, -1, 3]], np.float32)
    y = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    files = written(tmp_path, model, x)
    if known:
        (entry,), _ = score(files, x=x, y=y)
        assert entry["mse"] == pytest.approx(np.mean((x - y) ** 2))
        manifest(tmp_path, files, scoring={"thresholds": [0.0]})
    (entry,), notes = score(files, x=x, y=y)
    assert entry["accuracy"] == pytest.approx(8 / 12)
    assert notes[0].startswith(f"each unit decides alone above {0 if known else 0.5:g} ")


@pytest.mark.parametrize("units", [1, 3])
def test_labels_of_pictures_may_have_an_axis_of_one(score, tmp_path, rng, units):
    picture = keras.Input((4, 6, 2), name="picture")
    model = keras.Model(picture, kl.Conv2D(units, 3, padding="same")(picture), name=f"map{units}")
    x = rng.normal(0, 1, (20, 4, 6, 2)).astype(np.float32)
    made = model.predict(x, verbose=0)
    classes = made.argmax(axis=-1) if units > 1 else (made[..., 0] > 0).astype(int)
    classes[:, 0, 0] = 1 - np.minimum(classes[:, 0, 0], 1)
    files = written(tmp_path, model, x)
    right = np.mean(classes == (made.argmax(-1) if units > 1 else made[..., 0] > 0))
    for y in (classes, classes[..., None]):
        (entry,), _ = score(files, x=x, y=y)
        assert entry["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    "about",
    [
        {"factor": 1 / 127.5, "offset": -1.0},
        {"factor": 1.0, "offset": [-103.939, -116.779, -123.68], "reverse": True},
        {"factor": [0.02, 0.01, 0.03], "offset": [-2.0, -1.0, 0.5]},
    ],
)
def test_a_manifest_says_offsets_and_orders_of_channels(about, score, tmp_path, rng):
    # The fourth class is where all channels are below 0.
    dense = kl.Dense(4, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3,), name="image"), dense], name="own")
    x = rng.integers(0, 256, (50, 3), np.uint8)
    files = written(tmp_path, model, x.astype(np.float32))
    turned = x[:, ::-1] if "reverse" in about else x
    scaled = turned * np.array(about["factor"]) + np.array(about["offset"])
    y = np.pad(scaled, ((0, 0), (0, 1))).argmax(axis=1)
    (entry,), _ = score(files, x=x, y=y)
    assert entry["accuracy"] < 1
    scales = {"dataset": {"scales": {"image": {"dtype": "uint8", "auto": 1 / 255, **about}}}}
    manifest(tmp_path, files, **scales)
    (entry,), notes = score(files, x=x, y=y)
    assert (entry["accuracy"], notes) == (1, ["uint8 scaled (as manifest.json says)"])
