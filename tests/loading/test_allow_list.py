"""What loads without --unsafe: all that is Keras' own, computing what Keras computes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.paths import ROOT
from tests.support.planted import small
from tfprune.data.networks import load_model
from tfprune.loading import keras_classes

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("same_process"),
]
SUFFIXES = pytest.mark.parametrize("suffix", [".keras", ".h5"])


def test_the_lists_are_those_of_the_keras_that_is_permitted():
    """Up to 3.15.0 a file could do harm; the next minor version has to be looked through."""
    requirements = (ROOT / "requirements.txt").read_text()
    assert "\nkeras>=3.15.1,<3.16\n" in requirements
    assert [int(part) for part in keras.__version__.split(".")[:3]] >= [3, 15, 1]
    assert keras.__version__.startswith("3.15.")


def test_every_class_of_keras_is_on_one_side():
    """A new one has to be looked at before files may name it."""
    known = keras_classes.LAYERS | keras_classes.RUNS_CODE
    looked_at = {getattr(keras.layers, name) for name in known}
    abstract = {kl.InputSpec, kl.Layer, kl.Wrapper}
    public = (getattr(keras.layers, name) for name in dir(keras.layers))
    assert {entry for entry in public if isinstance(entry, type)} - abstract == looked_at
    for module, names in keras_classes.PUBLIC.items():
        if not module.startswith(("keras.src.", "keras._legacy.")):
            space = keras
            for part in module.split(".")[1:]:
                space = getattr(space, part)
            assert all(isinstance(getattr(space, name), type) for name in names)
    spaces = (keras.activations, keras.losses, keras.metrics)
    for name in keras_classes.FUNCTIONS:
        assert any(callable(getattr(space, name, None)) for space in spaces)


@SUFFIXES
def test_what_keras_writes_itself_is_trusted(tmp_path, rng, suffix):
    """Layers, operations and objects of all kinds, from a file of this Keras."""
    x = keras.Input((8, 8, 4))
    y = kl.Conv2D(
        4,
        3,
        padding="same",
        activation=keras.activations.silu,
        kernel_regularizer="l2",
        kernel_initializer=keras.initializers.Orthogonal(),
        bias_constraint="non_neg",
    )(x)
    y = kl.Dense(4, activation="relu6", dtype="mixed_float16")(kl.BatchNormalization()(y))
    y = keras.ops.relu(2.0 * keras.ops.cast(y, "float32") + x)[:, 1:, ..., ::2]
    y = keras.ops.concatenate([y, keras.ops.transpose(y, (0, 1, 2, 3))], -1)
    inner = keras.Sequential([keras.Input((7, 8, 4)), kl.Flatten(), kl.Reshape((7, 32))])
    y = kl.Bidirectional(kl.GRU(3, return_sequences=True))(inner(y))
    y = kl.MultiHeadAttention(2, 2)(y, value=kl.TimeDistributed(kl.Dense(6))(y))
    y = kl.Normalization(mean=[0.0] * 6, variance=[2.0] * 6)(kl.RNN([kl.LSTMCell(6)])(y))
    model = keras.Model({"x": x}, {"y": y, "z": kl.LayerNormalization()(y)})
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(keras.optimizers.Adam(rate), {"y": "mse", "z": keras.losses.Huber()},
                  metrics={"y": [keras.metrics.MeanAbsoluteError()]})  # fmt: skip
    data = {"x": rng.normal(size=(2, 8, 8, 4)).astype("float32")}
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(tmp_path / f"m{suffix}", compiled=True)
    assert loaded.compiled
    for name, expected in model(data).items():
        np.testing.assert_allclose(loaded(data)[name], expected, atol=1e-5)


def test_h5_of_keras_3_is_taken_as_it_is(tmp_path, rng):
    """What means something else in Keras 2 does not here."""
    layers = [
        kl.Dense(4, activation="hard_sigmoid"),
        kl.Activation("hard_sigmoid"),
        kl.Reshape((2, 2)),
        kl.GRU(3, recurrent_activation="hard_sigmoid", return_sequences=True),
        kl.LSTM(3, activation="hard_sigmoid"),
    ]
    path = small(tmp_path / "m.h5", *layers)
    expected = keras.models.load_model(path)
    x = rng.normal(size=(4, 3)).astype("float32") * 3
    said = []
    np.testing.assert_array_equal(load_model(path, say=said.append)(x), expected(x))
    assert not said


def test_words_travel_with_the_file(tmp_path):
    lookup = kl.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((2,), dtype="string"), lookup, kl.Dense(2)])
    model.save(tmp_path / "m.keras")
    words = keras.ops.convert_to_tensor([["b", "c"]])
    np.testing.assert_allclose(load_model(tmp_path / "m.keras")(words), model(words))
