"""Trains the reference networks, or takes their weights from the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt

from tfprune.data import network_cache
from tfprune.data.built_in import BUILT_IN
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.utils.console import meter
from tfprune.utils.digests import text_digest
from tfprune.utils.environment import cache_folder
from tfprune.utils.versions import versions

BATCH_SIZE = 100
# Adam from here down to 0 along a cosine; the studies' constant 0.005 ends a point lower.
LEARNING_RATE = 0.01
# Epochs, unless the data is so small that they would be fewer steps than this.
EPOCHS = 5
STEPS = 500
MOST_CLASSES = 10_000


def epochs_for(samples: int) -> int:
    """How many epochs the built-in networks are trained on so many samples."""
    return max(EPOCHS, -(-STEPS * BATCH_SIZE // samples))


def trained(
    name: str,
    units: int | None,
    train: Split,
    validation: Split,
    *,
    data_digest: str,
    epochs: int | None,
    seed: int,
    say: Callable[[str], None],
) -> tuple[keras.Model, Path | None]:
    """A trained built-in network, from the cache if it is there.

    Parameters
    ----------
    name : {"cnn", "mlp", "autoencoder"}
    units : int or None
        Width of the hidden layer; None is the network's own.
    train, validation : Split
        Samples of one array.
    data_digest : str
        Names the data in the cache key.
    epochs : int or None
        None: see :func:`epochs_for`.
    seed : int
    say : callable
        Is told whether the network is trained or taken from the cache.

    Returns
    -------
    model : keras.Model
    path : Path or None
        Its file in the cache; None if the cache cannot be written.

    Raises
    ------
    TfpruneError
        If the data is not what the network takes.
    """
    reconstructs = name == "autoencoder"
    classes = 1 if reconstructs else _classes(name, train, validation)
    epochs = epochs or epochs_for(len(train))
    keras.utils.set_random_seed(seed)
    if train.streamed:
        train, validation = train.held(), validation.held()
        say(f"{name}: {len(train):,} of the training samples are held in memory to train on")
    (x,), (held,) = train.arrays, validation.arrays
    model = BUILT_IN[name](x.shape[1:], classes, units)
    recipe = {
        "architecture": json.loads(model.to_json()),
        "data": data_digest,
        "shape": x.shape,
        "range": [float(x.min()), float(x.max())],
        "seed": seed,
        "epochs": epochs,
        "batch_size": BATCH_SIZE,
        "learning_rate": [LEARNING_RATE, "cosine"],
        "versions": {key: versions()[key] for key in ("tensorflow", "keras", "numpy")},
    }
    key = text_digest(json.dumps(recipe, sort_keys=True, default=str))[:32]
    folder = cache_folder()
    path = folder / f"{name}-{key}.npz" if folder else None
    loss = "mean_squared_error" if reconstructs else "sparse_categorical_crossentropy"
    steps = epochs * -(-len(train) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[] if reconstructs else ["accuracy"])
    if path and network_cache.restore(model, path, say):
        say(f"{name}: trained before, taken from the cache")
        return model, path
    say(f"{name}: training {epochs} epochs on {len(train):,} samples")
    with meter("training", epochs, unit="epoch") as bar:
        model.fit(
            x,
            x if reconstructs else train.y,
            validation_data=(held, held if reconstructs else validation.y),
            batch_size=BATCH_SIZE,
            epochs=epochs,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: bar.update())],
        )
    if path is None:
        say("the trained model could not be cached: there is no home folder; set TFPRUNE_CACHE")
        return model, None
    return model, network_cache.store(model, path, say)


def _classes(name: str, *parts: Split) -> int:
    """How many classes the labels tell apart."""
    labels: list[npt.NDArray[Any]] = [part.y for part in parts if part.y is not None]
    if len(labels) < len(parts):
        raise TfpruneError(
            f"--model {name}: expected labels to train on, the data has none; "
            "use --model autoencoder or a trained .keras file"
        )
    for y in labels:
        one = y.ndim == 1 or y.shape[1:] == (1,)
        if not one or y.dtype.kind not in "iub" or y.min() < 0:
            raise TfpruneError(
                f"--model {name}: expected integer labels from 0, one a sample, received "
                f"{y.dtype} of shape {y.shape}"
            )
    classes = max(int(y.max()) for y in labels) + 1
    if classes > MOST_CLASSES:
        raise TfpruneError(
            f"--model {name}: expected labels below {MOST_CLASSES:,}, received {classes - 1:,}"
        )
    return classes
