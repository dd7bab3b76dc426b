"""Moments of samples in several files, measured file by file, against one pass over all."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.support.inline import Inline
from tests.support.records import message, png, write
from tfprune.data.files import Reading, read
from tfprune.data.preprocessing import input_specs
from tfprune.data.splits import prepare
from tfprune.errors import TfpruneError
from tfprune.graph.activations import measure
from tfprune.graph.groups import groups_of
from tfprune.graph.inputs import Samples
from tfprune.graph.tracer import trace
from tfprune.shards import files as files_module
from tfprune.shards.files import as_shards, of_data
from tfprune.shards.moments import measure_files
from tfprune.workers.pool import Workers


def images():
    """Two convolutions that meet in a sum, and a layer too wide for float64 by default."""
    inputs = keras.Input((6, 6, 3), name="picture")
    first = kl.Conv2D(5, 3, padding="same", activation="relu", name="first")(inputs)
    second = kl.Conv2D(5, 3, padding="same", activation="relu", name="second")(first)
    flat = kl.Flatten()(kl.Add()([first, second]))
    hidden = kl.Dense(150, activation="tanh", name="hidden")(flat)
    return keras.Model(inputs, kl.Dense(3, name="output")(hidden))


def numbers():
    """Two inputs."""
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    joined = kl.Concatenate()([kl.Dense(4, "relu", name="a")(left), right])
    hidden = kl.Dense(6, "relu", name="b")(joined)
    return keras.Model([left, right], kl.Dense(1, name="output")(hidden))


def consumers_of(model):
    traced = trace(model)
    return traced, [one for group in groups_of(traced) for one in group.consumers]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("moments", "fitted", "held"):
            mine, expected = getattr(one, name), getattr(other, name)
            assert (mine is None) == (expected is None)
            if mine is not None:
                assert mine.count == expected.count
                for value in ("gram", "covariance"):
                    made, wanted = getattr(mine, value)(), getattr(expected, value)()
                    np.testing.assert_allclose(made, wanted, 0, 1e-12 * np.abs(wanted).max())
                np.testing.assert_allclose(mine.mean, expected.mean, 1e-12, 1e-12)


@pytest.fixture
def files(tmp_path, rng):
    """Samples, and the files that they lie in: of several kinds and lengths."""
    x = rng.normal(3, 1, (90, 6, 6, 3)).astype(np.float32)
    paths = [tmp_path / name for name in ("a.npy", "b.npz", "c.npz", "d.npy")]
    parts = np.split(x, [40, 45, 80])
    np.save(paths[0], parts[0])
    np.savez(paths[1], x=parts[1])
    np.savez_compressed(paths[2], x=parts[2], y=np.arange(35))
    np.save(paths[3], np.asfortranarray(parts[3]))
    return x, [str(path) for path in paths]


@pytest.mark.parametrize("least", [1, 42, 1000])
def test_files_by_workers_are_one_pass(files, monkeypatch, least):
    monkeypatch.setattr(files_module, "LEAST", least)
    x, paths = files
    model = images()
    traced, consumers = consumers_of(model)
    engine = Inline()
    shards = as_shards(paths, model)
    for hold_back in (False, True):
        samples = Samples(model, shards.x, hold_back)
        made = measure_files(
            shards, Workers(engine, print), traced, consumers, samples, batch_size=16
        )
        here = measure_files(
            shards, None, traced, consumers, Samples(model, shards.x, hold_back), batch_size=16
        )
        for one, other in zip(made, here, strict=True):
            assert one.moments.gram().tolist() == other.moments.gram().tolist()
        whole = Samples(model, x, hold_back)
        assert_equal(made, measure(traced, consumers, whole, 16, exact=True))
        if hold_back:
            (ours,), (theirs,) = samples.held_back(), whole.held_back()
            assert ours.tolist() == theirs.tolist()
    assert len(engine.requests) == 2 * {1: 4, 42: 2, 1000: 1}[least]
    # Plain and small: no sample and no weight is among them.
    assert max(map(len, engine.requests)) < 4000


def test_a_list_of_paths_prunes_as_the_samples_do(files):
    x, paths = files
    model = images()
    ours, theirs = (
        tfprune.prune(model, data, remove=0.5, refit=0, layers="all") for data in (paths, x)
    )
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert one.kept.tolist() == other.kept.tolist()
    assert ours.change.output_error == pytest.approx(theirs.change.output_error, 1e-3)
    checked = tfprune.prune(model, x, remove=0.5, refit=0, validation=paths)
    assert checked.change.output_error > 0


@pytest.mark.parametrize("names", [("x",), ("x_train", "x_test")])
def test_a_pattern_of_files_is_measured_as_it_is_scaled(tmp_path, rng, names):
    for place in range(3):
        arrays = {name: rng.integers(0, 256, (40, 6, 6, 3)) for name in names}
        kind = np.uint8 if place else np.int64
        np.savez(tmp_path / f"part{place}.npz", **{n: a.astype(kind) for n, a in arrays.items()})
    model = images()
    raw = read(str(tmp_path / "part*.npz"), Reading(3, ("picture",), (6, 6, 3)))
    data = prepare(raw, "imagenet-torch", input_specs(model), 70, 3)
    traced, consumers = consumers_of(model)
    shards = of_data(data)
    samples = Samples(model, shards.x)
    made = measure_files(shards, Workers(Inline(), print), traced, consumers, samples)
    expected = measure(traced, consumers, Samples(model, data.calibration.x), exact=True)
    assert made[0].moments.count == 70 * 36
    assert_equal(made, expected)


def test_two_inputs_of_several_files(tmp_path, rng):
    for place in range(3):
        left, right = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
        np.savez(tmp_path / f"{place}.npz", x_left=left, x_right=right)
    model = numbers()
    raw = read(str(tmp_path / "*.npz"), Reading(0, ("left", "right")))
    data = prepare(raw, "auto", input_specs(model), 1000, 0)
    traced, consumers = consumers_of(model)
    shards = of_data(data)
    samples = Samples(model, shards.x)
    made = measure_files(shards, Workers(Inline(), print), traced, consumers, samples)
    assert_equal(made, measure(traced, consumers, Samples(model, data.calibration.x), exact=True))


def test_what_cannot_be_shared_is_told(files, tmp_path, rng):
    _, paths = files
    model = images()
    np.savez(tmp_path / "other.npz", x=np.zeros((3, 5)))
    np.savez(tmp_path / "none.npz", y=np.zeros((3, 5)))
    (tmp_path / "text.npz").write_text("text")
    for bad, said in (
        ("missing.npy", r"missing\.npy: no such file"),
        ("other.npz", r"the same array, of the same shape, received x of \(40, 6, 6, 3\)"),
        ("none.npz", "expected an array x or x_train, received y"),
        ("text.npz", r"text\.npz: "),
    ):
        with pytest.raises(TfpruneError, match=said):
            tfprune.prune(model, [*paths, tmp_path / bad])
    with pytest.raises(TfpruneError, match="workers: .* expected a list of paths .* received nd"):
        tfprune.prune(model, np.zeros((9, 6, 6, 3)), workers=2)
    # One that was there at first, and is damaged when a worker comes to read it.
    shards = as_shards(paths, model)
    traced, consumers = consumers_of(model)
    samples = Samples(model, shards.x)
    with open(paths[2], "r+b") as file:  # noqa: PTH123
        file.truncate(900)
    with pytest.raises(TfpruneError, match=r"a\.npy to .*d\.npy: .*c\.npz: expected a readable"):
        measure_files(shards, Workers(Inline(), print), traced, consumers, samples)


def test_a_state_from_batch_to_batch_needs_the_order(tmp_path, rng):
    inputs = keras.Input((5, 2), batch_size=4)
    state = kl.LSTM(3, stateful=True)(inputs)
    model = keras.Model(inputs, kl.Dense(1)(kl.Dense(6, "relu", name="hidden")(state)))
    np.save(tmp_path / "a.npy", rng.normal(size=(20, 5, 2)))
    shards = as_shards([tmp_path / "a.npy"], model)
    traced, consumers = consumers_of(model)
    with pytest.raises(TfpruneError, match="keeps a state .* without workers"):
        measure_files(shards, Workers(Inline(), print), traced, consumers, Samples(model, shards.x))


def hidden(*shape):
    """Layers that shrink, behind samples of a shape."""
    inputs = keras.Input(shape, name="sample")
    flat = kl.Flatten()(inputs) if len(shape) > 1 else inputs
    return keras.Model(inputs, kl.Dense(2)(kl.Dense(6, "tanh", name="hidden")(flat)))


def table_files(kind, folder, x):
    """Samples in three tables, or files of records, with labels."""
    paths = []
    for place, part in enumerate(np.split(x, [20, 33])):
        path = folder / f"{place}.{kind}"
        if kind == "tfrecord":
            write(path, (message(value=row, label=place) for row in part))
        else:
            frame = pd.DataFrame(part, columns=[f"c{n}" for n in range(x.shape[1])])
            frame.insert(2, "label", np.arange(len(part)) % 3)
            getattr(frame, {"csv": "to_csv", "parquet": "to_parquet"}[kind])(path, index=False)
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_tables_and_records_by_workers_are_one_pass(kind, whole, large, tmp_path, rng, monkeypatch):
    x = rng.integers(0, 9, (70, 12)) if whole else rng.normal(size=(70, 12)).astype(np.float32)
    paths = table_files(kind, tmp_path, x)
    monkeypatch.setattr(files_module, "LEAST", 1)
    if large:
        for module in ("sample_files.rows", "data.files"):
            monkeypatch.setattr(f"tfprune.{module}.most_held", lambda: 100)
    # Numbers of a row come in the shape that the model takes.
    for model, rows in ((hidden(12), x), (hidden(3, 4), x.reshape(70, 3, 4))):
        traced, consumers = consumers_of(model)
        engine, shards = Inline(), as_shards(paths, model)
        samples = Samples(model, shards.x, hold_back=True)
        made = measure_files(shards, Workers(engine, print), traced, consumers, samples)
        expected = Samples(model, rows, hold_back=True)
        assert_equal(made, measure(traced, consumers, expected, exact=True))
        assert len(engine.requests) == 3
        np.testing.assert_array_equal(Samples(model, paths).at(slice(None))[0], rows)
        np.testing.assert_array_equal(Samples(model, paths[0]).at(slice(None))[0], rows[:20])


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
def test_a_pattern_of_tables_is_measured_as_it_is_scaled(kind, tmp_path, rng):
    table_files(kind, tmp_path, rng.integers(0, 256, (70, 12)))
    model = hidden(2, 2, 3)
    reading = Reading(3, ("sample",), (2, 2, 3), label="label")
    data = prepare(read(str(tmp_path / f"*.{kind}"), reading), "0..1", input_specs(model), 40, 3)
    traced, consumers = consumers_of(model)
    shards = of_data(data)
    samples = Samples(model, shards.x)
    made = measure_files(shards, Workers(Inline(), print), traced, consumers, samples)
    assert made[0].moments.count == 40
    # The samples themselves are those of the whole table: see tests/sample_files.
    assert_equal(made, measure(traced, consumers, Samples(model, data.calibration.x), exact=True))


def test_pictures_in_records_are_measured_in_one_size(tmp_path, rng):
    sizes = [(8, 6), (4, 6)]
    for place, size in enumerate(sizes):
        pixels = rng.integers(0, 256, (20, *size, 3), np.uint8)
        write(tmp_path / f"{place}.tfrecord", (message(image=png(one)) for one in pixels))
    paths = sorted(str(path) for path in tmp_path.iterdir())
    for model in (hidden(8, 6, 3), images()):
        shards = as_shards(paths, model)
        traced, consumers = consumers_of(model)
        samples = Samples(model, shards.x)
        made = measure_files(shards, Workers(Inline(), print), traced, consumers, samples)
        raw = read(str(tmp_path / "*.tfrecord"), Reading(0, shape=model.inputs[0].shape[1:]))
        rows = np.empty((40, *raw.train.x.shape[1:]), np.float32)
        for part in (raw.train, raw.test):
            rows[part.numbers] = part.x
        assert_equal(made, measure(traced, consumers, Samples(model, rows), exact=True))


def test_tables_that_differ_are_named(tmp_path, rng):
    x = rng.normal(size=(70, 12))
    paths = table_files("parquet", tmp_path, x)
    records = table_files("tfrecord", tmp_path, x)
    pd.DataFrame(x[:, :5]).rename(columns=str).to_parquet(tmp_path / "other.parquet")
    write(tmp_path / "short.tfrecord", [message(value=x[0, :5])])
    write(tmp_path / "mixed.tfrecord", [message(value=np.arange(12))] * 5)
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    pd.DataFrame(np.ones((9, 13))).rename(columns=str).to_parquet(tmp_path / "wide.parquet")
    model = hidden(12)
    for bad, said in (
        ([*paths, tmp_path / "other.parquet"], r"other\.parquet: expected the columns of .*c0, c1"),
        ([*paths, *records], r"files of one kind, received \.parquet, \.tfrecord"),
        ([*records, tmp_path / "short.tfrecord"], r"one shape, received \(12,\) and \(5,\)"),
        ([*paths, tmp_path / "none.parquet"], "none.parquet: expected a readable"),
        ([tmp_path / "mixed.tfrecord", *records], "0.tfrecord: expected int64, as in the first"),
        ([tmp_path / "gone.csv"], "gone.csv: no such file"),
        (
            [tmp_path / "wide.parquet"],
            r"shape \(12,\), received 13 columns .*it is called label",
        ),
    ):
        with pytest.raises(TfpruneError, match=said):
            tfprune.prune(model, bad)


def shards_of_records(path, x):
    """A data set that reads a file, in batches with labels, divided."""
    write(path, (message(value=row, label=0) for row in x))
    known = {name: tf.io.FixedLenFeature(*of) for name, of in
             (("value", ((x.shape[1],), tf.float32)), ("label", ((), tf.int64)))}  # fmt: skip

    def pair(record):
        found = tf.io.parse_single_example(record, known)
        return found["value"], found["label"]

    whole = tf.data.TFRecordDataset(str(path)).map(pair)
    return [whole.shard(4, n).batch(7) for n in range(4)]


@pytest.mark.parametrize("large", [False, True])
def test_data_sets_by_workers_are_one_pass(tmp_path, rng, monkeypatch, large):
    x = rng.normal(size=(301, 12)).astype(np.float32)
    if large:
        monkeypatch.setattr("tfprune.shards.data_sets.most_held", lambda: 100)
    monkeypatch.setattr("tfprune.shards.data_sets.BATCH", 16)
    monkeypatch.setattr(files_module, "LEAST", 100)
    data_sets = shards_of_records(tmp_path / "x.tfrecord", x)
    ordered = np.concatenate([x[n::4] for n in range(4)])
    model = hidden(12)
    traced, consumers = consumers_of(model)
    shards, engine = as_shards(data_sets, model), Inline()
    for hold_back in (False, True):
        samples = Samples(model, shards.x, hold_back)
        made = measure_files(shards, Workers(engine, print), traced, consumers, samples)
        here = measure_files(shards, None, traced, consumers, Samples(model, shards.x, hold_back))
        whole = Samples(model, ordered, hold_back)
        assert_equal(made, measure(traced, consumers, whole, exact=True))
        for one, other in zip(made, here, strict=True):
            assert one.moments.gram().tolist() == other.moments.gram().tolist()
    assert len(engine.requests) == 4  # Two of them go together.
    np.testing.assert_array_equal(np.asarray(shards.x), ordered)
    order = rng.permutation(301)
    np.testing.assert_array_equal(np.asarray(shards.x[order]), ordered[order])
    np.testing.assert_array_equal(
        np.concatenate([batch for (batch,) in Samples(model, data_sets).batches(9)]), ordered
    )


def test_data_sets_of_two_inputs(rng):
    left, right = (rng.normal(size=(40, n)).astype(np.float32) for n in (3, 2))
    model = numbers()
    whole = tf.data.Dataset.from_tensor_slices(({"right": right, "left": left}, np.zeros(40)))
    shards = as_shards([whole.take(25), whole.skip(25)], model)
    traced, consumers = consumers_of(model)
    made = measure_files(
        shards, Workers(Inline(), print), traced, consumers, Samples(model, shards.x)
    )
    assert_equal(made, measure(traced, consumers, Samples(model, [left, right]), exact=True))


def test_data_sets_that_cannot_be_sent_are_told(rng, monkeypatch):
    x = rng.normal(size=(40, 12)).astype(np.float32)
    model, whole = hidden(12), tf.data.Dataset.from_tensor_slices(x)
    python = tf.data.Dataset.from_generator(
        lambda: iter(x), output_signature=tf.TensorSpec((12,), tf.float32)
    )
    twelve = tf.data.Dataset.from_tensor_slices(x.astype(np.float64))
    for bad, said in (
        ([whole, python], "data set 1: it calls Python code or random numbers"),
        ([whole.map(lambda row: row + tf.random.uniform(()))], "data set 0: it calls Python"),
        ([whole.shuffle(40)], "data set 0: its samples come in another order each time; shuffle"),
        ([whole.repeat()], "endless"),
        ([whole, whole.take(0)], "at least one sample"),
        ([whole.map(lambda row: row[:5])], r"expected samples of shape \(12,\)"),
        ([whole, twelve], "data set 1: expected samples as in the first one .float32 of .12,"),
    ):
        with pytest.raises(TfpruneError, match=said):
            tfprune.prune(model, bad, workers=2)
    monkeypatch.setattr("tfprune.shards.data_sets.MOST_SENT", 1000)
    with pytest.raises(TfpruneError, match="are in the data set itself .* save them as .npy"):
        tfprune.prune(model, [whole], workers=2)
    # Without workers nothing has to be sent.
    alone = tfprune.prune(model, python, remove=0.5)
    twice = tfprune.prune(model, [python.take(15), python.skip(15)], remove=0.5)
    assert alone.layers[0].kept.tolist() == twice.layers[0].kept.tolist()
    with pytest.raises(TfpruneError, match=r"tf\.data\.Dataset, such as \[x\.shard"):
        tfprune.prune(model, whole, workers=2)
