"""The size gate: limits to the byte, exit codes, formats, bad input, updates, history."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graphs import fill
from tfprune import budgets
from tfprune.tflite import shares
from tools.compare import main

ROOT = Path(__file__).parent.parent


def manifest(path, models, accuracy=None, tensorflow="2.21.0", **more):
    """A manifest of sizes; returns its path."""
    accuracy = accuracy or {}
    artifacts = [
        {"file": name, "bytes": size, **({"accuracy": accuracy[name]} if name in accuracy else {})}
        for name, size in models.items()
    ]
    content = {"schema": 1, "versions": {"tensorflow": tensorflow}, "artifacts": artifacts, **more}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Compares two dicts of sizes (or paths): exit code, stdout, stderr."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(old, new, *flags, about_old=None, about_new=None):
        if isinstance(old, dict):
            old = manifest(tmp_path / "old.json", old, **(about_old or {}))
        if isinstance(new, dict):
            new = manifest(tmp_path / "new.json", new, **(about_new or {}))
        code = main(["--baseline", str(old), "--candidate", str(new), *map(str, flags)])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("old", "new", "flags", "code"),
    [
        # 2 % of 100,000 is 2,000, more than the slack of 256.
        (100_000, 101_999, [], 0),
        (100_000, 102_000, [], 0),
        (100_000, 102_001, [], 1),
        # 2 % of 1,000 is 20; the slack of 256 lets more pass.
        (1000, 1255, [], 0),
        (1000, 1256, [], 0),
        (1000, 1257, [], 1),
        (1000, 1010, ["--slack", 10], 0),
        (1000, 1020, ["--slack", 10], 0),
        (1000, 1021, ["--slack", 10], 1),
        (1000, 1021, ["--slack", 10, "--max-increase", "2.1%"], 0),
        (1000, 1001, ["--slack", 0, "--max-increase", "0%"], 1),
        (1000, 1000, ["--slack", 0, "--max-increase", "0%"], 0),
        (1000, 10, ["--slack", 0, "--max-increase", "0%"], 0),
        (1000, 1025, ["--slack", "0.02 KiB"], 1),
        (1024, 1044, ["--slack", "0.02 KiB"], 0),
        (0, 256, [], 0),
        (0, 257, [], 1),
    ],
)
def test_growth_fails_only_over_both_limits(run, old, new, flags, code):
    assert run({"a.tflite": old}, {"a.tflite": new}, *flags)[0] == code


@pytest.mark.parametrize(("size", "code"), [(9999, 0), (10_000, 0), (10_001, 1)])
@pytest.mark.parametrize("budget", ["10000", '"10000"', '"10 KB"', '"10000 B"'])
def test_a_budget_holds_to_the_byte_whatever_the_baseline(run, tmp_path, size, code, budget):
    config = tmp_path / "sizes.toml"
    config.write_text(f'[[models]]\nmatch = "*.tflite"\nbudget = {budget}\n')
    result, out, _ = run({"a.tflite": size}, {"a.tflite": size}, "--config", config, "--all")
    assert result == code
    assert re.search(rf"10,000 B +{10_000 - size:,} B", out)
    if code:
        assert "1 B over its budget of 10,000 B" in out


@pytest.mark.parametrize(
    ("old", "new", "flags", "code"),
    [
        (0.990, 0.988, [], 0),
        (0.990, 0.9879, [], 1),
        (0.990, 0.999, [], 0),
        (0.990, 0.980, ["--max-drop", "1"], 0),
        (0.990, 0.9799, ["--max-drop", "1"], 1),
        (0.990, 0.9899, ["--max-drop", "0"], 1),
        (0.990, 0.990, ["--max-drop", "0"], 0),
    ],
)
def test_accuracy_may_not_fall_further(run, old, new, flags, code):
    name = "a.tflite"
    result, out, _ = run(
        {name: 900},
        {name: 100},
        *flags,
        about_old={"accuracy": {name: old}},
        about_new={"accuracy": {name: new}},
    )
    assert result == code
    assert f"({100 * (new - old):+.2f})" in out


def test_unknown_accuracy_warns_and_another_tensorflow_too(run):
    code, out, err = run(
        {"a": 9}, {"a": 9}, about_old={"accuracy": {"a": 0.9}}, about_new={"tensorflow": "2.22.0"}
    )
    assert code == 0
    assert re.search("warn +its accuracy is not known any more", out)
    assert "made with TensorFlow 2.21.0, the candidate with 2.22.0" in out
    assert "made with TensorFlow 2.21.0" in err


def test_added_and_removed(run, tmp_path):
    code, out, _ = run({"a": 1, "gone": 2000}, {"a": 1, "new": 5000})
    assert code == 1
    assert re.search("gone .* removed +removed, and that is not allowed", out)
    assert re.search("new .* added +not in the baseline", out)
    assert run({"a": 1, "gone": 2}, {"a": 1}, "--allow-removed")[0] == 0
    config = tmp_path / "sizes.toml"
    config.write_text('allow-removed = true\n[[models]]\nmatch = "new"\nbudget = 4999\n')
    assert run({"a": 1, "gone": 2}, {"a": 1}, "--config", config)[0] == 0
    code, out, _ = run({"a": 1}, {"a": 1, "new": 5000}, "--config", config)
    assert code == 1
    assert "1 B over its budget" in out


def test_the_first_rule_that_matches_counts_and_a_dead_one_warns(run, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(
        'max-increase = "50%"\nslack = 0\n'
        '[[models]]\nmatch = "*_int8.tflite"\nmax-increase = "10%"\n'
        '[[models]]\nmatch = "b_int8.tflite"\nbudget = 1\n'
        '[[models]]\nmatch = "c*"\nbudget = "1 MiB"\n'
    )
    old = {"a_int8.tflite": 100, "b_int8.tflite": 100, "b.tflite": 100}
    code, out, err = run(old, {**old, "b.tflite": 150}, "--config", config)
    assert code == 0
    assert "the limits for 'b_int8.tflite' (line 8) match no model" in err
    assert "the limits for 'c*' (line 11) match no model" in out
    assert run(old, {**old, "b.tflite": 151}, "--config", config)[0] == 1
    assert run(old, {**old, "a_int8.tflite": 111}, "--config", config)[0] == 1
    # The command line is over the file's general limits, not over its rules.
    flags = ["--config", config, "--max-increase", "0%"]
    assert run(old, {**old, "b.tflite": 101}, *flags)[0] == 1
    assert run(old, {**old, "a_int8.tflite": 110}, *flags)[0] == 0


def test_only_what_changed_is_shown_and_sizes_that_look_alike_in_bytes(run):
    code, out, _ = run({"same": 5000, "other": 90_000}, {"same": 5000, "other": 90_010})
    assert code == 0
    assert re.search(r"^other +90,000 B +90,010 B +\+10 B +\+0\.01 .* pass", out, re.M)
    assert "same" not in out.replace("unchanged", "")
    assert "1 unchanged, not shown" in out
    assert re.search(r"^total +92\.8 KiB +92\.8 KiB|^total +95,000 B +95,010 B", out, re.M)
    assert out.rstrip().endswith("passed, +10 B in total")
    _, out, _ = run({"same": 5000, "other": 90_000}, {"same": 5000, "other": 99_000}, "--all")
    assert re.search(r"^same +4\.9 KiB +4\.9 KiB +0 +0 ", out, re.M)
    assert re.search(r"^other +87\.9 KiB +96\.7 KiB +\+9,000 B +\+10\.00 .* fail", out, re.M)
    assert out.rstrip().endswith("FAILED: 1 of 2 models, +9,000 B in total")


def test_markdown_is_a_table_with_a_marker_and_goes_to_the_step_summary(run, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    path = manifest(tmp_path / "o.json", {"a|b.tflite": 1000, "c": 1000})
    new = manifest(tmp_path / "n.json", {"a|b.tflite": 9000, "d": 7})
    assert main(["--baseline", str(path), "--candidate", str(new), "--format", "markdown"]) == 1
    written = summary.read_text()
    assert written.startswith("before\n<!-- tfprune-sizes -->\n### ❌ Model sizes")
    table = [line for line in written.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert len(table) == 2 + 3 + 1
    assert "`a\\|b.tflite`" in table[2]
    assert "❌ fail" in table[2]
    assert "❌ removed" in table[3]
    assert "🆕 added" in table[4]


def test_the_json_schema_is_pinned(run):
    code, out, _ = run(
        {"a": 1000}, {"a": 2000}, "--format", "json",
        about_old={"accuracy": {"a": 0.9}}, about_new={"accuracy": {"a": 0.91}},
    )  # fmt: skip
    assert code == 1
    assert json.loads(out) == {
        "schema": 1,
        "failed": True,
        "models": [
            {
                "name": "a",
                "verdict": "fail",
                "failed": True,
                "reason": "1,000 B more, over both 2 % and 256 B",
                "baseline_bytes": 1000,
                "candidate_bytes": 2000,
                "delta_bytes": 1000,
                "delta_percent": 100.0,
                "budget_bytes": None,
                "bytes_left": None,
                "accuracy": 0.91,
                "accuracy_delta_points": 1.0,
            }
        ],
        "total": {"baseline_bytes": 1000, "candidate_bytes": 2000, "delta_bytes": 1000},
        "warnings": [],
    }
    documented = (ROOT / "docs" / "ci.md").read_text()
    for key in (*json.loads(out), *json.loads(out)["models"][0], *json.loads(out)["total"]):
        assert f"`{key}`" in documented


def test_benchmark_entries(run, tmp_path):
    target = tmp_path / "bench.json"
    code, out, _ = run({"a": 10, "b": 1}, {"a": 20}, "--format", "benchmark", "--output", target)
    assert (code, out) == (1, "")
    assert json.loads(target.read_text()) == [
        {"name": "a", "unit": "bytes", "value": 20, "extra": "pass"}
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same network with 40 and with 60 hidden units, as this package exports them."""
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (50, 30)).astype("float32")
    for name, units in (("small", 40), ("large", 60)):
        model = keras.Sequential(
            [
                keras.Input((30,), name="data"),
                kl.Dense(units, activation="relu", name="hidden"),
                kl.Dense(7, name="out"),
            ],
            name="net",
        )
        tfprune.export(fill(model, rng), root / name, ["float32", "int8"], x)
    return root


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
    # Scale and zero point: per channel for two kernels and two biases, one for each activation.
    expected = 12 * (2 * 40 + 2 * 7 + 3)
    assert sum(s.bytes for s in parts if s.kind == "quantisation") == expected


