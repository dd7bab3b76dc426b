"""``--c-array`` and ``--device`` on files that TensorFlow Lite Micro runs here, or refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl
from scipy import special

from tests.commands.test_export import ROOT
from tests.support.commands import command
from tfprune import TfpruneError
from tfprune.micro.c_source import c_array
from tfprune.micro.tflm import STEPS, _accepted, _check_near, check_runs, tried
from tfprune.tflite.converter import convert
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.reader import last_operators

pytest.importorskip("tflite_micro", reason="needs requirements-tflm.txt")

# Feeds a file in an arena of so many bytes, sharing nothing with the package.
ALONE = """
import sys, numpy as np
from tflite_micro import runtime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
path, arena = sys.argv[1], int(sys.argv[2])
content = open(path, "rb").read()
micro = runtime.Interpreter.from_bytes(content, arena_size=arena)
reference = Interpreter(path, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
reference.allocate_tensors()
(inside,), (outside,) = reference.get_input_details(), reference.get_output_details()
rng, equal = np.random.default_rng(1), 0
for _ in range(40):
    x = rng.integers(-128, 127, inside["shape"], endpoint=True).astype(np.int8)
    micro.set_input(x, 0); micro.invoke()
    reference.set_tensor(inside["index"], x); reference.invoke()
    equal += np.array_equal(micro.get_output(0), reference.get_tensor(outside["index"]))
print(equal)
"""


def alone(path, arena):
    words = [sys.executable, "-c", ALONE, str(path), str(arena)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A CNN and data of a user's own."""
    folder = tmp_path_factory.mktemp("own")
    # Kernels of Dense layers are a step apart here and there, those of convolutions are not.
    layers = [kl.Conv2D(12, 3, activation="relu"), kl.MaxPooling2D(), kl.Conv2D(3, 3)]
    layers += [kl.Flatten()]
    keras.Sequential([keras.Input((8, 8, 1)), *layers], name="own").save(folder / "my net.keras")
    rng = np.random.default_rng(2)
    x = rng.random((120, 8, 8, 1), dtype=np.float32)
    np.savez(folder / "data.npz", x=x)
    (folder / "tiny.toml").write_text("ram = 512\nflash = '1 MiB'")
    return folder


def exported(own, *words):
    given = ("--model", own / "my net.keras", "--data", own / "data.npz", "--output", own / "out")
    return command(os.environ, *given, *words)


@pytest.fixture(scope="module")
def made(own):
    board = f"raspberry-pi-pico,{own / 'tiny.toml'}"
    words = (
        "--layers",
        "conv",
        "--schemes",
        "float32,dynamic,int8",
        "--c-array",
        "--device",
        board,
    )
    done = exported(own, *words)
    assert done.returncode == 0, done.stderr
    return done, own / "out", json.loads((own / "out" / "manifest.json").read_text())


def test_arrays_stand_beside_the_int8_files_alone(made):
    done, folder, _ = made
    sources = [path for path in folder.iterdir() if path.suffix in (".h", ".cc")]
    assert {path.name for path in sources} == {
        f"my_net{part}_int8.{ending}" for part in ("", "_prune30") for ending in ("h", "cc")
    }
    assert "for microcontrollers are int8 files alone, not dynamic, float32" in done.stderr
    for path in folder.glob("*_int8.tflite"):
        source = (folder / f"{path.stem.replace(' ', '_')}.cc").read_text()
        numbers = re.findall(r"0x([0-9a-f]{2}),", source)
        assert bytes.fromhex("".join(numbers)) == path.read_bytes()


def test_files_run_in_their_arena_and_no_smaller_one_bit_for_bit(made):
    _, folder, manifest = made
    measured = [entry for entry in manifest["artifacts"] if "arena_bytes" in entry]
    assert [entry["scheme"] for entry in measured] == ["int8", "int8"]
    for entry in measured:
        done = alone(folder / entry["file"], entry["arena_bytes"])
        assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
        assert alone(folder / entry["file"], entry["arena_bytes"] - 256).returncode
    for entry in manifest["microcontrollers"]["files"]:
        assert (entry["different"], entry["steps"], entry["kernels"]) == (0, 0, "reference")
        assert (entry["samples"], entry["values"]) == (16, 16 * 3)


def test_arenas_and_boards_stand_in_the_output(made):
    done, folder, manifest = made
    pico, tiny = manifest["microcontrollers"]["devices"]
    assert (pico["name"], tiny["name"]) == ("raspberry-pi-pico", "tiny")
    for entry in manifest["artifacts"]:
        if entry["scheme"] != "int8":
            continue
        arena, size = entry["arena_bytes"], entry["bytes"]
        header = folder / f"{entry['file'].replace(' ', '_').removesuffix('.tflite')}.h"
        (macro,) = re.findall(r"_ARENA_SIZE (\d+)", header.read_text())
        assert 0 <= int(macro) - arena < 16
        row = next(line for line in done.stdout.splitlines() if line.startswith(entry["file"]))
        assert row.split()[-1] == f"{arena:,}"
        assert (
            f"  {entry['file']} fits, {264 * 1024 - arena:,} B of RAM and "
            f"{2 * 1024**2 - size:,} B of flash left"
        ) in done.stdout
        assert f"  {entry['file']} does not fit, {arena - 512:,} B of RAM too little" in done.stdout
    assert [file["fits"] for file in pico["files"] + tiny["files"]] == [True, True, False, False]


def test_without_flags_nothing_is_tried(own):
    done = exported(own, "--schemes", "int8", "--output", own / "plain")
    assert done.returncode == 2  # Given twice.
    words = ("--model", own / "my net.keras", "--data", own / "data.npz", "--schemes", "int8")
    done = command(os.environ, *words, "--output", own / "plain")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((own / "plain" / "manifest.json").read_text())
    assert "microcontrollers" not in manifest
    assert "arena" not in done.stdout
    assert not list((own / "plain").glob("*.h"))


def test_mistakes_are_told_before_the_work(own):
    done = exported(own, "--schemes", "float16", "--c-array")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tools.export: --c-array: it is for int8 files")
    done = exported(own, "--device", "pi")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "raspberry-pi-pico" in done.stderr
    done = exported(own, "--device", "tiny.toml")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_without_the_package_it_is_named_before_the_work(own):
    hidden = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'tflite_micro' else find(n, *a)\n"
        "from tools.export import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", hidden, "--c-array", "--output", str(own / "none")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install -r requirements-tflm.txt" in done.stderr
    assert not (own / "none").exists()


def files(model, scheme, x):
    ((_, data),) = convert(model, [scheme], [x])
    return data, LiteModel(data).fed([x[:4]])


def test_what_it_cannot_run_is_refused_with_the_reason(own):
    """Before anything is pruned, by the command; in TensorFlow Lite Micro's words."""
    model = keras.Sequential([keras.Input((4,)), kl.Dense(5, activation="gelu"), kl.Dense(3)])
    model.save(own / "gelu.keras")
    np.savez(own / "four.npz", x=np.random.default_rng(0).random((60, 4), dtype=np.float32))
    given = ("--model", own / "gelu.keras", "--data", own / "four.npz", "--c-array")
    done = command(os.environ, *given, "--output", own / "gelu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TensorFlow Lite Micro has no operator GELU" in done.stderr
    assert not (own / "gelu").exists()
    x = np.random.default_rng(1).random((40, 40), dtype=np.float32)
    dense = keras.Sequential([keras.Input((40,)), kl.Dense(30), kl.Dense(3)])
    for scheme, said in (("dynamic", "filter type: INT8 not supported"), ("float16", "was not")):
        with pytest.raises(TfpruneError, match=f"^it: TensorFlow .* cannot run it: .*{said}"):
            check_runs(*files(dense, scheme, x), "it")


def test_several_inputs_keep_their_places():
    wide, narrow = keras.Input((6,), name="b"), keras.Input((2,), name="a")
    model = keras.Model([wide, narrow], kl.Dense(3)(kl.Concatenate()([narrow, wide])))
    x = [np.random.default_rng(n).random((30, n), dtype=np.float32) for n in (6, 2)]
    ((_, data),) = convert(model, ["int8"], x)
    trial = tried(data, LiteModel(data, ["b", "a"]).fed([each[:5] for each in x]), "it")
    assert (trial.samples, trial.values, trial.different) == (5, 15, 0)
    header, _ = c_array(data, "two", trial.arena, trial.inputs, trial.outputs)
    assert {f"int8 {'x'.join(map(str, port.shape))}" for port in trial.inputs} == {
        "int8 1x6", "int8 1x2",
    }  # fmt: skip
    assert "#define TWO_INPUT_1_SCALE" in header


def test_failures_of_its_process_are_told():
    data, fed = files(keras.Sequential([keras.Input((4,)), kl.Dense(3)]), "int8", np.eye(4))
    with pytest.raises(TfpruneError, match="it: TensorFlow Lite Micro cannot run it: "):
        check_runs(data, [np.repeat(fed[0], 2, axis=0).astype(np.int32)], "it")


def test_arenas_that_set_up_needs_are_found(tmp_path):
    """Many small operators: what the interpreter says of its arena is not enough."""
    made = keras.Input((6,))
    tensors = [kl.Dense(3, activation="tanh")(made) for _ in range(9)]
    model = keras.Model(made, kl.Dense(2)(kl.Concatenate()(tensors)))
    x = np.random.default_rng(5).random((30, 6), dtype=np.float32)
    data, fed = files(model, "int8", x)
    trial = tried(data, fed, "it")
    (tmp_path / "many.tflite").write_bytes(data)
    assert alone(tmp_path / "many.tflite", trial.arena).returncode == 0
    assert alone(tmp_path / "many.tflite", trial.arena - 128).returncode
    # What the interpreter itself says that it used, on stderr.
    says = (
        "import sys; from tflite_micro import runtime\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "runtime.Interpreter.from_bytes(content, arena_size=10**6).print_allocations()"
    )
    words = [sys.executable, "-c", says, str(tmp_path / "many.tflite")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    (used,) = re.findall(r"Arena allocation total (\d+) bytes", done.stdout + done.stderr)
    assert int(used) < trial.arena


def sharp(gain):
    """A classifier whose logits are coarse in int8, and samples of it."""
    model = keras.Sequential([keras.Input((20,)), kl.Dense(24, "relu"), kl.Dense(4), kl.Softmax()])
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=weight.shape) * 0.2 for weight in model.get_weights()]
    model.set_weights([*weights[:2], *(gain * weight for weight in weights[2:])])
    return files(model, "int8", np.random.default_rng(3).normal(size=(300, 20)).astype(np.float32))


@pytest.mark.parametrize("gain", [10, 60])
def test_a_step_in_front_of_a_softmax_is_accepted_for_what_it_makes(gain):
    data, _ = sharp(gain)
    ((operator, scale),) = last_operators(data)
    assert operator == "SOFTMAX"
    rng = np.random.default_rng(4)
    logits = scale * rng.integers(-4, 5, (4000, 4))
    before, after = (special.softmax(one, axis=1) for one in
                     (logits, logits + scale * rng.choice([-1, 0, 1], logits.shape)))  # fmt: skip
    made = 256 * np.abs(after - before)
    accepted, why = _accepted(data, [{"quantization": (1 / 256, -128)}], 0)
    assert 0.8 * (accepted - STEPS) < made.max() <= accepted - STEPS
    assert "in front of SOFTMAX" in why
    apart = np.zeros((16, 4))
    apart[3, :2] = accepted
    _check_near(apart, accepted, why, "it: ", "reference")
    for wrong in (apart + 4, 1.1 * apart):
        with pytest.raises(TfpruneError, match="it: TensorFlow Lite Micro computes something else"):
            _check_near(wrong, accepted, why, "it: ", "reference")


def test_other_outputs_are_accepted_within_three_steps():
    data, _ = files(keras.Sequential([keras.Input((4,)), kl.Dense(3)]), "int8", np.eye(4))
    assert _accepted(data, [{"quantization": (0.1, 0)}], 0) == (STEPS, "")
