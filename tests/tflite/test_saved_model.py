"""What is exported is what a model computes in inference, whatever it does in training."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill
from tfprune import TfpruneError
from tfprune.tflite.interpreter import LiteModel

SHAPE = (16, 12, 3)
# What layers need to be built; other arguments without a default get a factor of 0.3.
ARGUMENTS = {
    "CenterCrop": {"height": 9, "width": 7},
    "MaxNumBoundingBoxes": {"max_number": 3},
    "Pipeline": {"layers": [kl.RandomFlip(), kl.RandomZoom(0.3)]},
    "RandomColorJitter": {"brightness_factor": 0.3, "contrast_factor": 0.3},
    "RandomCrop": {"height": 9, "width": 7},
    "RandomPosterization": {"factor": 4},
    "RandomShear": {"x_factor": 0.3, "y_factor": 0.3},
    "Resizing": {"height": 9, "width": 7},
}


def augmentations() -> list[str]:
    """All image preprocessing and regularisation layers that this Keras has."""
    kinds = ("image_preprocessing", "layers.regularization")
    classes = {name: kind for name, kind in vars(kl).items() if inspect.isclass(kind)}
    return [n for n, kind in classes.items() if any(part in kind.__module__ for part in kinds)]


def layer_of(name: str) -> keras.Layer:
    parameters = inspect.signature(getattr(kl, name).__init__).parameters.items()
    needed = [key for key, value in parameters if value.default is inspect.Parameter.empty]
    arguments = {key: 0.3 for key in needed if key not in ("self", "kwargs")}
    return getattr(kl, name)(**ARGUMENTS.get(name, arguments))


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (20, *SHAPE)).astype("float32")


def test_every_augmentation_layer_is_exported_as_in_inference(images, tmp_path):
    names = [*augmentations(), "Pipeline"]
    assert {"RandomFlip", "RandomCrop", "GaussianNoise", "AugMix", "Dropout"} <= set(names)
    data = keras.Input(SHAPE, name="data")
    made = {}
    for name in names:
        rows = {"SpatialDropout1D": (16, 36), "SpatialDropout3D": (1, *SHAPE)}.get(name, SHAPE)
        # In inference RandomCrop leaves pictures as large as they are, so Flatten would not do.
        pools = {2: kl.GlobalAveragePooling1D, 4: kl.GlobalAveragePooling3D}
        pool = pools.get(len(rows), kl.GlobalAveragePooling2D)()
        # Keras 3.15 takes Equalization behind another layer for a cycle.
        reshape = [kl.Reshape(rows)] * (rows != SHAPE)
        branch = keras.Sequential([keras.Input(SHAPE), *reshape, layer_of(name), pool])
        made[name] = branch(data)
    model = keras.Model(data, made, name="augmented")
    path = tfprune.export(model, tmp_path, ["float32"], images)["float32"]
    received = dict(zip(sorted(names), LiteModel(path.read_bytes()).predict([images]), strict=True))
    expected = model(images, training=False)
    for name in names:
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-4, atol=1e-3)


def seeds_of(model: keras.Model) -> list[np.ndarray]:
    """The states of the random generators inside."""
    return [keras.ops.convert_to_numpy(v) for v in model.variables if "seed" in v.path]


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_random_layers_leave_no_trace(rng, images, tmp_path, scheme):
    """Nested and not, they pass their input on; the file's sum is the one done by hand."""
    augment = keras.Sequential([kl.RandomFlip(seed=1), kl.RandomRotation(0.5), kl.RandomZoom(0.5)])
    dense = kl.Dense(4, name="dense")
    noisy = [kl.RandomContrast(0.9), kl.GaussianNoise(1.0), kl.Flatten(), kl.Dropout(0.9)]
    inputs = keras.Input(SHAPE, name="data")
    model = keras.Model(inputs, dense(keras.Sequential(noisy)(augment(inputs))), name="noisy")
    fill(keras.Sequential([dense]), rng)
    seeds = seeds_of(model)
    path = tfprune.export(model, tmp_path, [scheme], images)[scheme]
    kernel, bias = dense.get_weights()
    expected = images.reshape(len(images), -1) @ kernel + bias
    (received,) = LiteModel(path.read_bytes()).predict([images])
    tolerance = {"float32": 1e-5, "int8": 0.1}[scheme]
    assert np.abs(received - expected).max() < tolerance * expected.std()
    assert len(seeds) >= 6
    for before, after in zip(seeds, seeds_of(model), strict=True):
        np.testing.assert_array_equal(before, after)
    # The one float32 kernel and nothing beside it that is worth a kilobyte.
    assert path.stat().st_size < kernel.nbytes + 4000


def test_a_table_that_tflite_lacks_is_told_by_its_name(tmp_path):
    words = keras.Input((4,), dtype="int64", name="words")
    found = kl.Embedding(8, 4)(kl.IntegerLookup(vocabulary=[3, 5, 7])(words))
    model = keras.Model(words, kl.Dense(2)(kl.Flatten()(found)))
    x = np.tile([3, 5, 7, 9], (20, 1))
    with pytest.raises(TfpruneError, match="no float32 file .*HashTable"):
        tfprune.export(model, tmp_path, ["float32"], x)