def test_names_and_shapes_are_those_that_the_interpreter_sees(folders):
    from ai_edge_litert.interpreter import Interpreter

    path = folders / "large" / "net_int8.tflite"
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    theirs = {detail["name"] for detail in interpreter.get_tensor_details()}
    ours = {share.name for share in shares(path) if share.kind == "names"}
    assert ours <= theirs


def test_folders_and_why(run, folders):
    code, out, _ = run(folders / "small", folders / "large", "--why")
    assert code == 1
    grown = 4 * (30 * 20 + 20 * 7 + 20)
    assert re.search(rf"net_float32.tflite.* \+{grown // 1000},\d\d\d B .*fail", out)
    inside = out[out.index("net_float32.tflite: ") :]
    assert re.search(rf"kind +weights .* \+{grown:,} B", inside)
    assert re.search(r"operator +FULLY_CONNECTED .* \+\d", inside)
    tensors = re.findall(r"tensor +(\S+) .* \+([\d,]+) B$", inside, re.M)
    assert "hidden" in tensors[0][0]
    assert tensors[0][1] == f"{4 * 30 * 20:,}"
    assert run(folders / "large", folders / "small")[0] == 0
    assert run(folders / "small", folders / "small", "--why")[0] == 0
    made = run(folders / "small.json", folders / "small", "--update")
    (folders / "small" / "sizes.json").write_bytes((folders / "small.json").read_bytes())
    code, inside, _ = run(folders / "small" / "sizes.json", folders / "large", "--why")
    assert (made[0], code) == (0, 1)
    assert inside == out
    code, out, _ = run({"net": 1}, {"net": 1}, "--why")
    assert "only its size is known" in out


