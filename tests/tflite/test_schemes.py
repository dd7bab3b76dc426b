"""The kinds of files: every list of them, and what the records say against files themselves."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import layers as kl
from matplotlib.lines import Line2D

import tfprune
from tests.support.graphs import fill
from tests.support.paths import ROOT
from tfprune.errors import TfpruneError
from tfprune.sweep.plot import FILLS
from tfprune.tflite import conversion_worker, schemes
from tfprune.tflite.reader import shares
from tfprune.tflite.schemes import DEFAULT_SCHEMES, SCHEMES, check_micro, check_schemes


def test_every_list_of_schemes_names_the_same():
    assert all(name == scheme.name for name, scheme in SCHEMES.items())
    assert set(conversion_worker.SETTINGS) == {*SCHEMES, "trained int8"}
    assert set(FILLS) == set(SCHEMES)
    assert DEFAULT_SCHEMES == ("float32", "float16", "dynamic", "int8")
    assert f"Some of {', '.join(SCHEMES)}" in tfprune.export.__doc__


def test_the_documented_table_is_that_of_the_records():
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ([\d.]+) \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert rows == [
        (one.name, one.description, f"{one.weight_bytes:g}", f"{100 * one.tolerance:g}")
        for one in SCHEMES.values()
    ]


def test_pictures_tell_schemes_apart():
    for looks in ([one.marker for one in SCHEMES.values()], list(FILLS.values())):
        assert len(set(looks)) == len(SCHEMES)
    assert {one.marker for one in SCHEMES.values()} <= set(Line2D.markers)
    assert set(FILLS.values()) <= set(Line2D.fillStyles)


def test_only_int8_goes_to_microcontrollers():
    assert [name for name, scheme in SCHEMES.items() if not scheme.not_micro] == ["int8"]
    assert all(scheme.micro_runs for scheme in SCHEMES.values() if not scheme.not_micro)
    for scheme in SCHEMES.values():
        if scheme.not_micro:
            with pytest.raises(TfpruneError, match=f"{scheme.name}: {scheme.not_micro}"):
                check_micro("--device", [scheme.name], 1)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(schemes, "find_spec", lambda name: None)
    with pytest.raises(TfpruneError) as told:
        check_schemes("float32,int4")
    assert str(told.value) == (
        "schemes: int4 needs ai-edge-quantizer, which is not installed; "
        "pip install -r requirements-int4.txt"
    )
    assert (ROOT / SCHEMES["int4"].requirements).is_file()
    assert check_schemes("int8,float32,int8") == ("int8", "float32")


def test_weights_take_the_bytes_that_the_record_says(rng, tmp_path):
    size = 256
    model = fill(keras.Sequential([keras.Input((size,)), kl.Dense(size, name="only")]), rng)
    x = rng.normal(0, 1, (20, size)).astype("float32")
    names = [name for name in SCHEMES if SCHEMES[name].installed]
    for name, path in tfprune.export(model, tmp_path, names, x).items():
        largest = max(part.bytes for part in shares(path))
        assert largest == SCHEMES[name].weight_bytes * size**2, name
    assert ("int4" in names) == (find_spec("ai_edge_quantizer") is not None)


def test_it_needs_the_standard_library_alone():
    code = "import sys, tfprune.tflite.schemes; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"numpy", "keras", "tensorflow", "matplotlib"} & set(done.stdout.split())


def test_the_examples_of_the_docstrings_hold():
    tried = doctest.testmod(schemes)
    assert (tried.failed, tried.attempted > 0) == (0, True)
    assert np.isfinite([scheme.tolerance for scheme in SCHEMES.values()]).all()
