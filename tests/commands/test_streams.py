"""Commands whose streams, memory, folders and settings are not what they should be."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.support.gates import manifest
from tests.support.litert import in_litert
from tests.support.paths import ROOT
from tfprune.utils.environment import cache_folder

EXAMPLE = ROOT / "exported" / "example"
# Neither UTF-8 mode nor a locale that Python brings to UTF-8.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


def sh(line, cwd=ROOT, limit=None, **environment):
    """A line of shell: ``$py`` is Python; fails together with any part of a pipe."""

    def limited():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    names = {"py": shlex.quote(sys.executable), **environment}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('$py', names['py'])}"],
        capture_output=True, text=True, cwd=cwd, check=False, timeout=600, preexec_fn=limited,
        errors="backslashreplace",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    """A command that prints much, with characters beyond ASCII, and fails by its exit code."""
    folder = tmp_path_factory.mktemp("compare")
    sizes = {f"modèle-{number:04}.tflite": 10_000 for number in range(2000)}
    small = manifest(folder / "small.json", sizes)
    large = manifest(folder / "large.json", {name: 2 * size for name, size in sizes.items()})
    return f"$py -m tools.compare --baseline {small} --candidate {large} --format markdown"


RUN = f"$py tools/run.py {EXAMPLE}/cnn_float32.tflite --data {EXAMPLE}/cnn_test.npz --runs 0"
HELP = "$py -m tools.export --help"
BAD = "$py -m tools.export --prun 3"


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("{compare} >&-", 1, "", ""),
        ("{compare} 2>&-", 1, ..., ""),
        ("{compare} <&- >&- 2>&-", 1, "", ""),
        # The exit code of a gate says what it found, whoever reads how much of its text.
        ("{compare} | head -1", 1, ..., ""),
        ("{compare} | true", 1, "", ""),
        ("{compare} 2>&1 | true", 1, "", ""),
        ("{compare} >/dev/full", 2, "", "tools.compare: [Errno 28] No space left on device\n"),
        # Nothing of a message ends among what another program reads.
        ("{compare} --slack x 2>&-", 2, "", ""),
        (f"{HELP} | head -1", 0, "Usage: python -m tools.export [NAME|FILE] [flags]\n", ""),
        (f"{HELP} >&- 2>&-", 0, "", ""),
        (f"{HELP} >/dev/full", 2, "", "tools.export: [Errno 28] No space left on device\n"),
        (f"{BAD} 2>&1 >&- | true", 2, "", ""),
        (f"{BAD} 2>/dev/full", 2, "", ""),
        (f"{RUN} >&- 2>&- <&-", 0, "", ""),
        (f"{RUN} | true", 0, "", ""),
        (f"{RUN} >/dev/full", 2, "", "run.py: [Errno 28] No space left on device\n"),
        ("$py tools/run.py no.tflite 2>&-", 2, "", ""),
        ("$py tools/run.py no.tflite 2>&1 | true", 2, "", ""),
    ],
)
def test_streams_that_are_closed_full_or_cut_off(compare, line, code, out, err):
    done = sh(line.replace("{compare}", compare))
    assert done.returncode == code, done.stderr
    assert done.stderr == err
    if out is not ...:
        assert done.stdout == out


def test_terminals_of_few_characters(compare):
    for environment in (ASCII, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}):
        done = subprocess.run(
            ["bash", "-c", compare.replace("$py", shlex.quote(sys.executable))],
            capture_output=True, cwd=ROOT, check=False, env={**os.environ, **environment},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, b"")
        known = "latin-1" if "latin-1" in environment.values() else "ascii"
        assert rb"\u274c" in done.stdout
        assert ("modèle" if known == "latin-1" else r"mod\xe8le") in done.stdout.decode(known)
        done = sh("$py tools/run.py $'n\\xc3\\xb6-\\xff.tflite'", **environment)
        assert done.returncode == 2
        assert done.stderr.startswith("run.py: ") and "no such file" in done.stderr
        assert done.stderr.count("\n") == 1


def test_no_text_file_depends_on_the_locale(tmp_path):
    """Read and written as UTF-8; the state of git too, whose names may be of any bytes."""
    words = "init -q; git config user.name x; git config user.email x@x; git config core.quotepath"
    script = (
        "from tfprune.utils.git import git_state; from tfprune.job import manifest; "
        "from tfprune.job import model_card; from tfprune.gate import history, sizes\n"
        "from pathlib import Path; import sys\n"
        "print(git_state()['dirty'])\n"
        "manifest.write({'name': 'modèle'}, Path('m.json'))\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    line = f"git {words} false; touch $'n\\xc3\\xb6'; git add -A; git commit -qm x; touch $'\\xff'"
    done = sh(f"{line}; $py script.py", tmp_path, **ASCII)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_too_little_memory_is_one_line(compare):
    """Where Python starts at all."""
    done = sh(f"{BAD[:-9]} --dataset digits", limit=800_000_000)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tools.export: the memory does not suffice (ImportError: lib")
    assert "ulimit -v allows 0.8 GB" in done.stderr
    assert done.stderr.count("\n") == 1
    done = sh(compare, limit=2**30)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [1.6, 1.7, 1.9, 2.2, 2.6, 3.0])
def test_memory_that_native_code_dies_of_is_one_line(tmp_path, gigabytes):
    words = "--dataset digits --epochs 1 --units 8 --schemes int8 --output out"
    done = sh(f"$py -m tools.export {words}", tmp_path, int(gigabytes * 1e9))
    last = done.stderr.splitlines()[-1]
    if done.returncode:
        assert (done.returncode, done.stdout) == (2, "")
        assert last.startswith("tools.export: the memory does not suffice (")
        assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr
    assert "terminate called" not in done.stderr


def test_a_folder_that_was_deleted_under_the_command(tmp_path):
    gone = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone"
    done = sh(f"{gone}; $py -m tools.export --dataset digits", KERAS_BACKEND="none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "tools.export: --output exported: expected a folder that can be written, No such file or "
        "directory\n"
    )


@pytest.mark.parametrize(("error", "code"), [("KeyboardInterrupt", 130), ("OSError", 2)])
def test_what_could_not_be_written_leaves_the_exit_code_of_a_run(error, code):
    """Python writes it once more at its end."""
    text = (
        "import sys\nfrom tools import run\n"
        f"def fail(flags): sys.stdout.write(str(1)); raise {error}\n"
        "run.run = fail\nsys.exit(run.main([str(1)]))"
    )
    done = sh(f"$py -c '{text}' >/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == code, done.stderr


def test_one_run_in_an_environment_that_is_odd_in_every_way(tmp_path):
    """Keras set for other programs, ASCII, no home, no stdin, a reader that has gone away."""
    settings = {"floatx": "float16", "image_data_format": "channels_first", "backend": "torch"}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "epsilon": 0.1}))
    words = "--dataset digits --epochs 1 --units 8 --schemes float32 --test-data 50 --output mödel"
    done = sh(
        f"unset HOME; $py -m tools.export {words} <&- 2>/dev/full | true",
        tmp_path, KERAS_HOME=str(tmp_path), KERAS_BACKEND="jax", KERAS_MAX_EPOCHS="0",
        KERAS_MAX_STEPS_PER_EPOCH="none", TMPDIR="/nonexistent",
        TFPRUNE_CACHE=str(tmp_path / "keras.json" / "none"), **ASCII,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "mödel"
    about = json.loads((out / "manifest.json").read_text())
    with zipfile.ZipFile(out / "cnn_prune30.keras") as archive:
        config = archive.read("config.json").decode()
    assert '"float32"' in config
    assert '"float16"' not in config
    assert '"channels_first"' not in config
    arrays = np.load(out / "cnn_test.npz")
    right = in_litert(out / "cnn_float32.tflite", arrays["x_test"]).argmax(axis=1)
    right = np.mean(right == arrays["y_test"])
    # It was trained, and not for as many epochs as were capped.
    assert right == pytest.approx(about["test_data"]["scores"]["cnn_float32.tflite"]["accuracy"])
    assert right > 0.5
    assert "mödel" in (out / "cnn.md").read_text(encoding="utf-8")


STUB = """
import sys, types
keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "jax")
sys.modules["keras"] = keras
import tfprune
for name in ("prune", "heal", "export", "PruneResult"):
    try:
        getattr(tfprune, name)
    except tfprune.TfpruneError as error:
        print(error)
"""


def test_the_library_says_that_it_needs_tensorflow():
    done = subprocess.run(
        [sys.executable, "-c", STUB], capture_output=True, text=True, check=True, cwd=ROOT
    )
    line = (
        "Keras: expected the backend tensorflow, received jax; set KERAS_BACKEND=tensorflow before "
        "Keras is imported"
    )
    assert done.stdout.splitlines() == [line] * 4
    code = "import tfprune; tfprune.prune"
    done = sh(f"$py -c '{code}'", KERAS_BACKEND="none")
    last = done.stderr.splitlines()[-1]
    assert "TfpruneError: Keras cannot be imported (ValueError: " in last
    assert "set KERAS_BACKEND=tensorflow before Keras is imported, it is 'none'" in last


def test_without_a_home_there_is_no_cache(monkeypatch):
    import pwd

    def unknown(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "TFPRUNE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert cache_folder() is None
    monkeypatch.setenv("TFPRUNE_CACHE", "here")
    assert cache_folder() == Path("here")


def test_the_settings_of_these_tests_are_keras_own():
    assert keras.config.backend() == "tensorflow"
    assert keras.config.floatx() == "float32"
    assert keras.config.image_data_format() == "channels_last"
