"""What goes to a Raspberry Pi."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tools import run

SCRIPT = Path(run.__file__)


def test_it_is_one_file_of_the_standard_library_and_numpy():
    known = {*sys.stdlib_module_names, "numpy", "PIL"}
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        assert {name.split(".")[0] for name in names} <= known


def test_requirements_choose_by_the_processor():
    markers = pytest.importorskip("packaging.requirements")
    lines = (SCRIPT.parent.parent / "requirements-pi.txt").read_text().splitlines()
    wanted = [markers.Requirement(line) for line in lines if not line.startswith("#")]
    for machine, runtime, newest in (
        ("aarch64", "ai-edge-litert", True),
        ("x86_64", "ai-edge-litert", True),
        ("armv7l", "tflite-runtime", False),
    ):
        chosen = {w.name: w for w in wanted if w.marker.evaluate({"platform_machine": machine})}
        assert set(chosen) == {runtime, "numpy"}
        assert chosen["numpy"].specifier.contains("2.1.0") == newest
