"""Data is scaled once: by the package, or by the layers that a model has for it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune.data.preprocessing import input_specs
from tfprune.data.splits import Raw, Split, prepare, split

SHAPE = (8, 8, 3)
LEFT, SCALED = "not scaled, as layer {} scales it", "uint8 scaled from 0..255 to 0..1"


def model_behind(*front, shape=SHAPE, name="image"):
    return keras.Sequential(
        [keras.Input(shape, name=name), *front, kl.Flatten(), kl.Dense(2, name="first")]
    )


def functional(front):
    """A model whose front is a function of the input, operations and all."""
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, kl.Dense(2)(kl.Flatten()(front(image))))


def scaled(model, x, scale="auto"):
    """The notes, and the data as the model gets it."""
    train, test = split(Split(x), 0.2, 0)
    data = prepare(Raw("own", "", train, test), scale, input_specs(model), 10, 0)
    return list(data.notes), data


def pictures(rng, shape=SHAPE):
    return rng.integers(0, 256, (60, *shape), dtype=np.uint8)


def standardised(mean, variance):
    return kl.Normalization(mean=mean, variance=variance, name="normal")


def half_to_half():
    return kl.Rescaling(1 / 127.5, offset=-1, name="rescaling")


def preprocessing():
    """As Keras' guides have it: a Sequential of its own, augmentation in front."""
    inside = [kl.RandomFlip(), kl.RandomRotation(0.1), kl.RandomContrast(0.2)]
    return keras.Sequential(
        [keras.Input(SHAPE), *inside, kl.Rescaling(1 / 255, name="rescaling")], name="before"
    )


def adapted():
    layer = kl.Normalization(name="normal")
    layer.adapt(np.random.default_rng(1).integers(0, 256, (50, *SHAPE)).astype(np.float32))
    return layer


@keras.saving.register_keras_serializable("tests")
class Halves(keras.layers.Layer):
    """A user's own way of scaling."""

    def call(self, x):
        return x / 127.5 - 1


