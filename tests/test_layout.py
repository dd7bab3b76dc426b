"""Rules of the layout that no other test would notice broken."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.support.paths import ROOT

# What a line names may import what stands on the lines before it; and the packages and modules on
# one line do not import each other. The engine is the single modules; the others are packages.
ORDER = [
    ["errors"],
    ["utils"],
    ["sample_files"],
    ["core", "output_folder", "results"],
    ["graph", "result_figure", "workers"],
    ["outputs", "tflite", "loading"],
    ["options", "data", "reconstruction"],
    ["shards", "layer_choice"],
    ["calibration", "adaptation"],
    ["criteria", "prune_result"],
    ["folding", "budget"],
    ["pruner"],
    ["pruning"],
    ["training"],
    ["tfmot", "gate"],
    ["micro", "report"],
    ["job"],
    ["inspection", "sweep"],
    ["studies"],
    ["cli"],
]
PLACE = {name: line for line, names in enumerate(ORDER) for name in names}


def imports() -> dict[str, set[str]]:
    """The package's modules, each with those that it imports, anywhere in it."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "tfprune").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    imported = {}
    for name, path in paths.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        modules = {node.module or "" for node in nodes}
        members = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        imported[name] = (modules | members) & set(paths)
    return imported


def test_everything_has_its_place():
    entries = {path.stem for path in (ROOT / "tfprune").iterdir() if path.stem[0] not in "_."}
    assert entries - {"py"} == set(PLACE)


def test_imports_go_down_and_never_in_a_circle():
    imported = imports()
    for name, others in imported.items():
        here = name.split(".")[1]
        places = {other: other.split(".")[1] for other in others}
        up = [o for o, place in places.items() if place != here and PLACE[place] >= PLACE[here]]
        assert not up, f"{name} imports {', '.join(up)}"
    # Raises CycleError, which names the circle.
    TopologicalSorter(imported).prepare()


def test_packages_import_nothing_by_themselves():
    """So that what needs little, such as the size gate, starts fast."""
    for path in (ROOT / "tfprune").glob("*/__init__.py"):
        assert len(ast.parse(path.read_text()).body) <= 1, path


def test_files_are_short():
    """All but the one that goes to devices by itself."""
    files = [path for part in ("tfprune", "tools", "tests") for path in (ROOT / part).rglob("*.py")]
    long = [path for path in files if len(path.read_text().splitlines()) >= 400]
    assert long == [ROOT / "tools" / "run.py"]


@pytest.mark.parametrize(
    "module",
    [
        "tfprune",
        "tfprune.core.fold",
        "tfprune.job.tables",
        "tfprune.job.config",
        "tfprune.sweep.tables",
        "tfprune.tflite.interpreter",
        "tfprune.studies.tables",
        "tfprune.inspection.config",
        "tfprune.inspection.result",
        "tools.export",
        "tools.inspect.__main__",
        "tools.reproduce",
        "tools.sweep",
    ],
)
def test_no_tensorflow_before_it_is_needed(module):
    code = f"import sys, {module}; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "module", ["tools.export", "tools.inspect.__main__", "tools.reproduce", "tools.sweep"]
)
def test_a_command_can_be_interrupted_as_soon_as_it_starts(module):
    """Whatever is imported before the handlers are set is time in which Ctrl-C is a traceback."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    slow = {"numpy", "scipy", "fire", "asyncio", "logging", "inspect", "tfprune.job.config"}
    assert not slow & set(done.stdout.split())


def test_text_files_are_utf8_in_every_locale():
    """What opens a text file, or runs a program whose output is text, names the encoding."""
    lacking = []
    for path in [path for part in ("tfprune", "tools") for path in (ROOT / part).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
                continue
            attribute = isinstance(node.func, ast.Attribute)
            name = node.func.attr if attribute else getattr(node.func, "id", "")
            text = any(k.arg in ("text", "universal_newlines") for k in node.keywords)
            modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
            # Archives open their members, and os.open gives a descriptor: neither is text.
            owner = getattr(getattr(node.func, "value", None), "id", "")
            opens = name == "open" and owner not in ("os", "archive", "Image")
            if (
                (attribute and name in ("read_text", "write_text"))
                or (opens and not any("b" in str(mode) for mode in modes))
                or (name in ("run", "Popen") and text)
            ):
                lacking.append(f"{path.name}:{node.lineno}")
    assert not lacking


def test_the_public_names_are_there():
    import tfprune

    for name in tfprune.__all__:
        assert getattr(tfprune, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        tfprune.prun  # noqa: B018
