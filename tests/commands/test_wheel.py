"""The command ``tfprune``: in a checkout, and as a wheel puts it into an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import tfprune
from tests.support.gates import manifest
from tests.support.paths import ROOT
from tfprune.cli.main import COMMANDS, device_script, main

NEEDED = 77  # The first setuptools that reads the licence as pyproject.toml has it.


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project as committed or about to be: building leaves files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\n")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "exported/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, checkout, tmp_path_factory):
    """The command in an environment of its own, which finds what it depends on in this one."""
    setuptools = version("setuptools")
    if int(setuptools.split(".")[0]) < NEEDED:
        pytest.skip(f"needs setuptools {NEEDED} or newer (requirements-dev.txt), not {setuptools}")
    folder = tmp_path_factory.mktemp(request.param)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    what = ["--editable", str(checkout)]
    if request.param == "wheel":
        # As a release makes it, of the archive of the sources.
        build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
        call([sys.executable, "-c", build], cwd=checkout)
        (source,) = folder.glob("*.tar.gz")
        call([*pip, "wheel", *offline, "--wheel-dir", str(folder), str(source)])
        what = [str(path) for path in folder.glob("*.whl")]
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    scripts, modules = (
        sysconfig.get_path(kind, "venv", vars={"base": str(environment)})
        for kind in ("scripts", "purelib")
    )
    python = shutil.which("python", path=scripts)
    # Before the installation: an editable one is built in the new environment, by setuptools.
    path = Path(modules) / "dependencies.pth"
    path.write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    call([*pip, "--python", python, "install", *offline, *what])
    return shutil.which("tfprune", path=scripts)


def call(words, cwd=None):
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr


def run(installed, folder, *words):
    """The command in a folder that has nothing of the project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [installed, *map(str, words)],
        capture_output=True, text=True, cwd=folder, env=environment, check=False,
    )  # fmt: skip


def test_the_installed_command(installed, tmp_path):
    done = run(installed, tmp_path, "--version")
    assert (done.stdout, done.stderr) == (f"tfprune {tfprune.__version__}\n", "")
    for name in COMMANDS:
        done = run(installed, tmp_path, name, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        said = "run.py" if name == "run" else f"tfprune {name}"
        assert done.stdout.lower().startswith(f"usage: {said}")
    good = manifest(tmp_path / "good.json", {"a.tflite": 1000})
    grown = manifest(tmp_path / "grown.json", {"a.tflite": 2000})
    for candidate, code in ((good, 0), (grown, 1)):
        done = run(installed, tmp_path, "compare", "--baseline", good, "--candidate", candidate)
        assert (done.returncode, done.stderr) == (code, "")
        assert "a.tflite" in done.stdout or not code
    done = run(installed, tmp_path, "export", "--prune", "95")
    assert done.returncode == 2
    assert done.stderr.startswith("tfprune export: --prune: expected a number of degrees")
    done = run(installed, tmp_path, "run", "none.tflite")
    assert done.returncode == 2
    assert "none.tflite" in done.stderr
    done = run(installed, tmp_path, "exprot")
    assert done.returncode == 2
    assert done.stderr == "tfprune: unknown command 'exprot'; did you mean export?\n"


def test_it_has_the_script_for_devices_whole(installed, tmp_path):
    python = shutil.which("python", path=Path(installed).parent)
    code = "from tfprune.cli.main import device_script; print(device_script())"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    script = Path(done.stdout.strip())
    assert not script.is_relative_to(ROOT)
    assert script.read_bytes() == (ROOT / "tools" / "run.py").read_bytes()


def test_in_a_checkout_the_script_is_the_one_of_tools():
    assert device_script() == ROOT / "tools" / "run.py"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Usage: tfprune COMMAND [flags]\n"),
        (["-h"], 0, "Usage: tfprune COMMAND [flags]\n"),
        (["--version"], 0, f"tfprune {tfprune.__version__}\n"),
        (
            [],
            2,
            "tfprune: expected a command, one of inspect, export, sweep, compare, reproduce, run;",
        ),
        (["prune"], 2, "tfprune: unknown command 'prune'; "),
        (["zzz", "--help"], 2, "tfprune: unknown command 'zzz'; expected one of inspect, export,"),
    ],
)
def test_words_that_are_no_command(words, code, said, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["tfprune", *words])
    assert main() == code
    out, err = capfd.readouterr()
    assert (err if code else out).startswith(said)
    assert not (out if code else err)
    assert err.count("\n") == (code != 0)


@pytest.mark.parametrize("name", ["compare", "run"])
def test_what_needs_little_starts_fast(name):
    """The interpreter's start taken off, whatever the machine: by what is imported."""
    code = (
        f"import sys; sys.argv = ['tfprune', '{name}', '--help']\n"
        "from tfprune.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    slow = {"scipy", "fire", "keras", "tensorflow", "h5py", "matplotlib"}
    slow |= {"numpy"} if name == "compare" else set()
    assert not slow & set(done.stderr.split())


def test_what_is_said_of_a_release_is_one():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML takes "on" for true.
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == tfprune.__version__
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    assert citation["repository-code"] == project["urls"]["Homepage"]
