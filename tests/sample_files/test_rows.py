"""Several files of samples as one array."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill
from tfprune.graph.inputs import Samples, collected
from tfprune.sample_files import rows as rows_module
from tfprune.sample_files.rows import rows_of_files


@pytest.fixture
def files(tmp_path, rng):
    """Rows in a .npy and two kinds of .npz, and all of them in order."""
    x = rng.normal(size=(90, 6)).astype("float32")
    np.save(tmp_path / "a.npy", x[:20])
    np.savez(tmp_path / "b.npz", x=x[20:50], y=np.zeros(30))
    np.savez_compressed(tmp_path / "c.npz", x=x[50:])
    return [tmp_path / name for name in ("a.npy", "b.npz", "c.npz")], x


def test_rows_are_those_of_the_files_in_order(files, rng):
    paths, x = files
    rows = rows_of_files([str(path) for path in paths])
    order = rng.permutation(90)
    assert rows.shape == (90, 6)
    np.testing.assert_array_equal(np.asarray(rows), x)
    np.testing.assert_array_equal(np.asarray(rows[order]), x[order])


def test_every_function_that_takes_data_takes_a_list_of_files(files, rng, tmp_path):
    paths, x = files
    layers = [kl.Dense(8, "relu", name="hidden"), kl.BatchNormalization(), kl.Dense(3, "softmax")]
    model = fill(keras.Sequential([keras.Input((6,)), *layers], name="net"), rng)
    batches = list(Samples(model, paths).batches(40))
    np.testing.assert_array_equal(np.concatenate([part for (part,) in batches]), x)
    np.testing.assert_array_equal(collected(model, paths)[0], x)
    for ours, theirs in zip(*(tfprune.adapt(model, data).get_weights() for data in files),
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)
    made = [
        tfprune.export(model, tmp_path / name, ["int8"], representative=data)["int8"].read_bytes()
        for name, data in zip(("files", "array"), files, strict=True)
    ]
    assert made[0] == made[1]
    tfprune.heal(model, model, paths, 1)


def test_files_that_differ_are_named(files, tmp_path):
    paths, x = files
    np.save(tmp_path / "other.npy", x[:, :5])
    for bad, words in (
        (tmp_path / "other.npy", r"the same array, of the same shape, received x of \(20, 6\), x"),
        (tmp_path / "none.npy", "none.npy: no such file"),
    ):
        with pytest.raises(tfprune.TfpruneError, match=words):
            rows_of_files([str(path) for path in [*paths, bad]])


def test_a_file_that_goes_away_is_named(files):
    paths, _ = files
    rows = rows_of_files([str(path) for path in paths])
    paths[1].unlink()
    with pytest.raises(tfprune.TfpruneError, match="b.npz: cannot be read"):
        np.asarray(rows)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_files_are_read_once_where_they_can_be_kept(tmp_path, rng, monkeypatch, kind, large):
    """Training takes samples from all files for each step."""
    x = rng.normal(size=(90, 6)).astype("float32")
    paths = [str(tmp_path / f"{n}.{kind}") for n in range(3)]
    for path, part in zip(paths, np.split(x, 3), strict=True):
        if kind == "npz":
            np.savez(path, x=part)
        else:
            pd.DataFrame(part, columns=list("abcdef")).to_parquet(path)
    if large:
        monkeypatch.setattr(rows_module, "most_held", lambda: 100)
    read = []
    real = rows_module._read
    monkeypatch.setattr(
        rows_module, "_read", lambda path, *how: read.append(path) or real(path, *how)
    )
    rows = rows_of_files(paths)
    for _ in range(3):
        order = rng.permutation(90)
        np.testing.assert_array_equal(np.asarray(rows[order]), x[order])
    assert len(read) == (9 if large and kind == "npz" else 3)
