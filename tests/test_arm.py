"""``tools/run.py`` on ARM: a Raspberry Pi's Python, 64-bit and 32-bit, under qemu.

Emulated times say nothing about a Pi, so none is taken here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import platformdirs
import pytest
from keras import layers as kl

from tfprune import export
from tfprune.data.sources import digits
from tools import run

pytestmark = pytest.mark.arm

ROOT = Path(__file__).parent.parent
SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8")
CANNOT_BE_HAD = 3


def emulated(arch: str) -> Path:
    """A Python of that processor; skips where it cannot be had."""
    if sys.platform != "linux" or not shutil.which("apt-get"):
        pytest.skip("needs apt, to get a Raspberry Pi's Python from Debian's packages")
    cache = Path(os.environ.get("TFPRUNE_CACHE", "") or platformdirs.user_cache_path("tfprune"))
    folder = cache / "arm" / arch
    made = subprocess.run(
        [ROOT / ".ci" / "arm-root", arch, folder],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    if made.returncode == CANNOT_BE_HAD:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return folder / "python"


@pytest.fixture(scope="session")
def arm64() -> Path:
    return emulated("arm64")


@pytest.fixture(scope="session")
def armhf() -> Path:
    return emulated("armhf")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Files of a model that is not the project's: depthwise, residual, gated; trained on digits."""
    keras.utils.set_random_seed(1)
    made = keras.Input((28, 28, 1), name="picture")
    x = kl.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(made)
    x = kl.Add()([x, kl.DepthwiseConv2D(3, padding="same", activation="relu")(x)])
    x = kl.Conv2D(16, 1, activation="relu")(kl.AveragePooling2D(2)(x))
    gate = kl.Dense(16, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(x))
    logits = kl.Dense(10)(kl.Flatten()(kl.Multiply()([x, gate])))
    model = keras.Model(made, logits, name="own")
    raw = digits(0)
    train, test = (np.float32(part.x) / 255 for part in (raw.train, raw.test))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    model.fit(train, raw.train.y, 32, 4, verbose=0)
    folder = tmp_path_factory.mktemp("own")
    files = export(model, folder, SCHEMES, train[:200], compat=True)
    np.savez(folder / "test.npz", x_test=test[:40], y_test=raw.test.y[:40])
    return list(files.values()), folder / "test.npz"


def outputs(python: Path | str, files, data, folder, *flags):
    """What ``run.py`` says under a Python, and the files' outputs."""
    # Copied, as to a device.
    script = shutil.copy(run.__file__, folder)
    made = folder / "outputs.npz"
    words = [*files, "--data", data, "--runs", "0", "--json", "--outputs", made, *flags]
    done = subprocess.run(
        [str(python), script, *map(str, words)],
        capture_output=True, text=True, check=False, cwd=folder, timeout=500,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(made) as arrays:
        return json.loads(done.stdout), dict(arrays)


def compared(here, there, folder, files, data):
    """Classes alike, int8 within a step by default and equal on reference kernels."""
    told = {}
    for flags in ((), ("--reference",)):
        report, ours = outputs(here, files, data, folder, *flags)
        elsewhere, theirs = outputs(there, files, data, folder, *flags)
        assert set(ours) == set(theirs)
        for key, out in ours.items():
            assert np.array_equal(out.argmax(axis=1), theirs[key].argmax(axis=1)), key
            off = np.abs(out.astype(float) - theirs[key]).max()
            if "_int8" in key:
                assert out.dtype == theirs[key].dtype == np.int8
                assert off <= (0 if flags else 1), key
            elif "_int16x8" in key:
                assert off <= (0 if flags else 1e-3 * np.abs(out).max()), key
            elif "_dynamic" in key:
                # Activations are rounded on the way: one may fall on the other side of a half.
                assert off <= 1e-3 * max(1, np.abs(out).max()), key
            else:
                assert off <= 1e-5 * max(1, np.abs(out).max()), key
        for mine, other in zip(report["files"], elsewhere["files"], strict=True):
            assert mine["accuracy"] == other["accuracy"] > 0.8
        told = elsewhere
    return told


def shipped_files(shipped):
    folder, manifest = shipped
    files = [folder / artifact["file"] for artifact in manifest["artifacts"]]
    return files, folder / manifest["test_data"]["file"]


@pytest.mark.parametrize("which", ["shipped", "own"])
def test_a_64_bit_pi_computes_what_this_machine_does(arm64, shipped, own, tmp_path, which):
    files, data = shipped_files(shipped) if which == "shipped" else own
    report = compared(sys.executable, arm64, tmp_path, files, data)
    assert (report["runtime"], report["machine"]) == ("ai-edge-litert", "aarch64")


@pytest.mark.parametrize("which", ["shipped", "own"])
def test_a_32_bit_pi_computes_what_its_runtime_does_here(
    armhf, old_runtime, shipped, own, tmp_path, which
):
    files, data = shipped_files(shipped) if which == "shipped" else own
    report = compared(old_runtime, armhf, tmp_path, files, data)
    assert (report["runtime"], report["machine"]) == ("tflite-runtime", "armv7l")
    assert report["version"] == "2.14.0"
    assert report["numpy"].startswith("1.")


def test_a_32_bit_pi_names_what_its_runtime_lacks(armhf, own, tmp_path):
    model = keras.Sequential([keras.Input((40,)), kl.Dense(30), kl.Dense(3)], name="dense")
    x = np.random.default_rng(5).random((50, 40), dtype=np.float32)
    files = export(model, tmp_path, ["dynamic"], x)
    done = subprocess.run(
        [armhf, run.__file__, files["dynamic"]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "FULLY_CONNECTED of version 12; export with --compat" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arch", ["arm64", "armhf"])
def test_a_pi_reads_pictures(arch, request, tmp_path):
    python, shipped = request.getfixturevalue(arch), request.getfixturevalue("shipped")
    image = pytest.importorskip("PIL.Image")
    files, data = shipped_files(shipped)
    pixels = np.round(255 * np.load(data)["x_test"][7, ..., 0]).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "digit.png")
    words = [run.__file__, *files, "--image", tmp_path / "digit.png", "--json"]
    answers = [
        subprocess.run([command, *words], capture_output=True, text=True, check=True).stdout
        for command in (sys.executable, python)
    ]
    here, there = ([f["outputs"][0]["class"] for f in json.loads(a)["files"]] for a in answers)
    assert here == there
