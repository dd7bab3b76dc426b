"""tools/run.py on files and data that a stranger made."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bombs import bomb
from tests.support.hostile_data import HOSTILE_DATA
from tests.support.paths import ROOT
from tools import run

SCRIPT = ROOT / "tools" / "run.py"
EXAMPLE = ROOT / "exported" / "example"
FILE = EXAMPLE / "cnn_prune30_int8.tflite"
DATA = EXAMPLE / "cnn_test.npz"


def changed(change) -> bytes:
    """The example's file after a change to its parts."""
    model = schema.ModelT.InitFromPackedBuf(FILE.read_bytes(), 0)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def large(model, graph):
    """The buffer of a kernel."""
    return max(model.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))


def reshape(graph, model):
    return next(
        o for o in graph.operators
        if model.operatorCodes[o.opcodeIndex].builtinCode == schema.BuiltinOperator.RESHAPE
    )  # fmt: skip


CHANGES = {
    "input out of range": lambda m, g: setattr(g, "inputs", [99]),
    "no such input": lambda m, g: setattr(g, "inputs", [-1]),
    "output out of range": lambda m, g: setattr(g, "outputs", [2**31 - 1]),
    "operator reads nothing": lambda m, g: setattr(g.operators[0], "inputs", [0, 2**30, 1]),
    "operator writes nothing": lambda m, g: setattr(g.operators[1], "outputs", [-5]),
    "operator of no kind": lambda m, g: setattr(g.operators[0], "opcodeIndex", 77),
    "no such buffer": lambda m, g: setattr(g.tensors[1], "buffer", 10**6),
    "negative shape": lambda m, g: setattr(g.tensors[2], "shape", [-3, 5]),
    "endless shape": lambda m, g: setattr(g.tensors[2], "shape", [2**20, 2**20, 2**20]),
    "short buffer": lambda m, g: setattr(large(m, g), "data", large(m, g).data[:7]),
    "impossible reshape": lambda m, g: setattr(reshape(g, m), "inputs", [0]),
    "signature": lambda m, g: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 4000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_indices_and_shapes_are_refused_before_the_runtime_sees_them(change):
    with pytest.raises((run.RunError, struct.error, IndexError)):
        run.check_graph(changed(CHANGES[change]))


def test_whole_files_pass(tmp_path):
    for path in EXAMPLE.glob("*.tflite"):
        run.check_graph(path.read_bytes())
    run.check_graph(changed(lambda m, g: None))
    with pytest.raises(run.RunError, match="over and over"):
        run.check_graph(bomb(3000))


@given(st.data())
def test_no_change_of_bytes_makes_the_check_fail_in_another_way(data):
    content = bytearray(FILE.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(9, len(content)))
    with contextlib.suppress(run.RunError, struct.error, IndexError):
        run.check_graph(bytes(content[:cut]))


@pytest.mark.parametrize("name", HOSTILE_DATA)
def test_hostile_data_is_one_line_and_exit_code_2(tmp_path, capsys, name):
    path = tmp_path / "data.npz"
    path.write_bytes(HOSTILE_DATA[name])
    assert run.main([str(FILE), "--data", str(path), "--runs", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert str(path) in err


def test_pipes_and_folders_are_not_waited_for(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        for words in ([path], [FILE, "--data", path], [FILE, "--image", path]):
            assert run.main(list(map(str, words))) == 2
            assert "expected a file" in capsys.readouterr().err


def started(*words, **settings):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, **settings
    )


def test_a_runtime_that_crashes_is_told_in_a_line(tmp_path):
    """Whatever file may do that: here the working process kills itself."""
    crash = "import numpy as np\n    os.kill(os.getpid(), 11)"
    (tmp_path / "run.py").write_text(SCRIPT.read_text().replace("import numpy as np", crash, 1))
    done = started(tmp_path / "run.py", FILE)
    assert (done.returncode, done.stdout) == (2, "")
    told = f"run.py: the runtime crashed (SIGSEGV) on one of {FILE}: is it whole?"
    assert done.stderr.splitlines() == [told]


def test_changed_files_never_end_in_a_traceback(tmp_path):
    """Seeded mutants in one process after another, as a user would run them."""
    rng = np.random.default_rng(5)
    original = FILE.read_bytes()
    for number in range(8):
        content = bytearray(original)
        for place in rng.integers(0, len(content), 40):
            content[place] = rng.integers(256)
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        done = started(SCRIPT, path, "--data", DATA, "--runs", "0")
        assert done.returncode in (0, 2)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1
