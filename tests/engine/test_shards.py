"""Moments of samples in several files, measured file by file, against one pass over all."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.inline import Inline
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
    shards = as_shards(paths)
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
    shards = as_shards(paths)
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
    shards = as_shards([tmp_path / "a.npy"])
    traced, consumers = consumers_of(model)
    with pytest.raises(TfpruneError, match="keeps a state .* without workers"):
        measure_files(shards, Workers(Inline(), print), traced, consumers, Samples(model, shards.x))
