"""Builds the models that a study's file describes: layers, loss and optimizer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.studies.study import Table
from tfprune.utils.arrays import Array

LAYERS = (
    "AveragePooling2D",
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "Flatten",
    "MaxPooling2D",
    "Reshape",
    "UpSampling2D",
)
OPTIMIZERS = ("Adam", "SGD")
SHAPE = (28, 28, 1)
CLASSES = 10
# Keeps logarithms finite, as Keras does.
LEAST = 1e-7


class TiedDense(kl.Layer):  # type: ignore[misc] # Keras is untyped.
    """A Dense layer whose kernel is that of an earlier one, transposed; the bias is its own."""

    def __init__(self, of: kl.Dense, activation: str, **more: Any) -> None:
        super().__init__(**more)
        self.of = of
        self.activation = keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(self.of.kernel.shape[0],), initializer="zeros")

    def call(self, x: Any) -> Any:
        kernel = keras.ops.transpose(self.of.kernel)
        return self.activation(keras.ops.matmul(x, kernel) + self.bias)


def build(table: Table, change: Table | None = None) -> keras.Model:
    """A model that takes images of 28x28.

    Parameters
    ----------
    table : dict
        ``layers``, each with its ``type`` and what Keras' layer of that name takes. ``Hidden``
        stands for a Dense layer for each number in its ``units``; ``TiedDense`` names in ``of``
        the layer whose kernel it shares. ``weights``, two numbers, draws kernels uniformly
        between them.
    change : dict, optional
        By the names of layers, what is to be otherwise in them.

    Raises
    ------
    TfpruneError
        If a layer's type is none of these.
    """
    change = change or {}
    more: Table = {}
    if "weights" in table:
        low, high = table["weights"]
        more = {"kernel_initializer": {"class_name": "RandomUniform", "config": {}}}
        more["kernel_initializer"]["config"] = {"minval": low, "maxval": high}
    model = keras.Sequential([keras.Input(SHAPE, name="image")])
    for entry in table["layers"]:
        spec = {**entry, **change.get(entry.get("name"), {})}
        kind = spec.pop("type")
        if kind == "Hidden":
            for units in spec["units"]:
                model.add(kl.Dense(units, spec["activation"], **more))
        elif kind == "TiedDense":
            of = model.get_layer(spec.pop("of"))
            model.add(TiedDense(of, **spec))
        elif kind in LAYERS:
            kernel = more if kind in ("Conv2D", "Dense") else {}
            model.add(getattr(kl, kind)(**spec, **kernel))
        else:
            raise TfpruneError(f"layer: expected one of {', '.join(LAYERS)}, received {kind!r}")
    return model


def untied(model: keras.Model, table: Table) -> keras.Model:
    """The same function with kernels of its own for every layer, as pruning needs them."""
    if not any(isinstance(layer, TiedDense) for layer in model.layers):
        return model
    layers = []
    for entry in table["layers"]:
        if entry["type"] == "TiedDense":
            units = model.get_layer(entry["of"]).kernel.shape[0]
            kept = {key: value for key, value in entry.items() if key != "of"}
            layers.append({**kept, "type": "Dense", "units": units})
        else:
            layers.append(entry)
    copy = build({**table, "layers": layers})
    for new, old in zip(copy.layers, model.layers, strict=True):
        if isinstance(old, TiedDense):
            kernel, bias = map(keras.ops.convert_to_numpy, (old.of.kernel, old.bias))
            new.set_weights([kernel.T, bias])
        else:
            new.set_weights(old.get_weights())
    compile_for(copy, table, 1)
    return copy


def compile_for(model: keras.Model, table: Table, samples: int) -> int:
    """Gives a model its loss and optimizer; returns the samples of a step.

    ``batch = "all"`` is gradient descent on all samples: gradients of smaller batches are summed up
    before the one step of an epoch.
    """
    spec = dict(table["optimizer"])
    batch = table["batch"]
    if batch == "all":
        batch = min(table["part"], samples)
        # Steps that are left over when the samples run out count for the next epoch.
        spec["gradient_accumulation_steps"] = -(-samples // batch)
        if spec["gradient_accumulation_steps"] < 2:
            del spec["gradient_accumulation_steps"]
    optimizer = getattr(keras.optimizers, spec.pop("type"))(**spec)
    losses = {
        "log-softmax": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "cross-entropy": "sparse_categorical_crossentropy",
        "mse": "mean_squared_error",
        "binary": "binary_crossentropy",
    }
    model.compile(
        optimizer,
        losses[table["loss"]],
        metrics=[] if table.get("target") == "image" else ["accuracy"],
        # Small steps cost more in their call than in their work.
        steps_per_execution=max(1, min(32, samples // batch)),
        jit_compile=False,
    )
    return int(batch)


def target(table: Table, x: Array, y: Array) -> Array:
    """What a model is trained to output: the image, the class, or the class one-hot."""
    if table.get("target") == "image":
        return x
    if table["loss"] in ("mse", "binary"):
        return np.eye(CLASSES, dtype=np.float32)[y]
    return y


def loss_of(table: Table, outputs: Array, target: Array) -> float:
    """The mean loss of outputs, computed from its formula in float64."""
    out = outputs.astype(float)
    if table["loss"] == "mse":
        return float(np.mean((out - target) ** 2))
    if table["loss"] == "binary":
        out = np.clip(out, LEAST, 1 - LEAST)
        return float(-np.mean(target * np.log(out) + (1 - target) * np.log1p(-out)))
    if table["loss"] == "log-softmax":
        out = out - out.max(axis=1, keepdims=True)
        shares = out[np.arange(len(out)), target]
        return float(np.mean(np.log(np.exp(out).sum(axis=1)) - shares))
    return float(-np.mean(np.log(np.clip(out[np.arange(len(out)), target], LEAST, 1))))
