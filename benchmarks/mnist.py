"""What benchmarks on MNIST share: its pictures, and models of one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.utils.console import quiet

with quiet():
    import keras

    from tfprune.data.networks import load_model

EPOCHS, BATCH = 4, 128
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Pictures:
    """MNIST as (28, 28, 1) pictures of 0..1, and the digits they show."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


@cache
def pictures() -> Pictures:
    """From the .npz that TFPRUNE_MNIST names; the program ends where it does not."""
    if "TFPRUNE_MNIST" not in os.environ:
        sys.exit("expected the environment variable TFPRUNE_MNIST to name MNIST's .npz")
    with np.load(os.environ["TFPRUNE_MNIST"]) as data:
        x, x_test = (data[key][..., None].astype("float32") / 255 for key in ("x_train", "x_test"))
        return Pictures(x, data["y_train"], x_test, data["y_test"])


def accuracy(model: keras.Model, x: Array, y: Array) -> float:
    """Percent of the samples."""
    return 100 * float(np.mean(model.predict(x, 500, verbose=0).argmax(axis=1) == y))


def trained(build: Callable[[], keras.Model], seed: int, file: Path, data: Pictures) -> keras.Model:
    """A model of logits after 4 epochs of Adam on all pictures; from the file if it is there."""
    with quiet():
        if file.exists():
            return load_model(file)
        keras.utils.set_random_seed(seed)
        model = build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss)
        model.fit(data.x, data.y, BATCH, EPOCHS, verbose=0)
        file.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is whole.
        part = file.with_suffix(".part.keras")
        model.save(part)
        part.rename(file)
        return load_model(file)


def spread(values: Sequence[float]) -> str:
    """The mean, and the standard deviation of several."""
    mean = f"{np.mean(values):.2f}" if values else "-"
    return f"{mean} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else mean
