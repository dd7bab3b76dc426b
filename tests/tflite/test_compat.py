"""Files for tflite-runtime 2.14: by their operators' versions anywhere, in it where it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.litert import in_litert
from tfprune import TfpruneError, export
from tfprune.job.config import JobConfig
from tfprune.tflite.compat import VERSIONS, check_compat
from tfprune.tflite.converter import convert
from tfprune.tflite.reader import OPERATORS, operator_versions
from tools import run

SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """The dynamic file of a Dense layer, as the converter makes it today, and one for old ones."""
    model = keras.Sequential([keras.Input((40,)), kl.Dense(30), kl.Dense(3)], name="dense")
    x = np.random.default_rng(5).random((50, 40), dtype=np.float32)
    folder = tmp_path_factory.mktemp("dense")
    export(model, folder, ["dynamic"], x, name="new")
    export(model, folder, ["dynamic"], x, name="old", compat=True)
    return folder / "new_dynamic.tflite", folder / "old_dynamic.tflite", x


def test_todays_dense_layers_are_refused_and_those_for_old_runtimes_are_not(dense):
    new, old, x = dense
    assert operator_versions(new.read_bytes())["FULLY_CONNECTED"] == 12
    assert operator_versions(old.read_bytes())["FULLY_CONNECTED"] <= 10
    with pytest.raises(TfpruneError, match=r"FULLY_CONNECTED of version 12 \(it has 10\)"):
        check_compat(new.read_bytes(), "it")
    check_compat(old.read_bytes(), "it")
    exact, made = in_litert(new, x), in_litert(old, x)
    assert np.abs(exact - made).max() < 0.05 * np.ptp(exact)


def test_what_export_ships_has_no_newer_operators(shipped):
    folder, manifest = shipped
    assert manifest["compat"] == "tflite-runtime 2.14"
    files = [folder / artifact["file"] for artifact in manifest["artifacts"]]
    assert len(files) == 2 * len(SCHEMES)
    for file in files:
        versions = operator_versions(file.read_bytes())
        assert {"CONV_2D", "FULLY_CONNECTED"} <= set(versions)
        assert all(version <= VERSIONS[name] for name, version in versions.items())


def layered():
    """Layers of many kinds, for the operators that they become."""
    made = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="relu6")(made)
    x = kl.Add()([x, kl.DepthwiseConv2D(3, padding="same")(x)])
    x = kl.Concatenate()([kl.BatchNormalization()(x), kl.LeakyReLU()(x)])
    x = kl.AveragePooling2D(2)(kl.ZeroPadding2D(2)(x))
    x = kl.Conv2DTranspose(6, 3, strides=2, padding="same", activation="tanh")(x)
    x = kl.SeparableConv2D(6, 3, activation="silu")(x)
    gate = kl.Dense(6, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(x))
    x = kl.GlobalMaxPooling2D()(kl.Multiply()([x, gate]))
    return keras.Model(made, kl.Softmax()(kl.Dense(4)(x)), name="layered")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    x = np.random.default_rng(6).random((40, 8, 8, 3), dtype=np.float32)
    folder = tmp_path_factory.mktemp("many")
    return export(layered(), folder, SCHEMES, x, compat=True), x


def test_layers_of_many_kinds_are_checked(many):
    for path in many[0].values():
        check_compat(path.read_bytes(), "it")


def test_newer_operators_are_refused_in_one_line():
    """By the name of the operator; a file that ends too soon is told as well."""
    content = one_operator("BATCH_MATMUL", VERSIONS["BATCH_MATMUL"] + 1)
    with pytest.raises(TfpruneError, match="BATCH_MATMUL of version 5"):
        check_compat(content, "the file")
    with pytest.raises(TfpruneError, match="broken"):
        operator_versions(content[:30])


@pytest.mark.parametrize(
    ("activation", "scheme", "said"),
    [("gelu", "int16x8", "GELU of 16 bits"), ("softsign", "int8", "DIV of 8 bits")],
)
def test_numbers_that_its_kernels_do_not_take_are_refused(tmp_path, activation, scheme, said):
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, activation=activation)], name="odd")
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(TfpruneError, match=said):
        export(model, tmp_path, [scheme], x, compat=True)
    assert export(model, tmp_path, [scheme], x)
    assert export(model, tmp_path, ["float32"], x, compat=True)


def test_weights_of_4_bits_are_refused(tmp_path, rng):
    pytest.importorskip("ai_edge_quantizer", reason="needs requirements-int4.txt")
    model = keras.Sequential([keras.Input((64,)), kl.Dense(64, "relu"), kl.Dense(3)], name="low")
    x = rng.random((50, 64), np.float32)
    assert export(model, tmp_path, ["int4"], x)
    with pytest.raises(TfpruneError, match="FULLY_CONNECTED with weights of 4 bits"):
        export(model, tmp_path, ["int4"], x, compat=True)
    with pytest.raises(TfpruneError, match="has no weights of 4 bits; leave int4 out"):
        JobConfig(compat=True, schemes=("int8", "int4")).validate()


def test_convert_refuses_what_the_old_runtime_has_not(monkeypatch):
    monkeypatch.setitem(VERSIONS, "SOFTMAX", 0)
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, activation="softmax")], name="soft")
    x = np.eye(4, dtype=np.float32)
    assert dict(convert(model, ["float32"], [x]))
    with pytest.raises(TfpruneError, match="--compat: the float32 file of soft needs"):
        dict(convert(model, ["float32"], [x], compat=True))


def one_operator(name: str, version: int) -> bytes:
    """A file of one operator that reads and makes nothing."""
    from tensorflow.lite.python import schema_py_generated as schema

    model, code, graph, operator = (
        schema.ModelT(), schema.OperatorCodeT(), schema.SubGraphT(), schema.OperatorT(),
    )  # fmt: skip
    code.builtinCode, code.version = OPERATORS.index(name), version
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    operator.inputs, operator.outputs = [], []
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, model.description = [schema.BufferT()], "one operator"
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


TRY = """
import pathlib, sys
from tflite_runtime.interpreter import Interpreter
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        Interpreter(model_content=path.read_bytes())
    except ValueError as error:
        # Some want more than an operator; that is not what is asked.
        if "Didn't find op" in str(error):
            print(path.name)