def test_accuracy_in_a_folder_is_that_of_the_very_file(run, folders, tmp_path):
    from tfprune.digest import file_digest

    file = folders / "small" / "net_int8.tflite"
    (tmp_path / "new").mkdir()
    copy = tmp_path / "new" / file.name
    copy.write_bytes(file.read_bytes())
    entry = {"file": file.name, "bytes": 1, "accuracy": 0.5}
    content = {"schema": 1, "artifacts": [{**entry, "sha256": file_digest(copy)}]}
    (tmp_path / "new" / "manifest.json").write_text(json.dumps(content))
    old = {file.name: copy.stat().st_size}
    code, out, _ = run(old, tmp_path / "new", "--all")
    assert (code, "50.00 %" in out) == (0, True)
    content["artifacts"][0]["sha256"] = "0" * 64
    (tmp_path / "new" / "manifest.json").write_text(json.dumps(content))
    code, out, err = run(old, tmp_path / "new", "--all")
    assert (code, "50.00 %" in out) == (0, False)
    assert "not the file that the manifest measured" in err


TOML = """# Our budgets.
slack = 0  # bytes

[[models]]
match = "a_*"   # the phone
budget = "10 KiB"   # from the flash of the board

[[models]]
match = "b_*"
budget = 5000

[[models]]
match = "c_*"
budget = '9.5 KB'
"""


