"""The size gate on files: what bytes are made of, folders, updates, history, bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.gates import manifest
from tests.support.paths import ROOT
from tfprune.gate import limits as budgets
from tfprune.output_folder import transaction
from tfprune.tflite.reader import shares
from tools.compare import main


def test_bytes_of_a_file_by_hand(folders):
    parts = shares(folders / "small" / "net_float32.tflite")
    assert (
        sum(share.bytes for share in parts)
        == (folders / "small" / "net_float32.tflite").stat().st_size
    )
    weights = sorted(s.bytes for s in parts if s.kind == "weights" and s.bytes)
    assert weights == sorted([4 * 30 * 40, 4 * 40 * 7, 4 * 40, 4 * 7])
    assert {s.operator for s in parts if s.kind == "weights" and s.bytes} == {"FULLY_CONNECTED"}
    assert not sum(s.bytes for s in parts if s.kind == "quantisation")
    parts = shares(folders / "small" / "net_int8.tflite")
    weights = sorted(s.bytes for s in parts if s.kind == "weights" and s.bytes)
    assert weights == sorted([30 * 40, 40 * 7, 4 * 40, 4 * 7])
    # Scales per channel for two kernels and two biases, zero points once for each width; a scale
    # and a zero point for each activation.
    expected = (2 * 4 + 8) * (40 + 7) + 12 * 3
    assert sum(s.bytes for s in parts if s.kind == "quantisation") == expected


def test_names_and_shapes_are_those_that_the_interpreter_sees(folders):
    from ai_edge_litert.interpreter import Interpreter

    path = folders / "large" / "net_int8.tflite"
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    theirs = {detail["name"] for detail in interpreter.get_tensor_details()}
    named = {share.name for share in shares(path) if share.kind == "names" and share.bytes}
    assert named == {"data", "output_0"} == theirs - {""}


def test_folders_and_why(gate, folders):
    code, out, _ = gate(folders / "small", folders / "large", "--why")
    assert code == 1
    grown = 4 * (30 * 20 + 20 * 7 + 20)
    assert re.search(rf"net_float32.tflite.* \+{grown // 1000},\d\d\d B .*fail", out)
    inside = out[out.index("net_float32.tflite: ") :]
    assert re.search(rf"kind +weights .* \+{grown:,} B", inside)
    assert re.search(r"operator +FULLY_CONNECTED .* \+\d", inside)
    tensors = re.findall(r"tensor +(\S.*?)  .* \+([\d,]+) B$", inside, re.M)
    assert tensors[0][0].startswith("FULLY_CONNECTED 0, input 1")
    assert tensors[0][1] == f"{4 * 30 * 20:,}"
    assert gate(folders / "large", folders / "small")[0] == 0
    assert gate(folders / "small", folders / "small", "--why")[0] == 0
    made = gate(folders / "small.json", folders / "small", "--update")
    (folders / "small" / "sizes.json").write_bytes((folders / "small.json").read_bytes())
    code, inside, _ = gate(folders / "small" / "sizes.json", folders / "large", "--why")
    assert (made[0], code) == (0, 1)
    assert inside == out
    code, out, _ = gate({"net.tflite": 1}, {"net.tflite": 1}, "--why")
    assert "only its size is known" in out


def test_accuracy_in_a_folder_is_that_of_the_very_file(gate, folders, tmp_path):
    from tfprune.utils.digests import file_digest

    file = folders / "small" / "net_int8.tflite"
    (tmp_path / "new").mkdir()
    copy = tmp_path / "new" / file.name
    copy.write_bytes(file.read_bytes())
    entry = {"file": file.name, "bytes": 1, "accuracy": 0.5}
    content = {"schema": 1, "artifacts": [{**entry, "sha256": file_digest(copy)}]}
    (tmp_path / "new" / "manifest.json").write_text(json.dumps(content))
    old = {file.name: copy.stat().st_size}
    code, out, _ = gate(old, tmp_path / "new", "--all")
    assert (code, "50.00 %" in out) == (0, True)
    content["artifacts"][0]["sha256"] = "0" * 64
    (tmp_path / "new" / "manifest.json").write_text(json.dumps(content))
    code, out, err = gate(old, tmp_path / "new", "--all")
    assert (code, "50.00 %" in out) == (0, False)
    assert "not the file that the manifest measured" in err


def test_an_export_inside_another_is_left_alone(gate, folders, tmp_path):
    """exported/example of a checkout is none of the models that make export wrote."""
    made = tmp_path / "made"
    shutil.copytree(folders / "small", made)
    shutil.copytree(folders / "large", made / "example")
    shutil.copytree(folders / "small", made / ".tfprune-stage-0")
    old = {path.name: path.stat().st_size for path in made.glob("*.tflite")}
    nested = {f"example/{name}" for name in old}
    code, out, err = gate(old, made, "--all", "--format", "json")
    assert (code, err) == (0, "")
    assert {model["name"] for model in json.loads(out)["models"]} == {*old, *nested}
    for folder in (made, made / "example"):
        (folder / "manifest.json").write_text(json.dumps({"schema": 1, "artifacts": []}))
    code, out, err = gate(old, made, "--all", "--format", "json")
    assert {model["name"] for model in json.loads(out)["models"]} == set(old)
    assert "example/ in" in err
    assert "not compared" in err
    assert gate(made, folders / "small", "--update")[0] == 0
    assert {path.name for path in (made / "example").glob("*.tflite")} == set(old)


@pytest.mark.parametrize("name", ["base", "base.json"])
def test_update_makes_a_baseline_where_there_is_none(gate, folders, tmp_path, name):
    assert gate(tmp_path / name, folders / "small")[0] == 2
    assert gate(tmp_path / name, folders / "small", "--update")[0] == 0
    assert gate(tmp_path / name, folders / "small", "--slack", 0, "--max-increase", "0%")[0] == 0
    assert gate(tmp_path / name, folders / "large")[0] == 1
    assert gate(tmp_path / name, folders / "large", "--update")[0] == 0
    assert gate(tmp_path / name, folders / "large", "--slack", 0, "--max-increase", "0%")[0] == 0


def test_a_folder_that_is_half_changed_is_not_judged(gate, folders, tmp_path, monkeypatch):
    """By a run that was killed; an update of the baseline puts it right first."""
    monkeypatch.setattr(transaction, "PATIENCE", 0.0)
    made = tmp_path / "made"
    shutil.copytree(folders / "small", made)
    stage = made / ".tfprune-stage-x" / "new"
    shutil.copytree(folders / "large", stage)
    moves = sorted(path.name for path in stage.glob("*.tflite"))
    (stage / moves[0]).replace(made / moves[0])
    journal = {"stage": ".tfprune-stage-x", "moves": moves, "removals": [], "undo": False}
    (made / ".tfprune-journal").write_text(json.dumps(journal))
    for sides in ((made, folders / "small"), (folders / "small", made)):
        code, out, err = gate(*sides)
        assert (code, out) == (2, "")
        assert re.match(r"tools.compare: --\w+ \S+: a run was cut short while it put .*\n$", err)
    assert gate(made, folders / "large", "--slack", 0, "--max-increase", "0%", "--update")[0] == 0
    assert gate(made, folders / "large", "--slack", 0, "--max-increase", "0%")[0] == 0
    assert gate(folders / "large", made, "--slack", 0, "--max-increase", "0%")[0] == 0
    assert not list(made.glob(".tfprune-*"))


def test_a_baseline_and_its_limits_change_together(gate, folders, tmp_path):
    """In one folder in one step, so that no budget is tightened twice for one change."""
    limits = '[[models]]\nmatch = "*"\nbudget = 90000\n'
    for folder, config in ((tmp_path / "one", "one"), (tmp_path / "two", "other")):
        shutil.copytree(folders / "large", folder)
        (tmp_path / config).mkdir(exist_ok=True)
        (tmp_path / config / "sizes.toml").write_text(limits)
        words = ("--config", tmp_path / config / "sizes.toml", "--update")
        assert gate(folder, folders / "small", *words)[0] == 0
        tightened = (tmp_path / config / "sizes.toml").read_text()
        assert tightened != limits
        assert gate(folder, folders / "small", *words)[0] == 0
        assert (tmp_path / config / "sizes.toml").read_text() == tightened


CUT = """
import os, signal, sys
from tfprune.gate import sizes
from tools import compare

