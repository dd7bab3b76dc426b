"""``python -m benchmarks.device``: what removed filters and units are worth in the TFLite file.

Trains two CNNs (on real MNIST where TFPRUNE_MNIST names it, else on the bundled digits), removes
a share of all filters and hidden units without retraining, and measures the files in LiteRT: the
latency of all files of one scheme is taken in turns, and told as a ratio to the unpruned file's.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune
    from tfprune.data import network_training, sources, splits
    from tfprune.data.built_in import cnn
    from tfprune.graph.inputs import check_inputs
    from tfprune.tflite.converter import convert
    from tfprune.tflite.interpreter import LiteModel, latencies

SHARES = (0.25, 0.5, 0.75)
SCHEMES = ("float32", "int8")
CALIBRATION = 2_000


def wide(shape: tuple[int, ...], classes: int) -> keras.Model:
    """32 and 64 filters of 3x3, 128 hidden units."""
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            kl.Conv2D(32, 3, activation="relu", name="conv1"),
            kl.MaxPooling2D(2, name="pool1"),
            kl.Conv2D(64, 3, activation="relu", name="conv2"),
            kl.MaxPooling2D(2, name="pool2"),
            kl.Flatten(name="flatten"),
            kl.Dense(128, activation="relu", name="hidden"),
            kl.Dense(classes, activation="softmax", name="output"),
        ],
        name="wide",
    )


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one sample: every kernel once per position of its output."""
    return sum(
        math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
        for layer in model.layers
        if isinstance(layer, (kl.Dense, kl.Conv2D))
    )


def trained(model: keras.Model, data: splits.Dataset) -> keras.Model:
    """The model after the training of the built-in networks."""
    (x,) = data.train.arrays
    epochs = network_training.epochs_for(len(x))
    steps = epochs * -(-len(x) // network_training.BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(network_training.LEARNING_RATE / 5, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x, data.train.y, network_training.BATCH_SIZE, epochs, verbose=0)
    return model


def rows_of(model: keras.Model, data: splits.Dataset) -> list[list[Any]]:
    """A row for each share: MACs, bytes, accuracy and latency, times or points to the whole."""
    x = check_inputs(model, data.calibration.x)
    models = {"0 %": model}
    for share in SHARES:
        result = tfprune.prune(model, x[0], remove=share, layers="all")
        models[f"{share:.0%}".replace("%", " %")] = result.model
    rows = [[model.name, name, f"{macs(part):,}"] for name, part in models.items()]
    whole = macs(model)
    for row, part in zip(rows, models.values(), strict=True):
        row.append(f"{macs(part) / whole:.2f}")
    for scheme in SCHEMES:
        contents = [dict(convert(part, [scheme], x))[scheme] for part in models.values()]
        files = [LiteModel(content) for content in contents]
        (test,) = check_inputs(model, data.test.x)
        times = [times["p10"] for times in latencies(files, [test[0]])]
        for row, content, file, time in zip(rows, contents, files, times, strict=True):
            right = np.mean(file.predict([test])[0].argmax(axis=1) == data.test.y)
            row += [f"{len(content):,}", f"{100 * right:.2f}", f"{time / times[0]:.2f}"]
    return rows


def main() -> None:
    """Prints the table."""
    keras.utils.set_random_seed(0)
    source = "mnist" if os.environ.get("TFPRUNE_MNIST") else "digits"
    raw = sources.load(source, None, 0, lambda line: print(line, file=sys.stderr))
    data = splits.prepare(raw, "auto", None, CALIBRATION, 0)
    shape = data.train.arrays[0].shape[1:]
    rows = []
    for build in (cnn, wide):
        with quiet():
            rows += rows_of(trained(build(shape, 10), data), data)
    head = ["model", "removed", "MACs", "ratio"]
    for scheme in SCHEMES:
        head += [f"{scheme} bytes", "accuracy", "latency ratio"]
    test = f"{len(data.test):,} test images of {data.name}, p10 of one thread, taken in turns"
    print(f"{test}; no retraining")
    print(tabulate(rows, head, disable_numparse=True, colalign=("left",) + ("right",) * 9))


if __name__ == "__main__":
    main()
