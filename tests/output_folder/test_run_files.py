"""What a run takes away of the run before: what that wrote, and nothing else in the world."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from tests.support.kills import content, fill
from tfprune.output_folder.run_files import leftovers, listed


def entry(name, text):
    return {"file": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def manifest(folder, files, **more):
    told = {"artifacts": [], "files": files, **more}
    (folder / "manifest.json").write_text(json.dumps(told))


def test_what_the_run_before_wrote_goes(tmp_path):
    written = {
        "cnn_int8.tflite": "a", "cnn_prune30.keras": "b", "cnn.md": "c", "cnn_test.npz": "d",
        "plots/hidden_angles.png": "e", "cnn.h": "f", "cnn.cc": "g", "both.tflite": "h",
    }  # fmt: skip
    fill(tmp_path, written)
    assert {one["file"]: one["bytes"] for one in listed(tmp_path)} == dict.fromkeys(written, 1)
    manifest(tmp_path, listed(tmp_path))
    fill(tmp_path, {"notes.md": "mine", "cnn_int8.txt": "mine", "plots/mine.png": "mine"})
    said = []
    gone = leftovers(tmp_path, {"both.tflite", "new.tflite"}, said.append)
    assert set(gone) == {*written} - {"both.tflite"}
    (line,) = said
    assert line.startswith(f"{tmp_path}: removing what an earlier run wrote")
    # Nothing was removed here: that is the change's part.
    assert set(content(tmp_path)) > set(written)


def test_what_was_changed_since_stays_and_is_named(tmp_path):
    fill(tmp_path, {"cnn.md": "with the user's remarks", "cnn.tflite": "a"})
    manifest(tmp_path, [entry("cnn.md", "as it was"), entry("cnn.tflite", "a")])
    said = []
    assert leftovers(tmp_path, (), said.append) == ["cnn.tflite"]
    assert [line for line in said if "changed since" in line and "cnn.md" in line]


def test_manifests_without_a_list_of_files_name_some(tmp_path):
    fill(tmp_path, {"a.tflite": "a", "a_test.npz": "t", "a.md": "m"})
    told = {"artifacts": [entry("a.tflite", "a")], "test_data": entry("a_test.npz", "t")}
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    assert set(leftovers(tmp_path, ())) == {"a.tflite", "a_test.npz"}


def test_nothing_else_goes_whatever_a_manifest_says(tmp_path):
    """With the right digests, so that the name alone decides."""
    out = tmp_path / "out"
    mine = {
        "victim.tflite": "v", "out/thesis.docx": "v", "out/Makefile": "v", "out/.hidden.md": "v",
        "out/manifest.json.md": "v", "out/deep/x.tflite": "v", "out/plots/x.tflite": "v",
        "out/plots/deep/x.png": "v", "out/x.png": "v", "out/.png": "v", "out/.tflite": "v",
    }  # fmt: skip
    fill(tmp_path, mine)
    (out / "link.tflite").symlink_to(tmp_path / "victim.tflite")
    (out / "folder.tflite").mkdir()
    names = [name.removeprefix("out/") for name in mine]
    names += ["../victim.tflite", str(tmp_path / "victim.tflite"), "plots/../../victim.tflite"]
    names += ["./x.tflite", "link.tflite", "folder.tflite", "", ".", "..", "plots/", "plots/..png"]
    names += ["deep\\x.tflite", "a\0.tflite", "x" * 5000 + ".tflite", "plots/\n.png"]
    manifest(out, [entry(name, "v") for name in names])
    assert leftovers(out, ()) == ["manifest.json.md"]


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_no_way_leads_through_a_link(tmp_path):
    out = tmp_path / "out"
    fill(tmp_path, {"elsewhere/x.png": "v", "out/a.tflite": "a"})
    (out / "plots").symlink_to(tmp_path / "elsewhere")
    manifest(out, [entry("plots/x.png", "v")])
    assert leftovers(out, ()) == []
    manifest(tmp_path, [entry("a.tflite", "a")])
    (out / "manifest.json").unlink()
    (out / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert leftovers(out, ()) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "[" * 100_000, '{"artifacts": 1}', '{"artifacts": [[[]]]}',
        '{"artifacts": [{"file": 1, "sha256": 2}]}', '{"artifacts": [], "files": {"file": "a"}}',
        '{"name": "an app", "icons": [{"src": "a.tflite"}]}', "1" * 5000, "\udcff",
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_manifest_of_ours_names_nothing(tmp_path, text):
    (tmp_path / "a.tflite").write_text("a")
    (tmp_path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    assert leftovers(tmp_path, ()) == []
