"""``tools/run.py`` as its user meets it on a device: copied alone, on files of several kinds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.litert import in_litert
from tests.support.pictures import encoded
from tfprune.tflite.converter import convert
from tfprune.utils.console import quiet
from tools import run

SCRIPT = Path(run.__file__)


def exported(folder, model, x, schemes=("float32", "int8"), batch=1):
    paths = {}
    for scheme, data in convert(model, schemes, x, batch):
        paths[scheme] = folder / f"{model.name}_{scheme}.tflite"
        paths[scheme].write_bytes(data)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(3).random((24, 8, 6, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def classifier(folder, pictures):
    """A picture classifier's files, all schemes, and its data in an .npz."""
    keras.utils.set_random_seed(3)
    stack = [kl.Conv2D(4, 3, activation="relu"), kl.Flatten(), kl.Dense(5)]
    # Far from even, so that its classes are several.
    stack += [kl.Rescaling(40.0), kl.Softmax()]
    model = keras.Sequential([keras.Input((8, 6, 1), name="image"), *stack], name="seer")
    schemes = ("float32", "float16", "dynamic", "int8", "int16x8")
    files = exported(folder, model, [pictures], schemes)
    y = np.random.default_rng(4).integers(0, 5, len(pictures))
    np.savez(folder / "test.npz", x_test=pictures, y_test=y)
    return files, y


@pytest.fixture
def call(capsys):
    """Runs the command in this process: exit code, JSON or stdout, stderr."""

    def do(*words):
        capsys.readouterr()
        code = run.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in words and code == 0 else out, err

    return do


def test_copied_alone_it_runs_several_files(classifier, folder, tmp_path):
    files, y = classifier
    shutil.copy(SCRIPT, tmp_path)
    words = [
        "run.py",
        *map(str, files.values()),
        "--data",
        str(folder / "test.npz"),
        "--runs",
        "20",
    ]
    code = f"import runpy, sys; sys.argv = {words!r}; sys.path = [p for p in sys.path if p]\n"
    code += "try:\n    runpy.run_path('run.py', run_name='__main__')\nfinally:\n"
    code += "    print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not {"tensorflow", "tfprune", "tools", "fire"} & set(done.stderr.split())
    # Nothing but the list of modules: no chatter.
    assert len(done.stderr.splitlines()) == 1
    for scheme, path in files.items():
        row = next(line for line in done.stdout.splitlines() if line.startswith(str(path)))
        right = np.mean(in_litert(path, np.load(folder / "test.npz")["x_test"]).argmax(1) == y)
        assert f"{path.stat().st_size:,}" in row, scheme
        assert f"{100 * right:.2f}" in row
    for head in ("load ms", "first ms", "p10 us", "median us", "p90 us", "samples/s", "accuracy %"):
        assert head in done.stdout
    assert "peak memory" in done.stdout


def test_figures_as_json(classifier, folder, call):
    files, y = classifier
    words = (*files.values(), "--data", folder / "test.npz", "--json", "--runs", "23")
    code, report, err = call(*words, "--threads", "2")
    assert (code, err) == (0, "")
    assert report["samples"] == len(y)
    assert report["threads"] == 2
    assert report["peak_memory_bytes"] > 10e6
    for entry, path in zip(report["files"], files.values(), strict=True):
        decided = in_litert(path, np.load(folder / "test.npz")["x_test"]).argmax(axis=1)
        assert entry["accuracy"] == pytest.approx(np.mean(decided == y))
        latency = entry["latency_us"]
        assert 0 < latency["p10"] <= latency["median"] <= latency["p90"]
        assert entry["runs"] == 23
        assert 0 < entry["samples_per_second"] <= 1e6 / latency["p10"] * 1.1
        assert entry["load_ms"] > 0 < entry["first_invoke_ms"]
        # A file that always answers the same would be right as often as this one.
        assert len(set(decided)) > 1


def test_without_data_it_times_and_says_nothing_of_scores(classifier, call):
    files, _ = classifier
    code, report, _ = call(files["int8"], "--json", "--runs", "5")
    assert code == 0
    assert "accuracy" not in report["files"][0]
    assert report["files"][0]["runs"] == 5


