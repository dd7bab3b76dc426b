"""``tools.compare --format html``: the same figures as the table, and Jinja2 for it alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands.test_compare_hostile import HOSTILE
from tests.report.test_run_page import Read
from tests.support.gates import manifest
from tests.support.paths import ROOT


def test_it_says_what_the_table_says(gate):
    old, new = {"a.tflite": 10_000, "b.tflite": 500, "same.tflite": 7}, {"a.tflite": 20_000}
    new |= {"b.tflite": 500, "same.tflite": 7, "new.tflite": 70}
    code, out, _ = gate(old, new, "--format", "html")
    page = Read(out)
    assert code == 1
    assert "FAILED: 1 of 4 models, +10,070 B in total" in page.text
    assert "20,577 bytes" in page.text
    assert "10,000 B more, over both 2 % and 256 B" in page.text
    assert "2 unchanged, not shown" in page.text
    assert page.tags.count("tr") == 1 + 2 + 1
    code, table, _ = gate(old, new)
    for line in table.splitlines()[2:4]:
        assert all(word in page.text for word in line.split())
    assert Read(gate(old, new, "--format", "html", "--all")[1]).tags.count("tr") == 1 + 4 + 1


def test_names_stay_names(gate):
    old, new = dict.fromkeys(HOSTILE, 1000), dict.fromkeys(HOSTILE, 9000)
    calm = [{f"{n}.tflite": size for n in range(len(HOSTILE))} for size in (1000, 9000)]
    _, out, _ = gate(old, new, "--format", "html", about_new={"tensorflow": "<b>\n::error::"})
    _, expected, _ = gate(*calm, "--format", "html", about_new={"tensorflow": "x"})
    assert Read(out).tags == Read(expected).tags
    assert not [line for line in out.splitlines() if line.strip().startswith("::")]


def test_it_goes_to_a_file(gate, tmp_path):
    sizes = {"a.tflite": 10}
    code, out, _ = gate(sizes, sizes, "--format", "html", "--output", tmp_path / "sizes.html")
    assert (code, out) == (0, "")
    assert "passed, total size unchanged" in (tmp_path / "sizes.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["table", "html"])
def test_without_jinja2_html_alone_is_refused(tmp_path, form):
    good = manifest(tmp_path / "good.json", {"a.tflite": 10})
    code = (
        "import sys; sys.modules['jinja2'] = None; from tools.compare import main; "
        f"sys.exit(main(['--baseline', {str(good)!r}, '--candidate', {str(good)!r}, "
        f"'--format', {form!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if form == "table":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.endswith("HTML pages need Jinja2: pip install jinja2\n")
        assert len(done.stderr.splitlines()) == 1