read = sizes.read_side
sizes.read_side = lambda *words: (read(*words), os.kill(os.getpid(), signal.SIGINT))[0]
sys.exit(compare.main(sys.argv[1:]))
"""


def test_ctrl_c_is_one_line(folders, tmp_path):
    small = str(folders / "small")
    words = ["--baseline", small, "--candidate", small, "--history", str(tmp_path / "history")]
    done = subprocess.run(
        [sys.executable, "-c", CUT, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "tools.compare: interrupted; nothing was changed\n"
    assert not list(tmp_path.iterdir())


def test_history_and_its_plot(gate, folders, tmp_path, capsys):
    history = tmp_path / "history.jsonl"
    for side in ("small", "large"):
        gate(folders / "small", folders / side, "--history", history)
    first, second = (json.loads(line) for line in history.read_text().splitlines())
    assert set(first) == {"commit", "date", "models"}
    assert {m["model"] for m in second["models"]} == {"net_float32.tflite", "net_int8.tflite"}
    size = (folders / "large" / "net_int8.tflite").stat().st_size
    assert {"model": "net_int8.tflite", "bytes": size, "accuracy": None} in second["models"]
    picture = tmp_path / "sizes.png"
    assert main(["--plot", "--history", str(history), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    bad = tmp_path / "sizes.sketch"
    assert main(["--plot", "--history", str(history), "--output", str(bad)]) == 2
    assert "sizes.sketch: expected one of ." in capsys.readouterr().err
    # A line that lacks its end, as some editors leave it, does not run into the next one.
    history.write_text(history.read_text().rstrip("\n"))
    gate(folders / "small", folders / "small", "--history", history)
    assert len([json.loads(line) for line in history.read_text().splitlines()]) == 3
    history.write_text('{"commit": 1}\n')
    assert main(["--plot", "--history", str(history), "--output", str(picture)]) == 2
    assert "line 1: expected a run" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2(gate, tmp_path, folders, capsys):
    good = manifest(tmp_path / "good.json", {"a.tflite": 1})
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "foreign.json").write_text('{"name": "package", "version": 1}')
    (tmp_path / "list.json").write_text("[1, 2]")
    manifest(tmp_path / "later.json", {"a.tflite": 1}, schema=2)
    manifest(tmp_path / "none.json", {})
    (tmp_path / "odd.json").write_text(
        '{"schema": 1, "artifacts": [{"file": "a.tflite", "bytes": "1"}]}'
    )
    twice = [{"file": "a.tflite", "bytes": 1}, {"file": "a.tflite", "bytes": 2}]
    (tmp_path / "twice.json").write_text(json.dumps({"schema": 1, "artifacts": twice}))
    (tmp_path / "empty").mkdir()
    whole = (folders / "small" / "net_int8.tflite").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("png", b"\x89PNG" * 9), ("no", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.tflite").write_bytes(content)
    cases = {
        "text.json": "expected JSON",
        "foreign.json": "expected a manifest of tfprune",
        "list.json": "expected a manifest of tfprune",
        "later.json": "expected schema 1, received 2",
        "none.json": "at least one model",
        "odd.json": "artifact 0: bytes: expected a whole number from 0",
        "twice.json": "two models named a",
        "empty": "expected .tflite files, the folder has none",
        "cut": "is it truncated?",
        "png": "expected a TFLite file",
        "no": "expected a TFLite file",
        "missing.json": "no such file or folder",
    }
    for name, message in cases.items():
        for sides in ((tmp_path / name, good), (good, tmp_path / name)):
            code, out, err = gate(*sides)
            assert (code, out) == (2, ""), name
            assert message in err
            assert len(err.splitlines()) == 1
    code, _, err = gate(tmp_path / "missing.json", good)
    assert "make one with --update" in err
    flags = {
        ("--max-increase", "2"): "--max-increase: expected a percentage with its sign",
        ("--slack", "many"): "--slack: expected bytes",
        ("--slack=-1",): "--slack: expected bytes",
        ("--max-drop", "-1"): "--max-drop: expected points",
        ("--format", "xml"): "invalid choice: 'xml'",
        ("--colour",): "unrecognized arguments: --colour",
        ("stray",): "unrecognized arguments: stray",
        ("--plot",): "--plot: expected --history",
        ("--why", "--format", "json"): "--why: expected --format table or markdown",
    }
    for words, message in flags.items():
        code, out, err = gate(good, good, *words)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
    assert main([]) == 2
    assert "--baseline: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slack = \n", r"line 1"),
        ("slack = 1\nbuget = 5\n", r"line 2: buget: unknown key, expected one of .*budget"),
        ('# c\n\nmax-increase = "2"\n', r"line 3: max-increase: expected a percentage"),
        ("max-increase = 2\n", r"line 1: max-increase: expected a percentage with its sign"),
        ('[[models]]\nmatch = "a"\nbudget = "9 parsecs"\n', r"line 3: budget: expected bytes"),
        ('[[models]]\nmatch = "a"\nbudget = -4\n', r"line 3: budget: expected bytes"),
        ('[[models]]\nmatch = "a"\n[[models]]\nbudget = 3\n', r"line 3: match: expected the glob"),
        ('[[models]]\nmatch = "a"\nsize = 3\n', r"line 3: size: unknown key"),
        ('allow-removed = "yes"\n', r"line 1: allow-removed: expected true or false"),
        ("max-drop = true\n", r"line 1: max-drop: expected points"),
        ("models = 3\n", r"models: expected \[\[models\]\] tables"),
    ],
)
def test_errors_in_sizes_toml_name_line_and_key(gate, tmp_path, text, message):
    config = tmp_path / "sizes.toml"
    config.write_text(text)
    code, out, err = gate({"a.tflite": 1}, {"a.tflite": 1}, "--config", config)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert len(err.splitlines()) == 1


def test_amounts():
    assert budgets.amount("24 KiB") == 24 * 1024
    assert budgets.amount("1.5MiB") == 1.5 * 1024**2
    assert budgets.amount("2 MB") == 2_000_000
    assert budgets.amount(7) == budgets.amount("7") == budgets.amount("7 B") == 7
    assert budgets.percent("2.5 %") == 2.5


def test_it_starts_at_once_with_nothing_but_the_standard_library(tmp_path):
    good = manifest(tmp_path / "good.json", {"a.tflite": 1})
    words = ["--baseline", good, "--candidate", good]
    # -S leaves every installed package out; as a script, as a pre-commit hook runs it.
    for start in ([str(ROOT / "tools" / "compare.py")], ["-m", "tools.compare"]):
        done = subprocess.run(
            [sys.executable, "-S", *start, *map(str, words)],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    code = "import sys, tools.compare; print(len([m for m in sys.modules if 'numpy' in m]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "0"
