"""Calibration data of every kind gives what a plain array gives; what is not data is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tfprune import TfpruneError
from tfprune.graph.inputs import collected


class Batches(keras.utils.PyDataset):
    """Batches of 50 with labels."""

    def __init__(self, x, length=None):
        super().__init__()
        self.x = x
        self.length = length

    def __len__(self):
        return len(self.x) // 50

    def __getitem__(self, number):
        return self.x[50 * number : 50 * (number + 1)], np.zeros(50)


class Endless(Batches):
    @property
    def num_batches(self):
        return None


def kinds_of(x, path):
    np.save(path, x)
    yield x.tolist()
    yield {"data": x}
    yield path
    yield str(path)
    archive = path.with_suffix(".npz")
    np.savez(archive, x=x, y=np.zeros(len(x)))
    yield archive
    yield np.load(path, mmap_mode="r")
    yield tf.data.Dataset.from_tensor_slices(x).batch(64)
    yield tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x)))).batch(64)
    yield tf.data.Dataset.from_tensor_slices({"data": x}).batch(64)
    yield tf.data.Dataset.from_generator(
        lambda: iter(np.split(x, 4)), output_signature=tf.TensorSpec((None, 6), tf.float32)
    )
    yield Batches(x)
    yield tf.data.Dataset.from_tensor_slices(x)
    yield tf.data.Dataset.from_tensor_slices(({"data": x}, np.zeros(len(x))))
    yield lambda: ((part, np.zeros(len(part))) for part in np.split(x, 4))


@pytest.fixture
def model():
    return keras.Sequential(
        [keras.Input((6,), name="data"), kl.Dense(20, activation="relu"), kl.Dense(3)]
    )


@pytest.fixture
def x(rng):
    return rng.standard_normal((200, 6)).astype(np.float32)


def test_every_kind_of_data_prunes_alike(model, x, tmp_path):
    expected = tfprune.prune(model, x, threshold=60)
    assert expected.layers[0].units_after < 20
    for data in kinds_of(x, tmp_path / "x.npy"):
        result = tfprune.prune(model, data, threshold=60)
        np.testing.assert_array_equal(result.layers[0].kept, expected.layers[0].kept)
        for ours, theirs in zip(
            result.model.get_weights(), expected.model.get_weights(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def two_inputs(wrap=list):
    """Names that sort differently from their order; what is subtracted is not symmetric."""
    right = keras.Input((4,), name="right")
    left = keras.Input((4,), name="left")
    hidden = kl.Dense(16, activation="relu", name="hidden")(kl.Subtract()([right, left]))
    pair = {"right": right, "left": left} if wrap is dict else [right, left]
    return keras.Model(pair, kl.Dense(2)(hidden))


@pytest.mark.parametrize("wrap", [list, dict])
def test_several_inputs(rng, wrap):
    model = two_inputs(wrap)
    right, left = (rng.standard_normal((300, 4)).astype(np.float32) for _ in range(2))
    both = {"right": right, "left": left} if wrap is dict else [right, left]
    given = [{"right": right, "left": left}, {"left": left, "right": right}]
    given += [tf.data.Dataset.from_tensor_slices({"right": right, "left": left}).batch(64)]
    if wrap is list:
        given += [[right, left], (right, left)]
        given += [tf.data.Dataset.from_tensor_slices((((right, left)), right)).batch(64)]
    # The same model of the difference alone says which units are alike.
    alone = keras.Sequential([keras.Input((4,)), kl.Dense(16, activation="relu"), kl.Dense(2)])
    alone.set_weights(model.get_weights())
    expected = tfprune.prune(alone, right - left, threshold=60)
    assert expected.layers[0].units_after < 16
    for data in given:
        result = tfprune.prune(model, data, threshold=60)
        np.testing.assert_array_equal(result.layers[0].kept, expected.layers[0].kept)
        np.testing.assert_allclose(
            result.model.predict(both, verbose=0),
            expected.model.predict(right - left, verbose=0),
            atol=1e-4,
        )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((9, 4)), "expected 2 arrays, one for each input"),
        ([np.zeros((9, 4))], "expected 2 arrays"),
        ({"right": np.zeros((9, 4))}, r"\(right, left\), received right"),
        ([np.zeros((9, 4)), np.zeros((8, 4))], "input left: expected 9 samples"),
        ([np.zeros((9, 4)), np.zeros((9, 5))], r"input left: expected samples of shape \(4,\)"),
    ],
)
def test_inputs_that_do_not_fit_together(data, said):
    with pytest.raises(TfpruneError, match=said):
        tfprune.prune(two_inputs(), data)


def test_data_that_is_none(model, x, tmp_path):
    (tmp_path / "text.npy").write_text("no numbers")
    np.savez(tmp_path / "archive.npz", other=x)
    for data, said in (
        (tf.data.Dataset.from_tensor_slices(x).batch(50).repeat(), "endless"),
        (Endless(x), "endless"),
        (Batches(x[:10]), "at least one sample"),
        (tf.data.Dataset.from_tensor_slices(x[:, :5]), r"expected samples of shape \(6,\)"),
        ((part for part in np.split(x, 4)), "read more than once, received a generator; give"),
        (lambda: iter([]), "at least one sample"),
        (tmp_path / "missing.npy", "missing.npy: cannot be read"),
        (tmp_path / "text.npy", "cannot be read as a .npy"),
        (tmp_path / "archive.npz", "expected an array x or x_train, received other"),
        (tmp_path / "missing.npz", "missing.npz: no such file"),
        (tf.data.Dataset.from_tensor_slices(np.where(x > 2, np.nan, x)).batch(50), "finite"),
        ([], "expected samples of shape"),
        (object(), "expected numbers"),
    ):
        with pytest.raises(TfpruneError, match=said):
            tfprune.prune(model, data)


def test_files_are_made_on_every_kind_of_data(model, x, tmp_path):
    expected = tfprune.export(model, tmp_path / "array", ["int8"], representative=x)["int8"]
    made = set()
    for number, data in enumerate(kinds_of(x, tmp_path / "x.npy")):
        if number >= 2:  # Lists are float64, rounded otherwise.
            folder = tmp_path / str(number)
            made.add(tfprune.export(model, folder, ["int8"], representative=data)["int8"])
    assert len(made) == 12
    assert {path.read_bytes() for path in made} == {expected.read_bytes()}


def test_of_a_stream_no_more_than_a_thousand_samples_are_kept(model, x):
    whole = np.concatenate([x + number for number in range(6)])
    read = []

    def batches():
        for part in np.split(whole, 12):
            read.append(len(part))
            yield part

    (kept,) = collected(model, batches)
    np.testing.assert_array_equal(kept, whole[:1000])
    # The first batch, looked at on its own, then ten.
    assert sum(read) == 100 + 1000
    np.testing.assert_array_equal(collected(model, whole)[0], whole)
