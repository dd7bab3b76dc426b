"""Files of Keras 2, written by tf_keras, and what they compute in Keras 3."""

from __future__ import annotations

import json
import warnings

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfprune.data.networks import load_model
from tfprune.utils.console import quiet

with quiet():
    import tf_keras

L = tf_keras.layers


def save(model, path, edit=None, version=None):
    """A file of Keras 2, its configuration changed by ``edit``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path, save_format="h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        if edit:
            config = edit(config) or config
            file.attrs["model_config"] = json.dumps(config)
        if version == "":
            del file.attrs["keras_version"], file["model_weights"].attrs["keras_version"]
        elif version:
            file.attrs["keras_version"] = version
    return path


def shuffled(model, rng):
    """Weights that tell all places apart."""
    for weight in model.weights:
        values = rng.normal(size=weight.shape) * 0.4
        weight.assign(np.abs(values) + 0.2 if "variance" in weight.name else values)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def same(model, x, path, **kwargs):
    """The file computes in Keras 3 what the model computes in tf_keras; what was said."""
    said = []
    loaded = load_model(path, say=said.append, **kwargs)
    ours = keras.tree.flatten(loaded(x, training=False))
    theirs = tf.nest.flatten(model(x, training=False))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=2e-5)
    return " ".join(said)


def chain(shape, *layers, dtype=None):
    x = inputs = L.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return tf_keras.Model(inputs, x)
