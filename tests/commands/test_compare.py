"""The size gate: limits to the byte, exit codes, formats, bad input, updates, history."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.gates import manifest
from tests.support.paths import ROOT
from tfprune.gate import limits as budgets
from tools.compare import main


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
def test_growth_fails_only_over_both_limits(gate, old, new, flags, code):
    assert gate({"a.tflite": old}, {"a.tflite": new}, *flags)[0] == code


@pytest.mark.parametrize(("size", "code"), [(9999, 0), (10_000, 0), (10_001, 1)])
@pytest.mark.parametrize("budget", ["10000", '"10000"', '"10 KB"', '"10000 B"'])
def test_a_budget_holds_to_the_byte_whatever_the_baseline(gate, tmp_path, size, code, budget):
    config = tmp_path / "sizes.toml"
    config.write_text(f'[[models]]\nmatch = "*.tflite"\nbudget = {budget}\n')
    result, out, _ = gate({"a.tflite": size}, {"a.tflite": size}, "--config", config, "--all")
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
def test_accuracy_may_not_fall_further(gate, old, new, flags, code):
    name = "a.tflite"
    result, out, _ = gate(
        {name: 900},
        {name: 100},
        *flags,
        about_old={"accuracy": {name: old}},
        about_new={"accuracy": {name: new}},
    )
    assert result == code
    assert f"({100 * (new - old):+.2f})" in out


def test_unknown_accuracy_warns_and_another_tensorflow_too(gate):
    code, out, err = gate(
        {"a.tflite": 9},
        {"a.tflite": 9},
        about_old={"accuracy": {"a.tflite": 0.9}},
        about_new={"tensorflow": "2.22.0"},
    )
    assert code == 0
    assert re.search("warn +its accuracy is not known any more", out)
    assert "made with TensorFlow 2.21.0, the candidate with 2.22.0" in out
    assert "made with TensorFlow 2.21.0" in err


@pytest.mark.parametrize(
    ("new", "digest", "said"), [(0.8, "b", True), (0.9, "b", False), (0.8, "a", False)]
)
def test_accuracy_of_other_data_is_told_where_it_differs(gate, new, digest, said):
    about = [
        {"accuracy": {"a.tflite": accuracy}, "dataset": {"sha256": 64 * sha}}
        for accuracy, sha in ((0.9, "a"), (new, digest))
    ]
    one = {"a.tflite": 9}
    code, out, err = gate(one, one, about_old=about[0], about_new=about[1])
    assert code == (new < 0.9)
    for printed in out, err:
        assert ("measured on other data than the baseline's" in printed) == said


def test_added_and_removed(gate, tmp_path):
    code, out, _ = gate({"a.tflite": 1, "gone.tflite": 2000}, {"a.tflite": 1, "new.tflite": 5000})
    assert code == 1
    assert re.search("gone.tflite .* removed +removed, and that is not allowed", out)
    assert re.search("new.tflite .* added +not in the baseline", out)
    assert gate({"a.tflite": 1, "gone.tflite": 2}, {"a.tflite": 1}, "--allow-removed")[0] == 0
    config = tmp_path / "sizes.toml"
    config.write_text('allow-removed = true\n[[models]]\nmatch = "new*"\nbudget = 4999\n')
    assert gate({"a.tflite": 1, "gone.tflite": 2}, {"a.tflite": 1}, "--config", config)[0] == 0
    code, out, _ = gate({"a.tflite": 1}, {"a.tflite": 1, "new.tflite": 5000}, "--config", config)
    assert code == 1
    assert "1 B over its budget" in out


def test_the_first_rule_that_matches_counts_and_a_dead_one_warns(gate, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(
        'max-increase = "50%"\nslack = 0\n'
        '[[models]]\nmatch = "*_int8.tflite"\nmax-increase = "10%"\n'
        '[[models]]\nmatch = "b_int8.tflite"\nbudget = 1\n'
        '[[models]]\nmatch = "c*"\nbudget = "1 MiB"\n'
    )
    old = {"a_int8.tflite": 100, "b_int8.tflite": 100, "b.tflite": 100}
    code, out, err = gate(old, {**old, "b.tflite": 150}, "--config", config)
    assert code == 0
    assert "the limits for 'b_int8.tflite' (line 8) match no model" in err
    assert "the limits for 'c*' (line 11) match no model" in out
    assert gate(old, {**old, "b.tflite": 151}, "--config", config)[0] == 1
    assert gate(old, {**old, "a_int8.tflite": 111}, "--config", config)[0] == 1
    # The command line is over the file's general limits, not over its rules.
    flags = ["--config", config, "--max-increase", "0%"]
    assert gate(old, {**old, "b.tflite": 101}, *flags)[0] == 1
    assert gate(old, {**old, "a_int8.tflite": 110}, *flags)[0] == 0


def test_only_what_changed_is_shown_and_sizes_that_look_alike_in_bytes(gate):
    code, out, _ = gate(
        {"same.tflite": 5000, "other.tflite": 90_000}, {"same.tflite": 5000, "other.tflite": 90_010}
    )
    assert code == 0
    assert re.search(r"^other.tflite +90,000 B +90,010 B +\+10 B +\+0\.01 .* pass", out, re.M)
    assert "same" not in out.replace("unchanged", "")
    assert "1 unchanged, not shown" in out
    assert re.search(r"^total +92\.8 KiB +92\.8 KiB|^total +95,000 B +95,010 B", out, re.M)
    assert out.rstrip().endswith("passed, +10 B in total")
    _, out, _ = gate(
        {"same.tflite": 5000, "other.tflite": 90_000},
        {"same.tflite": 5000, "other.tflite": 99_000},
        "--all",
    )
    assert re.search(r"^same.tflite +4\.9 KiB +4\.9 KiB +0 +0 ", out, re.M)
    assert re.search(r"^other.tflite +87\.9 KiB +96\.7 KiB +\+9,000 B +\+10\.00 .* fail", out, re.M)
    assert out.rstrip().endswith("FAILED: 1 of 2 models, +9,000 B in total")


def test_markdown_is_a_table_with_a_marker_and_goes_to_the_step_summary(
    gate, tmp_path, monkeypatch
):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    path = manifest(tmp_path / "o.json", {"a|b.tflite": 1000, "c.tflite": 1000})
    new = manifest(tmp_path / "n.json", {"a|b.tflite": 9000, "d.tflite": 7})
    assert main(["--baseline", str(path), "--candidate", str(new), "--format", "markdown"]) == 1
    written = summary.read_text()
    assert written.startswith("before\n<!-- tfprune-sizes -->\n### ❌ Model sizes")
    table = [line for line in written.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert len(table) == 2 + 3 + 1
    assert "a&#124;b.tflite" in table[2]
    assert "❌ fail" in table[2]
    assert "❌ removed" in table[3]
    assert "🆕 added" in table[4]


def test_the_json_schema_is_pinned(gate):
    code, out, _ = gate(
        {"a.tflite": 1000}, {"a.tflite": 2000}, "--format", "json",
        about_old={"accuracy": {"a.tflite": 0.9}}, about_new={"accuracy": {"a.tflite": 0.91}},
    )  # fmt: skip
    assert code == 1
    assert json.loads(out) == {
        "schema": 1,
        "failed": True,
        "models": [
            {
                "name": "a.tflite",
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


def test_benchmark_entries(gate, tmp_path):
    target = tmp_path / "bench.json"
    code, out, _ = gate(
        {"a.tflite": 10, "b.tflite": 1},
        {"a.tflite": 20},
        "--format",
        "benchmark",
        "--output",
        target,
    )
    assert (code, out) == (1, "")
    assert json.loads(target.read_text()) == [
        {"name": "a.tflite", "unit": "bytes", "value": 20, "extra": "pass"}
    ]


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


def test_update_rewrites_the_baseline_and_tightens_budgets(gate, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(TOML)
    old = {"a_1.tflite": 9000, "a_2.tflite": 5000, "b_1.tflite": 4000, "c_1.tflite": 9000}
    new = {"a_1.tflite": 8000, "a_2.tflite": 5000, "b_1.tflite": 4500, "c_1.tflite": 8990}
    code, _, err = gate(old, new, "--config", config, "--update")
    assert code == 0
    # The largest of a_* lost 1,000 bytes; b_* grew; c_* lost 10.
    expected = TOML.replace('"10 KiB"', '"9.03 KiB"').replace("'9.5 KB'", "'9.49 KB'")
    assert config.read_text() == expected
    assert "a_*: budget 10,240 -> 9,240 B" in err
    assert budgets.amount("9.03 KiB") >= 9240
    baseline = json.loads((tmp_path / "old.json").read_text())
    assert baseline == json.loads((tmp_path / "new.json").read_text())
    assert gate(tmp_path / "old.json", tmp_path / "new.json", "--config", config)[0] == 0
    # Again, nothing shrank: nothing moves.
    assert (
        gate(tmp_path / "old.json", tmp_path / "new.json", "--config", config, "--update")[0] == 0
    )
    assert config.read_text() == expected


def test_update_does_not_raise_a_budget(gate, tmp_path):
    config = tmp_path / "sizes.toml"
    config.write_text(TOML)
    old = {"a_1.tflite": 10_000}
    code, _, err = gate(old, {"a_1.tflite": 10_241}, "--config", config, "--update")
    assert code == 2
    assert "over its budget of 10,240 B; raise the budget by hand" in err
    assert json.loads((tmp_path / "old.json").read_text())["artifacts"][0]["bytes"] == 10_000
