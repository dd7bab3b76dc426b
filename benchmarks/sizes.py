"""``python -m benchmarks.sizes``: what pruning does to the size of a file, tfmot's and ours.

tensorflow-model-optimization sets half of the hidden layer's weights to zero; tfprune removes half
of its units. Untrained weights serve: sizes do not depend on them.
"""

from __future__ import annotations

import gzip
import tempfile
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.utils.console import quiet

with quiet():
    import keras
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from tfprune.core.fold import drop, merge_matrix
    from tfprune.core.moments import Moments
    from tfprune.core.selection import Selection
    from tfprune.data.built_in import cnn
    from tfprune.graph.groups import groups_of
    from tfprune.graph.shrink import Cut, shrink
    from tfprune.graph.tracer import trace
    from tfprune.tflite.converter import convert
    from tfprune.tflite.minify import minify

SHAPE = (28, 28, 1)
UNITS = 64


def tfmot_half_zero() -> bytes:
    """The float32 file after tfmot's magnitude pruning of the hidden layer to 50 %."""
    layers = tf_keras.layers
    twin = tf_keras.Sequential(
        [
            layers.InputLayer(SHAPE, batch_size=1),
            layers.Conv2D(10, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(20, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            tfmot.sparsity.keras.prune_low_magnitude(
                layers.Dense(UNITS, activation="relu"),
                tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1),
            ),
            layers.Dense(10, activation="softmax"),
        ]
    )
    twin.compile("sgd", "mse")
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    x = np.zeros((1, *SHAPE), np.float32)
    twin.fit(x, np.zeros((1, 10)), verbose=0, callbacks=[callback])
    plain = tfmot.sparsity.keras.strip_pruning(twin)
    zeros = np.mean(plain.layers[-2].get_weights()[0] == 0)
    assert zeros >= 0.49, zeros
    with tempfile.TemporaryDirectory() as folder:
        plain.export(folder)
        # Written as ours are, so that the sizes differ by what was pruned alone.
        return minify(bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert()))


def half_the_units(model: keras.Model) -> keras.Model:
    """The model without every other hidden unit."""
    traced = trace(model)
    kept = np.arange(0, UNITS, 2)
    selection = Selection(kept, {int(unit): int(unit) - 1 for unit in np.arange(1, UNITS, 2)})
    nothing: Any = np.zeros(UNITS)
    (group,) = (group for group in groups_of(traced) if "hidden" in group.producers)
    folds = [(consumer, drop(selection, Moments(UNITS), nothing)) for consumer in group.consumers]
    taken = merge_matrix(selection, merge=False)
    return shrink(model, traced, [Cut(group, kept, taken, folds)])


def main() -> None:
    """Prints the table."""
    keras.utils.set_random_seed(0)
    model = cnn(SHAPE, 10, UNITS)
    x = np.random.default_rng(0).random((20, *SHAPE), np.float32)
    with quiet():
        files = {
            "unpruned": dict(convert(model, ["float32"], [x]))["float32"],
            "tfmot, half of the hidden weights zero": tfmot_half_zero(),
            "tfprune, half of the hidden units gone": dict(
                convert(half_the_units(model), ["float32"], [x])
            )["float32"],
        }
    rows = [
        [name, f"{len(data):,}", f"{len(gzip.compress(data)):,}"] for name, data in files.items()
    ]
    print(tabulate(rows, ["float32 .tflite", "bytes", "gzip"], colalign=("left", "right", "right")))


if __name__ == "__main__":
    main()