def test_update_rewrites_the_baseline_and_tightens_budgets(run, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(TOML)
    old = {"a_1": 9000, "a_2": 5000, "b_1": 4000, "c_1": 9000}
    new = {"a_1": 8000, "a_2": 5000, "b_1": 4500, "c_1": 8990}
    code, _, err = run(old, new, "--config", config, "--update")
    assert code == 0
    # The largest of a_* lost 1,000 bytes; b_* grew; c_* lost 10.
    expected = TOML.replace('"10 KiB"', '"9.03 KiB"').replace("'9.5 KB'", "'9.49 KB'")
    assert config.read_text() == expected
    assert "a_*: budget 10,240 -> 9,240 B" in err
    assert budgets.amount("9.03 KiB") >= 9240
    baseline = json.loads((tmp_path / "old.json").read_text())
    assert baseline == json.loads((tmp_path / "new.json").read_text())
    assert run(tmp_path / "old.json", tmp_path / "new.json", "--config", config)[0] == 0
    # Again, nothing shrank: nothing moves.
    assert run(tmp_path / "old.json", tmp_path / "new.json", "--config", config, "--update")[0] == 0
    assert config.read_text() == expected


def test_update_does_not_raise_a_budget(run, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(TOML)
    old = {"a_1": 10_000}
    code, _, err = run(old, {"a_1": 10_241}, "--config", config, "--update")
    assert code == 2
    assert "over its budget of 10,240 B; raise the budget by hand" in err
    assert json.loads((tmp_path / "old.json").read_text())["artifacts"][0]["bytes"] == 10_000


@pytest.mark.parametrize("name", ["base", "base.json"])
def test_update_makes_a_baseline_where_there_is_none(run, folders, tmp_path, name):
    assert run(tmp_path / name, folders / "small")[0] == 2
    assert run(tmp_path / name, folders / "small", "--update")[0] == 0
    assert run(tmp_path / name, folders / "small", "--slack", 0, "--max-increase", "0%")[0] == 0
    assert run(tmp_path / name, folders / "large")[0] == 1
    assert run(tmp_path / name, folders / "large", "--update")[0] == 0
    assert run(tmp_path / name, folders / "large", "--slack", 0, "--max-increase", "0%")[0] == 0


def test_history_and_its_plot(run, folders, tmp_path, capsys):
    history = tmp_path / "history.jsonl"
    for side in ("small", "large"):
        run(folders / "small", folders / side, "--history", history)
    first, second = (json.loads(line) for line in history.read_text().splitlines())
    assert set(first) == {"commit", "date", "models"}
    assert {m["model"] for m in second["models"]} == {"net_float32.tflite", "net_int8.tflite"}
    size = (folders / "large" / "net_int8.tflite").stat().st_size
    assert {"model": "net_int8.tflite", "bytes": size, "accuracy": None} in second["models"]
    picture = tmp_path / "sizes.png"
    assert main(["--plot", "--history", str(history), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    history.write_text('{"commit": 1}\n')
    assert main(["--plot", "--history", str(history), "--output", str(picture)]) == 2
    assert "line 1: expected a run" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, folders, capsys):
    good = manifest(tmp_path / "good.json", {"a": 1})
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "foreign.json").write_text('{"name": "package", "version": 1}')
    (tmp_path / "list.json").write_text("[1, 2]")
    manifest(tmp_path / "later.json", {"a": 1}, schema=2)
    manifest(tmp_path / "none.json", {})
    (tmp_path / "odd.json").write_text('{"schema": 1, "artifacts": [{"file": "a", "bytes": "1"}]}')
    twice = [{"file": "a", "bytes": 1}, {"file": "a", "bytes": 2}]
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
        "odd.json": "expected artifacts with file and bytes",
        "twice.json": "two models named a",
        "empty": "expected .tflite files, the folder has none",
        "cut": "is it truncated?",
        "png": "expected a TFLite file",
        "no": "expected a TFLite file",
        "missing.json": "no such file or folder",
    }
    for name, message in cases.items():
        for sides in ((tmp_path / name, good), (good, tmp_path / name)):
            code, out, err = run(*sides)
            assert (code, out) == (2, ""), name
            assert message in err
            assert len(err.splitlines()) == 1
    code, _, err = run(tmp_path / "missing.json", good)
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
        code, out, err = run(good, good, *words)
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
def test_errors_in_sizes_toml_name_line_and_key(run, tmp_path, text, message):
    config = tmp_path / "sizes.toml"
    config.write_text(text)
    code, out, err = run({"a": 1}, {"a": 1}, "--config", config)
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
    good = manifest(tmp_path / "good.json", {"a": 1})
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
