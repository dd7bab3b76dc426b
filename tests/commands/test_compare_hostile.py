"""The size gate on files that a stranger made: names, numbers, nesting, links, bombs."""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bombs import bomb
from tests.support.gates import manifest
from tests.support.paths import ROOT
from tfprune.errors import TfpruneError
from tfprune.gate.sizes import read_side
from tfprune.tflite.reader import shares
from tfprune.utils import escapes
from tfprune.utils.untrusted import parse_json
from tools.compare import main

DEEP = 100_000
GOOD = {"file": "a.tflite", "bytes": 10}


def refused(capsys, *words):
    """The one line on stderr of a command that exits with 2."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "unexpected" not in err
    return err


def artifacts(**changes):
    return json.dumps({"schema": 1, "artifacts": [GOOD | changes]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (artifacts(accuracy=float("nan")), "received NaN"),
        (artifacts(accuracy=99.0), "accuracy: expected a number from 0 to 1, received 99.0"),
        (artifacts(accuracy=-0.1), "accuracy: expected"),
        (artifacts(accuracy=True), "accuracy: expected"),
        (artifacts(accuracy="1"), "accuracy: expected"),
        (artifacts().replace("10", "1e400"), "too large"),
        (artifacts().replace("10", "9" * 400), "an integer of 400 digits"),
        (artifacts().replace("10", "9" * 9000), "an integer of 9000 digits"),
        (artifacts(bytes=-1), "bytes: expected"),
        (artifacts(bytes=1.5), "bytes: expected"),
        (artifacts(sha256="0" * 63), "sha256: expected 64"),
        (artifacts(sha256=5), "sha256: expected 64"),
        (artifacts(file="../a.tflite"), "within the manifest's folder"),
        (artifacts(file="/etc/a.tflite"), "within the manifest's folder"),
        (artifacts(file="b/../../a.tflite"), "within the manifest's folder"),
        (artifacts(file="..\\a.tflite"), "within the manifest's folder"),
        (artifacts(file="C:a.tflite"), "within the manifest's folder"),
        (artifacts(file="Makefile"), "name of a .tflite file"),
        (artifacts(file="a" * 300 + ".tflite"), "within the manifest's folder"),
        (artifacts(file=""), "name of a .tflite file"),
        (artifacts(file="a\0.tflite"), "within the manifest's folder"),
        ('{"schema": 1, "schema": 1, "artifacts": []}', "a key twice"),
        ("[" * DEEP, "nested deeper"),
        ('{"schema": 1, "artifacts": ' + "[" * 900 + "]" * 900 + "}", "nested deeper"),
        ('{"schema": 1, "artifacts": [[]]}', "expected a table"),
        ('{"schema": 1, "artifacts": {}}', "expected a list"),
        ('{"schema": [], "artifacts": []}', "expected schema 1"),
        (b"\xff\xfe{", "expected UTF-8"),
    ],
)
def test_a_manifest_is_refused_in_a_line(tmp_path, capsys, content, said):
    path = tmp_path / "manifest.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    good = manifest(tmp_path / "good.json", {"a.tflite": 10})
    assert said in refused(capsys, "--baseline", good, "--candidate", path)
    assert said in refused(capsys, "--baseline", path, "--candidate", good)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * DEEP, "nested too deeply"),
        ("slack = " + "9" * 400, "at most 64 bits"),
        ("slack = " + "9" * 9000, "--config"),
        ("max-drop = nan", "finite"),
        ("max-drop = 1e999", "finite"),
        ("max-drop = inf", "finite"),
        ('slack = "1e400"', "slack: expected bytes"),
        ('slack = "²"', "slack: expected bytes"),
        (f'max-increase = "{"9" * 400}%"', "max-increase: expected a percentage"),
        ('[[models]]\nmatch = "*"\nbudget = -1', "budget: expected bytes"),
        ("models = 3", "models"),
        (b"\xff\xfe", "expected UTF-8"),
        (b"\0", "--config"),
    ],
)
def test_limits_are_refused_in_a_line(tmp_path, capsys, content, said):
    path = tmp_path / "sizes.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    good = manifest(tmp_path / "good.json", {"a.tflite": 10})
    words = ["--baseline", good, "--candidate", good, "--config", path]
    assert said in refused(capsys, *words)


@pytest.mark.parametrize(
    "words",
    [
        ["--max-increase=²"], ["--max-increase=²%"], ["--max-increase=1e400%"], ["--slack=²"],
        ["--slack=1e400"], ["--slack=nan"], ["--slack=-1"], ["--slack=" + "9" * 400],
        ["--max-drop=nan"], ["--max-drop=inf"], ["--max-drop=1e400"], ["--max-drop=²"],
        ["--history", "."], ["--output", "."], ["--config", "\udcff\n.toml"],
    ],
)  # fmt: skip
def test_flags_are_refused_in_a_line(tmp_path, capsys, words):
    good = manifest(tmp_path / "good.json", {"a.tflite": 10})
    refused(capsys, "--baseline", good, "--candidate", good, *words)


@pytest.mark.parametrize(
    "line",
    [
        "[" * DEEP, "{}", "[]", "5", '{"models": 5}', '{"models": [{"model": "a", "bytes": NaN}]}',
        '{"models": [{"model": "a", "bytes": 1e400}]}', '{"models": [{"model": [], "bytes": "x"}]}',
        '{"models": [{"model": "a", "bytes": ' + "9" * 400 + "}]}", "\udcff",
    ],
)  # fmt: skip
def test_a_history_is_refused_with_its_line(tmp_path, capsys, line):
    path = tmp_path / "history.jsonl"
    path.write_bytes(line.encode(errors="surrogateescape") + b"\n")
    words = ["--plot", "--history", path, "--output", tmp_path / "a.png"]
    assert f"--history {path}" in refused(capsys, *words)
    assert not (tmp_path / "a.png").exists()


def test_a_pipe_or_a_folder_is_not_waited_for(tmp_path, capsys):
    good = manifest(tmp_path / "good.json", {"a.tflite": 10})
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    assert "regular file" in refused(capsys, "--baseline", pipe, "--candidate", good)
    words = ["--baseline", good, "--candidate", good]
    assert "regular file" in refused(capsys, *words, "--config", pipe)
    assert "--config" in refused(capsys, *words, "--config", tmp_path)


def test_an_update_writes_and_deletes_nothing_outside_its_folder(tmp_path, capsys, folders):
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious.tflite"
    precious.write_bytes(b"mine")
    candidate, baseline = tmp_path / "candidate", tmp_path / "baseline"
    (candidate / "link").mkdir(parents=True)
    content = (folders / "small" / "net_int8.tflite").read_bytes()
    (candidate / "link" / "precious.tflite").write_bytes(content)
    baseline.mkdir()
    (baseline / "a.tflite").write_bytes(content)
    (baseline / "link").symlink_to(outside, target_is_directory=True)
    words = ["--baseline", baseline, "--candidate", candidate, "--update"]
    assert "leads out of" in refused_after_table(capsys, *words)
    assert precious.read_bytes() == b"mine"
    # Nor is a file behind a link compared, or taken for the folder's own.
    assert set(read_side(baseline, "--baseline").models) == {"a.tflite"}


def refused_after_table(capsys, *words):
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_the_manifest_and_the_file_beside_it_have_to_agree(tmp_path, capsys, folders):
    from tfprune.utils.digests import text_digest

    content = (folders / "small" / "net_int8.tflite").read_bytes()
    (tmp_path / "a.tflite").write_bytes(content)
    entry = GOOD | {"sha256": text_digest(content)}
    path = tmp_path / "sizes.json"
    path.write_text(json.dumps({"schema": 1, "artifacts": [entry]}))
    said = f"the manifest says 10 bytes, the file has {len(content):,}"
    assert said in refused(capsys, "--baseline", path, "--candidate", path)
    path.write_text(json.dumps({"schema": 1, "artifacts": [entry | {"sha256": "0" * 64}]}))
    assert main(["--baseline", str(path), "--candidate", str(path)]) == 0
    assert "is not the one it measured" in capsys.readouterr().err


HOSTILE = [
    "x`<img src=x onerror=y>`|\n::error file=README.md,line=1::forged.tflite",
    "##[error]forged.tflite",
    "a\x1b[2Jb\u202etxt\u2066.tflite",
    "```\n# H\n```.tflite",
    "a|b|c.tflite",
    "@everyone www.x.example <b> &amp; $x$.tflite",
]


@pytest.mark.parametrize("form", ["table", "markdown", "json", "benchmark"])
def test_names_stay_names(gate, form):
    old = dict.fromkeys(HOSTILE, 1000)
    new = dict.fromkeys(HOSTILE, 9000)
    code, out, err = gate(old, new, "--format", form, about_new={"tensorflow": "2\n::error::x"})
    assert code == 1
    for line in (out + "\n" + err).splitlines():
        assert not line.strip().startswith("::")
        assert "##[" not in line
    assert not [c for c in out + err if unicodedata.category(c) in escapes.HIDDEN and c != "\n"]
    if form == "markdown":
        table = [line for line in out.splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(HOSTILE) + 1
        # Ten cells, whatever the names: a bar that is not escaped would make more.
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
        assert not re.search("<(img|b)", re.sub("`[^`]*`", "", out))
        assert "# H" not in {line.strip() for line in out.splitlines()}
    if form in ("json", "benchmark"):
        document = json.loads(out)
        names = [row["name"] for row in (document["models"] if form == "json" else document)]
        assert names == sorted(HOSTILE)


@given(st.text())
def test_any_text_is_one_line_that_commands_nothing(text):
    shown = escapes.plain(text)
    assert len(shown.splitlines()) <= 1
    assert "::" not in shown
    assert "##[" not in shown
    shown.encode()  # No surrogate is left.


@given(st.text(alphabet=st.sampled_from("a`|\\<>&*_[]()!#~@:$ \n")))
def test_any_text_stays_in_its_cell(text):
    for shown in (escapes.markdown(text), escapes.code(text)):
        assert "|" not in shown
        assert "<" not in shown.strip("`") or shown.startswith("`")
    span = escapes.code(text)
    if span.startswith("`"):
        assert "`" not in span[1:-1]
        assert "\\" not in span


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)  # fmt: skip
def test_what_json_can_say_is_read_as_json_reads_it(value):
    text = json.dumps(value)
    assert parse_json(text, "x") == json.loads(text)
    assert json.loads(escapes.to_json(value)) == value


@given(st.text(alphabet='{}[]",:0123456789eE.-+truefalsnNIiyad \\u'))
def test_no_text_makes_the_reader_fail_in_another_way(text):
    try:
        parse_json(text, "x")
    except TfpruneError as error:
        assert str(error).startswith("x: ")


def test_a_small_file_does_not_make_much_work(tmp_path):
    path = tmp_path / "bomb.tflite"
    path.write_bytes(bomb(3000))
    start = time.process_time()
    with pytest.raises(TfpruneError, match="same tables over and over"):
        shares(path)
    # It took minutes and gigabytes; the limit is far from both.
    assert time.process_time() - start < 5


def test_whole_files_take_few_times_their_size(folders):
    for path in sorted(Path(folders, "small").glob("*.tflite")):
        assert sum(share.bytes for share in shares(path)) == path.stat().st_size


HOSTILE_NAME = "a`|<img src=x>\n::error::b\x1b[2J\u202e"


def obeyed(text):
    """What of a text a terminal, a log of CI or a page would take for more than text."""
    lines = [line for line in text.splitlines() if line.strip().startswith("::")]
    hidden = [c for c in text if unicodedata.category(c) in escapes.HIDDEN and c != "\n"]
    return lines, hidden, re.findall("<img", re.sub("`[^`\n]*`", "", text))


def test_layer_names_stay_names():
    import numpy as np

    from tfprune.results import LayerResult, Skipped, layer_table

    kept = np.arange(3)
    layer = LayerResult(HOSTILE_NAME, 4, 3, 1, 0, 0, kept, np.zeros((4, 4)), note=HOSTILE_NAME)
    lines, hidden, _ = obeyed(layer_table([layer], [Skipped(HOSTILE_NAME, HOSTILE_NAME)]))
    assert (lines, hidden) == ([], [])


def test_a_model_card_holds_names_as_names():
    from tfprune.job.model_card import card

    manifest = json.loads((ROOT / "exported/example/manifest.json").read_text())
    manifest["model"]["name"] = manifest["dataset"]["name"] = HOSTILE_NAME
    manifest["dataset"]["notes"] = [HOSTILE_NAME]
    manifest["command"] = [HOSTILE_NAME]
    manifest["prune"]["layers"][0]["name"] = HOSTILE_NAME
    for entry in manifest["artifacts"]:
        entry["file"] = HOSTILE_NAME + ".tflite"
    text = card(manifest)
    lines, hidden, tags = obeyed(text)
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    assert (lines, hidden) == ([], [])
    # Indented lines are code, in which nothing is HTML.
    assert len(tags) == sum(line.count("<img") for line in indented)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
