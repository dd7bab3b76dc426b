"""Samples from columns are those of the same numbers in an ``.npz``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tfprune.data import sources
from tfprune.errors import TfpruneError
from tfprune.sample_files import columns


@pytest.fixture
def table(rng):
    """Four columns of values, one of classes, as text."""
    frame = pd.DataFrame(rng.normal(size=(40, 4)).round(3), columns=list("abcd"))
    frame["kind"] = rng.choice(["walk", "run", "sit"], 40)
    return frame


def load(path, label=None, shape=None):
    return sources.load("auto", str(path), 3, print, label=label, shape=shape, inputs=("x",))


def same(raw, other):
    for one, two in ((raw.train, other.train), (raw.test, other.test)):
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)


@pytest.fixture
def expected(table, tmp_path):
    """The same samples, with labels by hand, from an ``.npz``."""
    numbers = {"run": 0, "sit": 1, "walk": 2}
    x = table[list("abcd")].to_numpy(np.float32)
    np.savez(tmp_path / "same.npz", x=x, y=[numbers[kind] for kind in table["kind"]])
    return load(tmp_path / "same.npz")


@pytest.mark.parametrize("kind", ["comma", "semicolon", "index", "headless", "parquet", "text"])
def test_every_form_of_a_table_is_the_same_data(table, expected, tmp_path, kind):
    path, label = tmp_path / ("data.parquet" if kind == "parquet" else "data.csv"), "kind"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "headless":
        table[["kind", *"abcd"]].to_csv(path, header=False, index=False)
        label = "0"
    elif kind == "text":
        path.write_text("\ufeff" + table.to_csv(index=False), encoding="utf-8")
    else:
        table.to_csv(path, sep=";" if kind == "semicolon" else ",", index=kind == "index")
    raw = load(path, label)
    same(raw, expected)
    assert raw.classes == ("run", "sit", "walk")
    notes = "; ".join(raw.notes)
    assert "labels are text, sorted into 3 classes: 0 'run', 1 'sit', 2 'walk'" in notes
    assert ("no header" in notes) == (kind == "headless")
    assert ("first column not used" in notes) == (kind == "index")


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_several_files_are_one(table, expected, tmp_path, kind):
    for number in range(4):
        rows = table[number * 10 : number * 10 + 10]
        path = tmp_path / f"part{number}.{kind}"
        if kind == "csv":
            rows.to_csv(path, index=False)
        elif kind == "parquet":
            rows.to_parquet(path)
        else:
            y = rows["kind"].map({"run": 0, "sit": 1, "walk": 2})
            np.savez(path, x=rows[list("abcd")].to_numpy(np.float32), y=y.to_numpy())
    raw = load(tmp_path / f"part*.{kind}", None if kind == "npz" else "kind")
    same(raw, expected)
    assert raw.notes[0].startswith("4 files, from ")


def test_a_npy_is_samples_without_labels(expected, tmp_path, table):
    np.save(tmp_path / "a.npy", table[list("abcd")].to_numpy(np.float32))
    raw = load(tmp_path / "a.npy")
    np.testing.assert_array_equal(raw.test.x, expected.test.x)
    assert raw.train.y is None


def test_numbers_stay_numbers_and_without_a_label_there_are_none(tmp_path, rng):
    x = rng.integers(0, 256, (30, 12))
    pd.DataFrame(x).to_csv(tmp_path / "a.csv", index=False)
    raw = load(tmp_path / "a.csv", shape=(2, 6))
    assert (len(raw.train) + len(raw.test), raw.train.x.dtype) == (30, np.int32)
    assert raw.train.y is None
    assert raw.train.x.shape[1:] == (2, 6)
    assert "12 numbers a sample shaped to (2, 6)" in raw.notes
    rows = {row.tobytes() for row in x.astype(np.int32)}
    assert {row.tobytes() for row in (*raw.train.x, *raw.test.x)} == rows
    assert load(tmp_path / "a.csv", shape=(None, 3)).train.x.shape[1:] == (4, 3)
    raw = load(tmp_path / "a.csv", label="11")
    assert (raw.train.x.shape[1], raw.train.y.dtype) == (11, np.int64)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("a,b\n1,2\n3,four\n", None, "row 2, column 'b': expected a number, received 'four'"),
        ("1,2\n3,4\n5,six\n", None, "row 3, column '1': expected a number, received 'six'"),
        ("a,b\n1,2\n3,\n", None, "row 2, column 'b': expected a number, received nothing"),
        ("a;b\n1;2\n3;4,5\n", None, "row 2, column 'b': .* received '4,5'; write it with a point"),
        ("a,b,c\n1,2,x\n3,4,y\n", "b", "received 'x'; leave the column out"),
        ("a,b\n1,x\n2,y\n", None, "received 'x'; a column of labels is named by --label"),
        ("a,b\n1,x\n2,y\n", "c", "--label c: .*no such column; it has a, b"),
        ("1,2\n3,4\n", "2", "--label 2: .*columns 0 to 1, without names"),
        ("a,b\n1,\n2,y\n", "b", "row 1, column 'b': expected a label, received nothing"),
        ("a\n1\n2\n", "a", "columns beside the label"),
        ("a,b\n1,2\n3,4,5\n", None, "expected a readable .csv file"),
        ("", None, "expected a readable .csv file"),
        ("a,b\n", None, "at least one sample"),
        ("a,b\n1,inf\n2,3\n", None, "NaN or infinity"),
        ("a,b\n1,2\n3,4\n", "a.npz", "no such column"),
    ],
)
def test_what_is_no_number_is_named_by_row_and_column(tmp_path, text, label, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(TfpruneError, match=message) as caught:
        load(tmp_path / "a.csv", label)
    assert "\n" not in str(caught.value)


def test_columns_that_do_not_fit_are_told(tmp_path):
    pd.DataFrame(np.ones((9, 7))).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(TfpruneError, match=r"expected 6 numbers .* received 7; .*--label COLUMN"):
        load(tmp_path / "a.csv", shape=(2, 3))
    pd.DataFrame(np.ones((9, 7)), columns=list("abcdefg")).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(TfpruneError, match="expected the columns of .*a.csv"):
        load(tmp_path / "?.csv")
    with pytest.raises(TfpruneError, match="no file matches"):
        load(tmp_path / "*.parquet")
    np.save(tmp_path / "c.npy", np.ones(9))
    with pytest.raises(TfpruneError, match="files of one kind"):
        load(tmp_path / "*.*")
    with pytest.raises(TfpruneError, match="--label: for .csv"):
        load(tmp_path / "c.npy", label="0")


def test_parquet_of_strangers_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    with pytest.raises(TfpruneError, match="expected a readable .parquet"):
        load(path)
    pd.DataFrame({"a": [[1, 2]] * 5}).to_parquet(path)
    with pytest.raises(TfpruneError, match="column 'a' holds lists"):
        load(path)
    monkeypatch.setattr(columns, "ALWAYS", 1000)
    monkeypatch.setattr(columns, "RATIO", 2)
    pd.DataFrame({"a": np.zeros(10**5)}).to_parquet(path)
    with pytest.raises(TfpruneError, match="that unpack to .*, refused"):
        load(path)


def test_files_of_other_kinds_are_refused_by_what_there_is(tmp_path):
    (tmp_path / "notes.md").write_text("words")
    (tmp_path / "cat.png").write_bytes(b"no matter what")
    for name, said in (
        ("notes.md", r"notes.md: expected .npz, .npy, .csv, .parquet, .tfrecord, or a folder"),
        ("*.png", "received a picture; give its folder: --data"),
    ):
        with pytest.raises(TfpruneError, match=said):
            load(tmp_path / name)
