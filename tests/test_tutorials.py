"""The tutorials, which are notebooks, from start to end; and what is committed of their outputs."""

from __future__ import annotations

import json
import re

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs requirements-dev.txt")
pytest.importorskip("nbclient", reason="needs requirements-dev.txt")

from nbclient.exceptions import CellExecutionError  # noqa: E402

from docs.notebooks import TUTORIALS, executed  # noqa: E402
from tests.support.paths import ROOT  # noqa: E402

# As absolute paths begin; those of addresses and of folders here have something in front.
FOLDERS = r"(?<![\w.])(?:/(?:tmp|home|root|Users|work|var|opt)/|[A-Z]:\\\\)"
# What Jupyter's own packages say of each other.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}:(jupyter|zmq|tornado|nbclient|asyncio|traitlets).*")
    for kind in ("DeprecationWarning", "RuntimeWarning", "ResourceWarning")
]


def shown(notebook) -> str:
    """All that the cells printed."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs if out.get("name") == "stdout")


def test_the_first_tutorial_runs(tmp_path):
    notebook = executed(ROOT / "docs" / "tutorial.ipynb", tmp_path)
    manifest = json.loads((tmp_path / "digits" / "manifest.json").read_text())
    assert [entry["scheme"] for entry in manifest["artifacts"]] == ["float32", "int8"] * 2
    # What the text says: the page is shown whole, and files before and after lie in the folders.
    frames = [
        out.data["text/html"]
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "<iframe" in out.get("data", {}).get("text/html", "")
    ]
    assert len(frames) == 1
    assert len(frames[0]) > (tmp_path / "digits" / "report.html").stat().st_size
    before = (tmp_path / "before" / "digits_float32.tflite").stat().st_size
    (after,) = (tmp_path / "after").glob("*_int8.tflite")
    assert after.stat().st_size < before / 4
    assert f"{before:,} bytes" in shown(notebook)
    # By tools/run.py, which has no columns of agreement.
    for entry in manifest["artifacts"]:
        assert re.search(rf"digits/{entry['file']} +{entry['bytes']:,} ", shown(notebook))


@pytest.mark.slow
def test_the_second_tutorial_runs(tmp_path):
    pytest.importorskip("tflite_micro", reason="needs requirements-tflm.txt")
    notebook = executed(ROOT / "docs" / "tutorial-sensor.ipynb", tmp_path)
    (source,) = (tmp_path / "motion").glob("motion_bytes*_int8.cc")
    manifest = json.loads((tmp_path / "motion" / "manifest.json").read_text())
    before, after = manifest["artifacts"]
    budget = int(re.search(r"target_bytes=(\d+)", str(notebook.cells))[1])
    assert after["file"] == source.with_suffix(".tflite").name
    assert after["bytes"] <= budget < before["bytes"]
    arena = int(re.search(r"_ARENA_SIZE (\d+)", shown(notebook))[1])
    assert 0 <= arena - after["arena_bytes"] < 16
    assert "AllocateTensors" in shown(notebook)


def test_a_command_that_fails_in_a_cell_fails_the_run(tmp_path):
    cell = nbformat.v4.new_code_cell("%%sh\ntfprune export --model nowhere.keras")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "failing.ipynb")
    with pytest.raises(CellExecutionError, match="nowhere.keras: expected data"):
        executed(tmp_path / "failing.ipynb", tmp_path)


def test_there_are_two():
    assert [path.name for path in TUTORIALS] == ["tutorial-sensor.ipynb", "tutorial.ipynb"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_what_is_committed_is_small_whole_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    for found in re.findall(FOLDERS, text):
        pytest.fail(f"{path.name} names a folder of the machine that ran it: {found}")
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    # From start to end, each cell once, and nothing failed or warned.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {(out.output_type, out.get("name")) for cell in code for out in cell.outputs}
    assert kinds <= {("stream", "stdout"), ("execute_result", None), ("display_data", None)}
    assert max(len(cell.source.splitlines()) for cell in code) <= 45
