"""Rules of the house that no other test would notice broken."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room may import those before it.
ROOMS = [
    "errors", "untrusted", "archives", "escapes", "choices", "wish", "digest", "files",
    "interrupts", "locks",
    "transaction", "staging", "run_files", "git", "quiet", "environment", "progress", "records",
    "child",
    "probe", "tflite", "compat", "carray", "sizes", "budgets", "boards", "compare", "verdicts",
    "baseline", "history", "moments", "threads", "select", "fold", "fold_choice", "effect",
    "request", "findings", "grid",
    "pareto", "journal", "sweeptable", "report", "batches", "inputs", "labels", "held_out",
    "features", "readings",
    "layers", "configs", "compiling", "subclasses",
    "copies", "safe_gradients", "ledger", "trace", "groups", "costs", "widths", "measure",
    "shrink",
    "precision", "refit", "evidence", "unfollowed", "survey",
    "litert", "tflm", "flatbuffer", "compact", "int4",
    "conversions", "converter", "saved_model",
    "convert", "distance", "decisions", "change", "results", "cuts",
    "targets", "pruning", "translate", "bridge", "distil", "compression", "qat",
    "rates", "fitting", "rounding", "soft_targets", "student", "healing",
    "parts", "preprocessing",
    "datasets", "evaluate", "testset",
    "keras_classes", "keras1", "keras2_forms", "keras2_layers", "keras2_nodes", "keras2_ops",
    "keras2", "keras2_training", "model_config", "trust", "h5_arrays", "h5_weights",
    "keras_archive", "file_trial", "keras2_twin", "keras2_folder", "model_files",
    "models", "original", "versions",
    "network_cache",
    "training", "finetune", "retraining", "variants", "search", "exporting",
    "plots", "micro", "card", "sweepplot", "manifest", "job", "sweep",
]  # fmt: skip

# The sub-package of the studies may import all rooms, and its own before; no room imports it.
PAPERS = [
    "study", "record", "summary", "tables", "pictures", "networks", "bench", "cutting", "kinds",
    "runner",
]  # fmt: skip


def imported(path: Path) -> set[str]:
    """The package's rooms that a file imports, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "tfprune":
                rooms |= {alias.name for alias in node.names if alias.name in ROOMS}
            elif node.module.startswith("tfprune."):
                rooms.add(node.module.split(".")[1])
    return rooms


def test_every_room_has_its_place():
    files = {path.stem for path in (ROOT / "tfprune").glob("*.py")} - {"__init__"}
    assert files == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down(room):
    below = set(ROOMS[: ROOMS.index(room)])
    assert imported(ROOT / "tfprune" / f"{room}.py") <= below


def test_every_module_of_the_studies_has_its_place():
    files = {path.stem for path in (ROOT / "tfprune" / "studies").glob("*.py")} - {"__init__"}
    assert files == set(PAPERS)


@pytest.mark.parametrize("module", PAPERS)
def test_imports_of_the_studies_go_down(module):
    below = set(PAPERS[: PAPERS.index(module)])
    tree = ast.parse((ROOT / "tfprune" / "studies" / f"{module}.py").read_text())
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "tfprune.studies":
            seen |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "tfprune.studies."
        ):
            seen.add(str(node.module).rpartition(".")[2])
    assert seen <= below


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
        "tools.export",
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


@pytest.mark.parametrize("module", ["tools.export", "tools.reproduce", "tools.sweep"])
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


def test_the_wheel_holds_the_package_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setup = project["tool"]["setuptools"]
    assert setup["packages"] == ["tfprune", "tfprune.studies"]
    # The studies are data that an installed package reads.
    assert setup["package-data"]["tfprune.studies"] == ["*.toml"]


def test_the_public_names_are_there():
    import tfprune

    for name in tfprune.__all__:
        assert getattr(tfprune, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        tfprune.prun  # noqa: B018
