"""Samples in the range of a model: against keras.applications and scikit-learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl
from sklearn.preprocessing import StandardScaler

from tfprune.data.preprocessing import input_specs
from tfprune.data.scales import InputSpec, scale_of
from tfprune.errors import TfpruneError

APPLICATIONS = {
    "-1..1": keras.applications.mobilenet_v2,
    "imagenet-caffe": keras.applications.resnet,
    "imagenet-torch": keras.applications.densenet,
}


def scaled(name, x, spec=None):
    return scale_of(name, x, x, spec)[0].scaled(x)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_modes_are_those_of_keras_applications(name, rng):
    x = rng.integers(0, 256, (20, 6, 5, 3), np.uint8)
    x[0, 0, 0] = 0, 128, 255
    expected = APPLICATIONS[name].preprocess_input(x.astype(np.float32))
    np.testing.assert_allclose(scaled(name, x), expected, atol=1e-4)
    # Brightness from 0 to 1 is the same picture.
    np.testing.assert_allclose(scaled(name, x.astype(np.float32) / 255), expected, atol=1e-4)


def test_mean_and_deviation_are_those_of_the_training_data(rng):
    x = rng.normal([3, -1, 100], [2, 0.1, 30], (2500, 3)).astype(np.float32)
    x[:, 1] = 7
    expected = StandardScaler().fit_transform(x.astype(float))
    np.testing.assert_allclose(scaled("mean-std", x), expected, atol=1e-4)
    pictures = rng.integers(0, 256, (40, 5, 5, 3), np.uint8)
    by_channel = StandardScaler().fit_transform(pictures.reshape(-1, 3).astype(float))
    np.testing.assert_allclose(scaled("mean-std", pictures).reshape(-1, 3), by_channel, atol=1e-4)


@pytest.mark.parametrize("name", ["none", "0..1", *APPLICATIONS, "mean-std"])
def test_scaling_can_be_undone(name, rng):
    x = rng.integers(0, 256, (20, 6, 5, 3), np.uint8)
    how = scale_of(name, x, x, None)[0]
    np.testing.assert_allclose(how.raw(how.scaled(x)), x, atol=1e-3)


def test_what_a_mode_is_not_for_is_refused(rng):
    pictures = rng.integers(0, 256, (20, 6, 5, 1), np.uint8)
    with pytest.raises(TfpruneError, match=r"imagenet-caffe: expected samples of 3 channels"):
        scaled("imagenet-caffe", pictures)
    with pytest.raises(TfpruneError, match=r"0\.\.1: expected brightness.* to 300"):
        scaled("0..1", np.linspace(0, 300, 20)[:, None])
    indices = InputSpec("words", (4,), floats=False)
    assert scaled("0..1", pictures, indices) is pictures


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (keras.applications.MobileNetV2, "-1..1"),
        (keras.applications.VGG16, "imagenet-caffe"),
        (keras.applications.DenseNet121, "imagenet-torch"),
        (keras.applications.MobileNetV3Small, None),
    ],
)
def test_a_known_family_goes_by_its_name(build, name, rng):
    model = build(weights=None, input_shape=(64, 64, 3), classes=4)
    x = rng.integers(0, 256, (20, 64, 64, 3), np.uint8)
    (spec,) = input_specs(model)
    how, (note,) = scale_of("auto", x, x, spec)
    if name is None:
        # It has a Rescaling of its own.
        assert how.unchanged
        return
    assert f"as keras.applications has it for {model.name}: scaled from 0..255 by {name}" in note
    np.testing.assert_array_equal(how.scaled(x), scaled(name, x))
    # Nested, as in transfer learning.
    image = keras.Input((64, 64, 3))
    whole = keras.Model(image, kl.Dense(2)(kl.Flatten()(model(image))))
    assert input_specs(whole)[0].family == (model.name, name)
