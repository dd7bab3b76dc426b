"""What does not fit in memory is streamed, and is the same data as what fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tfprune.data import files, picture_folders, sources
from tfprune.data.splits import prepare
from tfprune.sample_files import columns
from tfprune.utils import streamed
from tfprune.utils.streamed import StreamedArray

ROWS = 300


@pytest.fixture
def little_memory(monkeypatch):
    """Nothing fits, and no more than some rows are read at once."""

    def begin():
        for module in (files, picture_folders):
            monkeypatch.setattr(module, "most_held", lambda: 100)
        monkeypatch.setattr(streamed, "AT_ONCE", 2000)
        monkeypatch.setattr(streamed, "SPAN", 500)
        monkeypatch.setattr(columns, "PART", 8 * 6 * 70)
        monkeypatch.setattr(picture_folders, "AT_ONCE", 5)

    return begin


def arrays(path, rng, kind):
    x = rng.integers(0, 256, (ROWS, 4, 3), np.uint8)
    labels = rng.integers(0, 3, ROWS)
    if kind == "npy":
        np.save(path / "x.npy", rng.normal(size=(ROWS, 5)))
    elif kind == "fortran":
        np.save(path / "x.npy", np.asfortranarray(rng.normal(size=(ROWS, 5)).astype("f4")))
    elif kind == "several":
        for number, some in enumerate(np.array_split(np.arange(ROWS), 3)):
            np.savez(path / f"part{number}.npz", x=x[some], y=labels[some])
        return path / "part*.npz"
    else:
        save = np.savez_compressed if kind == "compressed" else np.savez
        cut = ROWS // 2
        save(path / "x.npz", x_train=x[:cut], y_train=labels[:cut], x_test=x[cut:],
             y_test=labels[cut:])  # fmt: skip
    return next(path.iterdir())


def table(path, rng, kind):
    frame = pd.DataFrame(rng.integers(-9, 9, (ROWS, 4)), columns=list("abcd"))
    # What kind of numbers they are, and that labels are text, is seen late.
    if "late" in kind:
        frame["a"] = [*range(ROWS - 20), *rng.normal(size=20).round(4)]
    else:
        frame["a"] = rng.normal(size=ROWS).round(4)
    frame["kind"] = rng.integers(0, 3, ROWS)
    if "text" in kind:
        frame["kind"] = [*rng.integers(0, 3, ROWS - 10), *["none"] * 10]
    if "parquet" in kind:
        frame.astype({"kind": str} if "text" in kind else {}).to_parquet(path / "x.parquet")
    elif "several" in kind:
        frame[:100].to_csv(path / "x1.csv", index=False)
        frame[100:].to_csv(path / "x2.csv", index=False)
        return path / "x*.csv"
    else:
        frame.to_csv(path / "x.csv", index="late" in kind)
    return next(path.iterdir())


def pictures(path, rng, kind):
    for name in "ab":
        (path / "all" / name).mkdir(parents=True)
        for number in range(7):
            pixels = rng.integers(0, 256, (8, 6 + number % 2, 3), np.uint8)
            Image.fromarray(pixels).save(path / "all" / name / f"{number}.png")
    return path / "all"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        *((arrays, kind) for kind in ("npy", "fortran", "stored", "compressed", "several")),
        *((table, kind) for kind in ("csv", "late text csv", "parquet", "text parquet")),
        (table, "several csv"),
        (pictures, "folder"),
    ],
)
def test_streamed_data_is_the_data_in_memory(tmp_path, rng, little_memory, make, kind):
    path = make(tmp_path, rng, kind)
    how = {
        "label": "kind" if make is table else None,
        "shape": (8, 6, 3) if make is pictures else None,
    }
    whole = sources.load("auto", str(path), 3, print, **how)
    little_memory()
    raw = sources.load("auto", str(path), 3, print, **how)
    assert isinstance(raw.train.x, StreamedArray)
    assert any(note.startswith("streamed: ") for note in raw.notes)
    assert (raw.sha256, raw.classes) == (whole.sha256, whole.classes)
    assert [n for n in raw.notes if not n.startswith("streamed: ")] == list(whole.notes)
    for ours, theirs in ((raw.train, whole.train), (raw.test, whole.test)):
        assert (ours.x.shape, ours.x.dtype) == (theirs.x.shape, theirs.x.dtype)
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)
        assert (ours.x.min(), ours.x.max()) == (theirs.x.min(), theirs.x.max())
        assert ours.x.mean() == pytest.approx(theirs.x.mean(dtype=float))
    ours, theirs = (prepare(one, "mean-std", None, 50, 1) for one in (raw, whole))
    for name in ("train", "calibration", "validation", "test"):
        np.testing.assert_array_equal(getattr(ours, name).x, getattr(theirs, name).x)