@pytest.mark.parametrize("scheme", ["float32", "int8", "int16x8"])
@pytest.mark.parametrize("reference", [False, True])
def test_outputs_are_those_of_the_interpreter(
    classifier, folder, tmp_path, call, pictures, scheme, reference
):
    files, _ = classifier
    path, made = files[scheme], tmp_path / "out.npz"
    words = [path, "--data", folder / "test.npz", "--runs", "0", "--outputs", made]
    code, _, err = call(*words, *["--reference"] * reference)
    assert (code, err) == (0, "")
    received = np.load(made)[f"{path.name}/0"]
    assert np.array_equal(received, in_litert(path, pictures, reference=reference, raw=True))


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_inputs_are_quantised_by_the_files_own_scale(folder, call, tmp_path, pictures, kind):
    """A file of whole-number input made by the converter alone, in a range of its own."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((8, 6, 1)), kl.Flatten(), kl.Dense(3)], name="plain")
    x = 7 * pictures - 2
    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(kind)
        data = converter.convert()
    path = tmp_path / "plain.tflite"
    path.write_bytes(data)
    y = model.predict(x, verbose=0)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    code, report, err = call(path, "--data", tmp_path / "d.npz", "--json", "--runs", "0")
    assert (code, err) == (0, "")
    assert report["files"][0]["mse"] < 0.001 * np.var(y)


def test_uint8_is_scaled_unless_told_otherwise(classifier, tmp_path, call, pictures):
    files, y = classifier
    whole = np.round(255 * pictures).astype(np.uint8)[..., 0]
    np.savez(tmp_path / "u.npz", x=whole, y=y)
    decided = in_litert(files["float32"], np.float32(whole)[..., None] / 255).argmax(axis=1)
    code, report, _ = call(files["float32"], "--data", tmp_path / "u.npz", "--json", "--runs", "0")
    assert code == 0
    assert report["files"][0]["accuracy"] == pytest.approx(np.mean(decided == y))
    assert "uint8 scaled from 0..255 to 0..1 (assumed; --scale none leaves it)" in report["notes"]
    assert any("channel axis" in note for note in report["notes"])
    raw = in_litert(files["float32"], np.float32(whole)[..., None])
    words = ("--data", tmp_path / "u.npz", "--runs", "0", "--scale", "none")
    code, _, _ = call(files["float32"], *words, "--outputs", tmp_path / "o.npz")
    assert code == 0
    assert np.array_equal(np.load(tmp_path / "o.npz")["seer_float32.tflite/0"], raw)


@pytest.mark.parametrize("batch", [None, 5])
def test_open_and_fixed_batches(folder, tmp_path, call, pictures, batch):
    model = keras.Sequential([keras.Input((8, 6, 1)), kl.Flatten(), kl.Dense(3)], name=f"b{batch}")
    (path,) = exported(tmp_path, model, [pictures], ("float32",), batch).values()
    expected = model.predict(pictures, verbose=0)
    np.savez(tmp_path / "d.npz", x_test=pictures)
    words = ("--data", tmp_path / "d.npz", "--runs", "2", "--outputs", tmp_path / "o.npz")
    assert call(path, *words)[0] == 0
    received = np.load(tmp_path / "o.npz")[f"{path.name}/0"]
    assert np.allclose(received, expected, atol=1e-5)


def test_several_inputs_and_outputs_by_their_names(tmp_path, call, rng):
    a, b = keras.Input((3,), name="zeta"), keras.Input((2,), name="alpha")
    joined = kl.Concatenate()([kl.Dense(4)(a), b])
    model = keras.Model([a, b], [kl.Dense(1)(joined), kl.Dense(7)(joined)], name="pair")
    x = [rng.random((9, n), dtype=np.float32) for n in (3, 2)]
    (path,) = exported(tmp_path, model, x, ("float32",)).values()
    value, seven = model.predict(x, verbose=0)
    np.savez(tmp_path / "d.npz", x_test_alpha=x[1], x_test_zeta=x[0], y_test=seven.argmax(1))
    words = ("--data", tmp_path / "d.npz", "--runs", "0", "--json", "--outputs", tmp_path / "o.npz")
    code, report, err = call(path, *words)
    assert (code, err) == (0, "")
    assert report["files"][0]["accuracy"] == 1
    made = np.load(tmp_path / "o.npz")
    assert np.allclose(made["pair_float32.tflite/0"], value, atol=1e-5)
    assert np.allclose(made["pair_float32.tflite/1"], seven, atol=1e-5)
    np.savez(tmp_path / "one.npz", alpha=x[1][0], zeta=x[0][:1])
    code, report, err = call(path, "--input", tmp_path / "one.npz", "--json")
    assert (code, err) == (0, "")
    assert report["files"][0]["outputs"][1]["class"] == seven[0].argmax()


@pytest.mark.parametrize("units", [1, 48])
def test_values_and_copies_are_scored_by_squared_error(tmp_path, call, pictures, units):
    stack = [kl.Flatten(), kl.Dense(units)]
    model = keras.Sequential([keras.Input((8, 6, 1)), *stack], name=f"values{units}")
    (path,) = exported(tmp_path, model, [pictures], ("float32",)).values()
    made = model.predict(pictures, verbose=0)
    target = pictures.reshape(24, 48) if units > 1 else made + 0.5
    np.savez(tmp_path / "d.npz", x=pictures, **({} if units > 1 else {"y": target[:, 0]}))
    code, report, _ = call(path, "--data", tmp_path / "d.npz", "--json", "--runs", "0")
    assert code == 0
    expected = np.mean((made - target) ** 2)
    assert report["files"][0]["mse"] == pytest.approx(expected, rel=1e-4)


def test_a_single_unit_decides_at_a_half(tmp_path, call, pictures):
    stack = [kl.Flatten(), kl.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((8, 6, 1)), *stack], name="gate")
    (path,) = exported(tmp_path, model, [pictures], ("float32",)).values()
    y = model.predict(pictures, verbose=0)[:, 0] > 0.5
    np.savez(tmp_path / "d.npz", x=pictures, y=y.astype(int))
    code, report, _ = call(path, "--data", tmp_path / "d.npz", "--json", "--runs", "0")
    assert (code, report["files"][0]["accuracy"]) == (0, 1)


def test_indices_go_in_as_they_are(tmp_path, call, rng):
    stack = [kl.Embedding(200, 4), kl.Flatten(), kl.Dense(3)]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *stack], name="words")
    x = rng.integers(0, 200, (9, 6)).astype(np.uint8)
    (path,) = exported(tmp_path, model, [x.astype(np.int32)], ("float32",)).values()
    np.savez(tmp_path / "d.npz", x=x, y=model.predict(x.astype(np.int32), verbose=0).argmax(1))
    code, report, err = call(path, "--data", tmp_path / "d.npz", "--json", "--runs", "0")
    assert (code, err, report["files"][0]["accuracy"]) == (0, "", 1)
    np.savez(tmp_path / "f.npz", x=x + 0.5)
    code, _, err = call(path, "--data", tmp_path / "f.npz")
    assert code == 2
    assert "whole numbers" in err


def test_a_picture_is_classified(classifier, tmp_path, call, pictures):
    files, _ = classifier
    pixels = np.round(255 * pictures[4]).astype(np.uint8)
    (tmp_path / "digit.png").write_bytes(encoded(pixels, 0, (4, 1)))
    np.save(tmp_path / "x.npy", np.float32(pixels) / 255)
    np.save(tmp_path / "x1.npy", pixels[None])
    wanted = in_litert(files["int8"], np.float32(pixels)[None] / 255)[0]
    for words in (("--image", "digit.png"), ("--input", "x.npy"), ("--input", "x1.npy")):
        code, report, err = call(files["int8"], words[0], tmp_path / words[1], "--json")
        assert (code, err) == (0, "")
        (output,) = report["files"][0]["outputs"]
        assert output["class"] == wanted.argmax()
        assert output["top"][0][1] == pytest.approx(wanted.max(), abs=1e-6)
        assert "latency_us" not in report["files"][0]
    code, out, _ = call(files["int8"], "--image", tmp_path / "digit.png")
    assert f"class {wanted.argmax()}" in out


def wrong(folder, files, tmp_path):
    """What can be wrong with a command, each with what is said of it."""
    good, content = files["int8"], files["int8"].read_bytes()
    for name, data in (
        ("text.tflite", b"no model, but text"), ("empty.tflite", b""),
        ("half.tflite", content[: len(content) // 2]), ("most.tflite", content[:-9]),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        yield (tmp_path / name,), "TFLite file"
    yield (tmp_path / "none.tflite",), "none.tflite"
    yield (tmp_path,), "expected a file"
    x = np.zeros((4, 8, 6, 1), np.float32)
    arrays = {
        "shape": ({"x": np.zeros((4, 9, 9, 1))}, "8x6x1"),
        "nan": ({"x": x + np.nan}, "finite"),
        "text": ({"x": np.array(["a", "b"])}, "numbers"),
        "none": ({"x": x[:0]}, "samples"),
        "keys": ({"images": x}, "x_test"),
        "few": ({"x": x, "y": np.zeros(3, int)}, "labels"),
        "odd": ({"x": x, "y": np.zeros((4, 2, 2))}, "labels"),
        "beyond": ({"x": x, "y": np.full(4, 77)}, "labels"),
        "words": ({"x": x, "y": np.array(list("abcd"))}, "labels"),
    }
    for name, (made, said) in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **made)
        yield (good, "--data", tmp_path / f"{name}.npz"), said
    (tmp_path / "torn.npz").write_bytes((folder / "test.npz").read_bytes()[:200])
    yield (good, "--data", tmp_path / "torn.npz"), "torn.npz"
    yield (good, "--data", tmp_path / "gone.npz"), "gone.npz"
    np.save(tmp_path / "two.npy", x[:2])
    yield (good, "--input", tmp_path / "two.npy"), "8x6x1"
    picture = encoded(np.zeros((6, 8, 1), np.uint8), 0, (0,))
    (tmp_path / "turned.png").write_bytes(picture)
    yield (good, "--image", tmp_path / "turned.png"), "8x6"
    (tmp_path / "torn.png").write_bytes(picture[:-25])
    yield (good, "--image", tmp_path / "torn.png"), "damaged"
    (tmp_path / "text.png").write_text("none")
    yield (good, "--image", tmp_path / "text.png"), "text.png"
    yield (good, "--threads", "0"), "--threads"
    yield (good, "--runs", "-1"), "--runs"
    yield (good, "--runs", "many"), "--runs"
    yield (good, "--bogus"), "--bogus"
    yield (), "FILE.tflite"
    yield (good, "--outputs", tmp_path / "o.npz"), "--data"
    yield (good, "--data", folder / "test.npz", "--input", tmp_path / "two.npy"), "both"
    yield (good, "--data", folder / "test.npz", "--outputs", tmp_path / "no" / "o.npz"), "no"


def test_mistakes_are_one_line_and_exit_code_2(classifier, folder, tmp_path, call):
    files, _ = classifier
    for words, said in wrong(folder, files, tmp_path):
        code, out, err = call(*words)
        assert (code, out) == (2, ""), (words, out, err)
        assert said in err, (words, err)
        assert err.startswith("run.py: ")
        assert len(err.splitlines()) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["Betainc", "Flex"])
def test_operators_that_a_runtime_lacks_are_named(tmp_path, call, name):
    """One of somebody's own, and one that TensorFlow alone has."""
    import tensorflow as tf

    with quiet():
        own = {"Betainc": lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x), "Flex": tf.linalg.inv}
        function = tf.function(own[name])
        concrete = function.get_concrete_function(tf.TensorSpec((3, 3), tf.float32))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
        converter.allow_custom_ops = name == "Betainc"
        (tmp_path / "flex.tflite").write_bytes(converter.convert())
    code, out, err = call(tmp_path / "flex.tflite")
    assert (code, out) == (2, "")
    assert "operator" in err
    assert ("Betainc" if name == "Betainc" else "TensorFlow") in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ("sys.modules['numpy'] = None", "numpy"),
        ("sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None", "ai-edge-litert"),
        ("sys.path.insert(0, 'fake'); sys.modules['ai_edge_litert'] = None", "numpy<2"),
    ],
)
def test_what_is_not_installed_is_named(classifier, tmp_path, setup, said):
    (tmp_path / "fake" / "tflite_runtime").mkdir(parents=True)
    (tmp_path / "fake" / "tflite_runtime" / "__init__.py").write_text("")
    words = ["run.py", str(classifier[0]["int8"])]
    code = f"import runpy, sys; sys.argv = {words!r}; {setup}; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    if said == "numpy<2" and np.__version__.startswith("1"):
        pytest.skip("numpy is not too new here")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {run.WORKER: "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert "requirements-pi.txt" in done.stderr