OWN = {
    "rescaling": lambda: model_behind(kl.Rescaling(1 / 255, name="rescaling")),
    "to -1..1": lambda: model_behind(half_to_half()),
    "centred alone": lambda: model_behind(kl.Rescaling(1.0, offset=-127.5, name="rescaling")),
    "normal": lambda: model_behind(standardised([120.0, 110.0, 90.0], [4e3, 5e3, 6e3])),
    "adapted": lambda: model_behind(adapted()),
    "both": lambda: model_behind(
        kl.Rescaling(1 / 255, name="rescaling"), standardised([0.4] * 3, [0.05] * 3)
    ),
    "augmented": lambda: model_behind(kl.RandomFlip(), half_to_half()),
    "resized": lambda: model_behind(kl.Resizing(4, 4), kl.CenterCrop(2, 2), half_to_half()),
    "flat": lambda: model_behind(kl.Reshape((64, 3)), kl.Permute((2, 1)), half_to_half()),
    "nested": lambda: model_behind(preprocessing()),
    "dropout": lambda: model_behind(kl.GaussianNoise(0.1), kl.MaxPooling2D(), half_to_half()),
    "custom": lambda: model_behind(Halves(name="rescaling")),
    "lambda": lambda: model_behind(kl.Lambda(lambda x: x / 255, name="rescaling")),
    "branches": lambda: functional(
        lambda x: kl.Concatenate()([kl.MaxPooling2D()(kl.Rescaling(1 / 255, name="rescaling")(x)),
                                    kl.Conv2D(2, 2, strides=2)(x)])
    ),
    "divided": lambda: functional(lambda x: x / 255.0),
    "mobilenet": lambda: functional(keras.applications.mobilenet_v2.preprocess_input),
    "caffe": lambda: functional(keras.applications.resnet50.preprocess_input),
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_what_a_model_scales_by_itself_is_left_to_it(kind, rng):
    model = OWN[kind]()
    x = pictures(rng)
    notes, data = scaled(model, x)
    (own,) = [want.scaling for want in input_specs(model)]
    assert notes == [LEFT.format(own.layer)]
    if kind in ("normal", "adapted"):
        assert own.layer == "normal"
    elif kind == "nested":
        assert own.layer == "before/rescaling"
    elif kind not in ("divided", "mobilenet", "caffe"):
        assert own.layer == "rescaling"
    assert data.train.x.dtype == np.uint8
    assert {row.tobytes() for row in data.train.x} <= {row.tobytes() for row in x}
    assert (data.scales[0].factor, data.scales[0].auto) == (1, 1)


FOR_SMALL = {
    "no layer": lambda: model_behind(),
    "to -1..1 from 0..1": lambda: model_behind(kl.Rescaling(2.0, offset=-1)),
    "as of ImageNet": lambda: model_behind(
        standardised([0.485, 0.456, 0.406], [0.0524, 0.0502, 0.0506])
    ),
    "no change": lambda: model_behind(kl.Rescaling(1.0)),
    "behind weights": lambda: model_behind(kl.Conv2D(4, 3), kl.Rescaling(1 / 255)),
    "an activation": lambda: model_behind(kl.Activation("sigmoid")),
}


@pytest.mark.parametrize("kind", FOR_SMALL)
def test_what_takes_values_from_0_to_1_gets_them(kind, rng):
    notes, data = scaled(FOR_SMALL[kind](), pictures(rng))
    assert len(notes) == 1
    assert notes[0].startswith(SCALED)
    assert data.train.x.dtype == np.float32
    assert 0.99 < data.train.x.max() <= 1
    assert data.scales[0].factor == data.scales[0].auto == pytest.approx(1 / 255)


def test_the_user_has_the_last_word(rng):
    x = pictures(rng)
    for model in (model_behind(), model_behind(kl.Rescaling(1 / 255))):
        notes, data = scaled(model, x, "none")
        assert (notes, data.train.x.dtype) == ([], np.uint8)


def test_each_of_several_inputs_is_scaled_or_not_by_itself(rng):
    image, depth = keras.Input(SHAPE, name="image"), keras.Input((8, 8), name="depth")
    both = kl.Concatenate()(
        [kl.Flatten()(kl.Rescaling(1 / 255, name="rescaling")(image)), kl.Flatten()(depth)]
    )
    model = keras.Model([image, depth], kl.Dense(2)(both))
    arrays = {"image": pictures(rng), "depth": pictures(rng, (8, 8))}
    notes, data = scaled(model, arrays)
    assert notes == [f"input image: {LEFT.format('rescaling')}", f"input depth: {SCALED}"]
    assert data.train.x["image"].dtype == np.uint8
    assert data.train.x["depth"].max() <= 1
    # Two pictures of one scaling: both are left to it.
    pair = [keras.Input(SHAPE, name=name) for name in ("left", "right")]
    joined = half_to_half()(kl.Concatenate()(pair))
    model = keras.Model(pair, kl.Dense(2)(kl.Flatten()(joined)))
    notes, _ = scaled(model, {"left": pictures(rng), "right": pictures(rng)})
    assert notes == [f"input {name}: {LEFT.format('rescaling')}" for name in ("left", "right")]


@pytest.mark.parametrize("reader", ["embedding", "encoding"])
def test_indices_stay_indices_however_their_input_is_declared(reader, rng):
    """keras.Input is of float32 where nothing else is said."""
    layer = {"embedding": kl.Embedding(256, 4), "encoding": kl.CategoryEncoding(256)}[reader]
    model = model_behind(layer, shape=(6,), name="words")
    notes, data = scaled(model, pictures(rng, (6,)))
    assert notes == ["uint8 left as it is, the model takes whole numbers"]
    assert data.train.x.dtype == np.uint8


def test_bytes_that_are_small_already_are_not_made_smaller(rng):
    x = rng.integers(0, 2, (60, *SHAPE), dtype=np.uint8)
    notes, data = scaled(model_behind(), x)
    assert notes == ["not scaled, as no value of the uint8 data is greater than 1"]
    assert data.train.x.max() == 1
    # Counts up to 16, standardised by the model: it is the counts that it knows.
    x = rng.integers(0, 17, (60, *SHAPE), dtype=np.uint8)
    notes, _ = scaled(model_behind(standardised([0.8] * 3, [4.0] * 3)), x)
    assert notes == [LEFT.format("normal")]


def test_an_open_size_is_no_obstacle(rng):
    model = keras.Sequential(
        [keras.Input((None, None, 3)), half_to_half(), kl.Conv2D(2, 3), kl.GlobalMaxPooling2D()]
    )
    assert scaled(model, pictures(rng))[0] == [LEFT.format("rescaling")]
