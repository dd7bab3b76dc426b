"""The CI that users copy, run as the shell commands that it is made of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.trains

ROOT = Path(__file__).parent.parent
EXPORT = 'make export ARGS="--dataset digits --seed 0"'


def documented(language: str = "yaml") -> list[dict]:
    """The YAML documents of docs/ci.md."""
    text = (ROOT / "docs" / "ci.md").read_text()
    return [yaml.safe_load(b) for b in re.findall(rf"```{language}\n(.*?)```", text, re.S)]


def commands(workflow: dict) -> list[str]:
    """The shell commands of a GitHub job or a GitLab job named sizes."""
    job = workflow.get("jobs", workflow)["sizes"]
    steps = job.get("steps") or [{"run": line} for line in job["script"]]
    return [" ".join(step["run"].split()) for step in steps if "run" in step]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project as committed or about to be, its environment made already."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split("\n"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "made").touch()
    return folder


@pytest.fixture(scope="module")
def shell(checkout, tmp_path_factory):
    environment = {
        **os.environ,
        "PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(checkout / "summary.md"),
        "TFPRUNE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    done: dict[str, int] = {}

    def run(command: str) -> None:
        if command not in done:
            result = subprocess.run(
                ["bash", "-euc", command],
                cwd=checkout, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
            done[command] = result.returncode

    return run


def test_an_export_leaves_the_checkout_clean(checkout, shell):
    """For git: neither a tracked file nor an untracked one that it would show."""

    def status() -> str:
        words = ["git", "status", "--porcelain", "--untracked-files=all", "--", "exported", ".venv"]
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True)
        return "".join(line for line in done.stdout.splitlines(True) if not line.startswith("A  "))

    shell(EXPORT)
    assert (checkout / "exported" / "manifest.json").is_file()
    assert status() == ""
    (checkout / "exported" / "example" / "seen.md").touch()
    assert status() == "?? exported/example/seen.md\n"
    (checkout / "exported" / "example" / "seen.md").unlink()


@pytest.fixture(scope="module")
def accepted(checkout, shell):
    """The committed baseline; in its place stands what this machine made.

    How many units go depends on the training, and so on the processor.
    """
    shell(EXPORT)
    committed = json.loads((checkout / "sizes" / "baseline.json").read_text())
    shutil.copy(checkout / "exported" / "manifest.json", checkout / "sizes" / "baseline.json")
    size = (checkout / "exported" / "cnn_prune30_int8.tflite").stat().st_size
    limits(checkout, "sizes.toml", size)
    return committed


def limits(checkout, name, budget):
    """The project's limits, with so many bytes for the pruned int8 file."""
    config, count = re.subn(
        r'(match = "cnn_prune30_int8.tflite"\nbudget = )"[^"]*"',
        rf"\g<1>{budget}",
        (ROOT / "sizes" / "sizes.toml").read_text(),
    )
    assert count == 1
    (checkout / "sizes" / name).write_text(config)


def test_the_committed_baseline_is_of_these_files(checkout, accepted):
    """What is not pruned weighs the same wherever it was trained."""
    made = json.loads((checkout / "exported" / "manifest.json").read_text())["artifacts"]
    sizes, committed = (
        {entry["file"]: entry["bytes"] for entry in entries}
        for entries in (made, accepted["artifacts"])
    )
    assert set(sizes) == set(committed)
    for name in sizes:
        if "prune" not in name:
            # A number that is the format's default takes no bytes.
            assert abs(sizes[name] - committed[name]) <= 64, name


def test_the_workflows_run_and_pass(checkout, shell, accepted):
    own = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    github, gitlab, _ = documented()
    for workflow in (own, github, gitlab):
        assert any("tools.compare" in command for command in commands(workflow))
        for command in commands(workflow):
            shell(command)
    summary = (checkout / "summary.md").read_text()
    tables = summary.count("<!-- tfprune-sizes -->")
    assert tables == 2
    assert summary.count(f"{len(accepted['artifacts'])} unchanged") == tables


def test_the_gate_shuts_when_a_model_grows(checkout, shell, accepted):
    size = (checkout / "exported" / "cnn_prune30_int8.tflite").stat().st_size
    compare = "python -m tools.compare --baseline sizes/baseline.json --candidate exported"
    for name, budget, code in (("just.toml", size, 0), ("tight.toml", size - 1, 1)):
        limits(checkout, name, budget)
        shell(f"code=0; {compare} --config sizes/{name} || code=$?; test $code = {code}")


def test_the_other_commands_of_the_page_run(checkout, shell, accepted):
    text = (checkout / "docs" / "ci.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    shutil.copytree(checkout / "exported", checkout / "old_folder")
    shutil.copytree(checkout / "exported", checkout / "new_folder")
    for line in block.splitlines():
        shell(line.split("    #")[0])
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    (checkout / "page.toml").write_text(toml)
    shell(
        "python -m tools.compare --baseline sizes/baseline.json --candidate exported "
        "--config page.toml --history sizes/history.jsonl"
    )
    plots = re.findall(r"`(python -m tools.compare --plot .*?)`", text)
    for line in plots:
        shell(line)
    assert (checkout / "sizes.png").is_file()


def test_the_pre_commit_hook_runs(checkout, shell, accepted):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "script"
    shell(f"{hook['entry']} --baseline sizes/baseline.json --candidate exported")
    (local,) = documented()[2]["repos"][0]["hooks"]
    shutil.copytree(checkout / "exported", checkout / "models")
    shell(local["entry"])
