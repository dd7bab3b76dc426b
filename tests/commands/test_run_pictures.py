"""Pictures that ``tools/run.py`` reads, held against Pillow and against the pixels that went in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.pictures import encoded
from tools import run


@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pixels_of_a_png_are_those_that_went_in(rng, filters, kind, channels):
    pixels = rng.integers(0, 256, (7, 5, channels), dtype=np.uint8)
    assert np.array_equal(run.png(encoded(pixels, kind, filters)), pixels)
    # Flat areas make the guesses tie.
    flat = np.repeat(pixels[:, :1], 5, axis=1)
    assert np.array_equal(run.png(encoded(flat, kind, filters)), flat)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_pillows(tmp_path, rng, mode, channels):
    image = pytest.importorskip("PIL.Image")
    array = rng.integers(0, 256, (8, 6, 4), dtype=np.uint8)
    made = image.fromarray(array, "RGBA").convert("RGB" if mode == "P" else mode).convert(mode)
    made.save(tmp_path / "a.png", bits=8)
    wanted = made.convert("L" if channels == 1 else "RGB")
    received = run.coloured(run.picture(tmp_path / "a.png"), (1, 8, 6, channels), Path("a"))
    assert np.array_equal(received[0].squeeze(), np.asarray(wanted))
    ahead = run.coloured(run.picture(tmp_path / "a.png"), (1, channels, 8, 6), Path("a"))
    assert np.array_equal(ahead, np.moveaxis(received, 3, 1))


def test_pictures_that_only_pillow_reads(tmp_path, rng, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    made = image.fromarray(rng.integers(0, 2, (8, 6), dtype=np.uint8) * 255).convert("1")
    made.save(tmp_path / "bits.png")
    received = run.coloured(run.picture(tmp_path / "bits.png"), (1, 8, 6, 1), Path("a"))
    assert np.array_equal(received[0, ..., 0], np.asarray(made.convert("L")))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(run.RunError, match="Pillow"):
        run.picture(tmp_path / "bits.png")


def test_an_answer_names_its_class(tmp_path):
    """Where the manifest beside the file has as many names as there are classes."""
    values = np.array([[0.1, 0.7, 0.2]], np.float32)
    for classes, said in ((["ant", "bee", "cow"], "class 1 (bee); best: bee (0.700), cow (0.200)"),
                          (["ant", "bee"], "class 1; best: 1 (0.700), 2 (0.200)")):  # fmt: skip
        model = SimpleNamespace(manifest={"dataset": {"classes": classes}, "scoring": {}})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "reconstructs", lambda *_: False)
            assert run._answer(run.described(values, model)).startswith(said)