"""


def test_the_table_of_versions_is_the_runtimes(old_runtime, tmp_path):
    for name, version in VERSIONS.items():
        for offered in (version, version + 1):
            (tmp_path / f"{name}-{offered}").write_bytes(one_operator(name, offered))
    for name in set(OPERATORS) - set(VERSIONS):
        (tmp_path / f"{name}-1").write_bytes(one_operator(name, 1))
    done = subprocess.run(
        [old_runtime, "-c", TRY, tmp_path], capture_output=True, text=True, check=True
    )
    refused = {f"{name}-{version + 1}" for name, version in VERSIONS.items()}
    # These three are no operators that a file can ask for.
    refused |= {f"{name}-1" for name in set(OPERATORS) - set(VERSIONS)}
    odd = {"CUSTOM-1", "DELEGATE-1", "PLACEHOLDER_FOR_GREATER_OP_CODES-1"}
    assert set(done.stdout.split()) - odd == refused - odd


def on_old(python: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``run.py`` in the old runtime."""
    return subprocess.run(
        [str(python), run.__file__, *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_old_runtime_runs_what_export_ships(old_runtime, shipped):
    folder, manifest = shipped
    test = manifest["test_data"]
    files = [folder / artifact["file"] for artifact in manifest["artifacts"]]
    done = on_old(old_runtime, *files, "--data", folder / test["file"], "--runs", "0", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["runtime"], report["version"]) == ("tflite-runtime", "2.14.0")
    x = np.load(folder / test["file"])["x_test"]
    for entry in report["files"]:
        here = test["scores"][Path(entry["file"]).name]["accuracy"]
        outputs = in_litert(Path(entry["file"]), x)
        second, first = np.sort(outputs, axis=1)[:, -2:].T
        close = np.sum(first - second <= 0.03 * np.ptp(outputs))
        # Its kernels round otherwise, which decides where two classes are as good as even.
        assert abs(entry["accuracy"] - here) * test["samples"] <= close + 0.01


def test_the_old_runtime_computes_layers_of_many_kinds(old_runtime, many, tmp_path):
    paths, x = many
    np.savez(tmp_path / "d.npz", x=x)
    words = ("--data", tmp_path / "d.npz", "--runs", "0", "--reference")
    done = on_old(old_runtime, *paths.values(), *words, "--outputs", tmp_path / "o.npz")
    assert (done.returncode, done.stderr) == (0, "")
    made = np.load(tmp_path / "o.npz")
    for scheme, path in paths.items():
        received = made[f"{path.name}/0"].astype(float)
        expected = in_litert(path, x, reference=True, raw=True)
        step = 1 if scheme == "int8" else 1e-3
        assert np.abs(received - expected).max() <= step, scheme


def test_the_old_runtime_refuses_the_others_in_one_line(old_runtime, dense):
    new, old, _ = dense
    done = on_old(old_runtime, new, "--runs", "0")
    assert (done.returncode, done.stdout) == (2, "")
    said = "tflite-runtime 2.14.0 has no FULLY_CONNECTED of version 12; export with --compat"
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert on_old(old_runtime, old, "--runs", "0").returncode == 0
