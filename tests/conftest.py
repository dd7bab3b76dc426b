"""What several tests share: a quiet TensorFlow, small data, small models."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from filelock import FileLock
from hypothesis import settings

import tfprune
from tests.support.gates import manifest
from tfprune.utils.console import quiet
from tfprune.utils.environment import start_keras
from tools.compare import main

os.environ.setdefault("MPLBACKEND", "Agg")

# Whatever the user set for programs of their own.
start_keras()
with quiet():
    import keras
    from keras import layers as kl

    from tests.support.graphs import fill
    from tfprune.data.sources import digits
    from tfprune.data.splits import prepare

# Building Keras models takes its time, so no deadline; the same examples in every run, unless
# pytest is given --hypothesis-profile=new.
settings.register_profile("project", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None, derandomize=False, database=None, print_blob=True)
settings.load_profile("project")

SEED = int(os.environ.get("TFPRUNE_TEST_SEED", "7"))


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of weights and data that tests draw; the environment may name another one."""
    return SEED


@pytest.fixture(scope="session")
def graph_seed() -> int:
    """Of random graphs that are others in every run, unless the environment names it."""
    return int(os.environ["TFPRUNE_GRAPH_SEED"])


def pytest_configure() -> None:
    # Before xdist starts its processes, so that all have the same.
    os.environ.setdefault("TFPRUNE_GRAPH_SEED", str(secrets.randbelow(2**32)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what uses a network that was trained for it."""
    trained = {"shipped", "taught", "digit_pair"}
    for item in items:
        if trained & set(getattr(item, "fixturenames", ())):
            item.add_marker("trains")


def pytest_report_header() -> str:
    return (
        f"weights and data: TFPRUNE_TEST_SEED={SEED}; new graphs: "
        f"TFPRUNE_GRAPH_SEED={os.environ['TFPRUNE_GRAPH_SEED']}"
    )


@pytest.fixture(autouse=True)
def _fresh_seed():
    keras.utils.set_random_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture
def same_process(monkeypatch):
    """Model files are read in this process alone: tests of many small ones take less time."""
    from tfprune.loading import file_trial

    monkeypatch.setattr(file_trial, "check", lambda path: None)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The real MNIST, where TFPRUNE_MNIST names it."""
    name = os.environ.get("TFPRUNE_MNIST", "")
    if not Path(name).is_file():
        pytest.skip("needs the real MNIST: set TFPRUNE_MNIST to an .npz file of it")
    return Path(name)


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """A folder of files for old runtimes with test samples, as tools.export makes it; manifest."""
    folder = tmp_path_factory.mktemp("shipped")
    environment = {**os.environ, "TFPRUNE_CACHE": str(folder / "cache")}
    words = ["--dataset", "digits", "--epochs", "4", "--units", "32", "--seed", "2", "--compat"]
    words += ["--schemes", "float32,float16,dynamic,int8,int16x8", "--test-data", "60"]
    words += ["--output", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "tools.export", *words],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out", json.loads((folder / "out" / "manifest.json").read_text())


@pytest.fixture(scope="session")
def old_runtime() -> Path:
    """A Python with tflite-runtime 2.14 on this machine, made once where that can be had."""
    cache = Path(os.environ.get("TFPRUNE_CACHE", "") or platformdirs.user_cache_path("tfprune"))
    folder = cache / "tflite-runtime-2.14"
    python = folder / "bin" / "python"
    probe = [str(python), "-c", "import numpy; import tflite_runtime.interpreter"]
    cache.mkdir(parents=True, exist_ok=True)
    # Tests run in several processes.
    with FileLock(cache / "tflite-runtime-2.14.lock"):
        _make_old(folder, python, probe)
    return python


def _make_old(folder: Path, python: Path, probe: list[str]) -> None:
    if not python.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        venv.create(folder, with_pip=True, clear=True)
        words = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        made = subprocess.run(
            [str(python), *words, "tflite-runtime==2.14.0", "numpy<2"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            shutil.rmtree(folder)
            why = made.stderr.strip().splitlines()[-1:]
            pytest.skip(f"tflite-runtime 2.14 cannot be installed for this Python: {why}")


@pytest.fixture
def gate(tmp_path, capsys, monkeypatch):
    """Compares two dicts of sizes (or paths): exit code, stdout, stderr."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(old, new, *flags, about_old=None, about_new=None):
        if isinstance(old, dict):
            old = manifest(tmp_path / "old.json", old, **(about_old or {}))
        if isinstance(new, dict):
            new = manifest(tmp_path / "new.json", new, **(about_new or {}))
        code = main(["--baseline", str(old), "--candidate", str(new), *map(str, flags)])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The same network with 40 and with 60 hidden units, as this package exports them."""
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (50, 30)).astype("float32")
    for name, units in (("small", 40), ("large", 60)):
        model = keras.Sequential(
            [
                keras.Input((30,), name="data"),
                kl.Dense(units, activation="relu", name="hidden"),
                kl.Dense(7, name="out"),
            ],
            name="net",
        )
        tfprune.export(fill(model, rng), root / name, ["float32", "int8"], x)
    return root


@pytest.fixture(scope="session")
def digit_parts():
    """The bundled digits in parts."""
    return prepare(digits(0), "auto", None, 300, 0)


@pytest.fixture(scope="session")
def digit_pair(digit_parts):
    """A classifier of the digits, logits, compiled with settings of its own; and pruned."""
    keras.utils.set_random_seed(3)
    x = digit_parts.train.x
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), kl.Conv2D(4, 3, activation="relu", name="seen"),
         kl.MaxPooling2D(4), kl.Flatten(), kl.Dense(48, activation="relu", name="hidden"),
         kl.Dropout(0.2), kl.Dense(10, name="out")]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    model.fit(x, digit_parts.train.y, batch_size=64, epochs=12, verbose=0)
    return model, tfprune.prune(model, digit_parts.calibration.x, remove=0.85, refit=0).model
