"""What several tests share: a quiet TensorFlow, small data, small models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.gates import manifest
from tfprune.quiet import quiet
from tools.compare import main

os.environ.setdefault("MPLBACKEND", "Agg")

with quiet():
    import keras

# Building Keras models takes its time, so no deadline; the same examples in every run.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _fresh_seed():
    keras.utils.set_random_seed(7)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The real MNIST, where TFPRUNE_MNIST names it."""
    name = os.environ.get("TFPRUNE_MNIST", "")
    if not Path(name).is_file():
        pytest.skip("needs the real MNIST: set TFPRUNE_MNIST to an .npz file of it")
    return Path(name)


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
