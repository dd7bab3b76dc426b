"""The reference networks, and a user's own model read safely from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.loading import model_files
from tfprune.loading.keras2_folder import is_saved_model
from tfprune.utils.escapes import plain

Shape = tuple[int, ...]


def cnn(shape: Shape, classes: int, units: int | None = None) -> keras.Model:
    """The studies' CNN: two 5x5 convolutions (10 and 20 filters), 64 hidden units."""
    if len(shape) != 3 or min(shape[:2]) < 16:
        raise TfpruneError(
            f"--model cnn: expected images of at least 16x16 and their channels, received {shape}"
        )
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            kl.Conv2D(10, 5, activation="relu", name="conv1"),
            kl.MaxPooling2D(2, name="pool1"),
            kl.Conv2D(20, 5, activation="relu", name="conv2"),
            kl.MaxPooling2D(2, name="pool2"),
            kl.Flatten(name="flatten"),
            kl.Dense(units or 64, activation="relu", name="hidden"),
            kl.Dense(classes, activation="softmax", name="output"),
        ],
        name="cnn",
    )


def mlp(shape: Shape, classes: int, units: int | None = None) -> keras.Model:
    """784-64-10 with a sigmoid hidden layer, for data of any shape."""
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            kl.Flatten(name="flatten"),
            kl.Dense(units or 64, activation="sigmoid", name="hidden"),
            kl.Dense(classes, activation="softmax", name="output"),
        ],
        name="mlp",
    )


def autoencoder(shape: Shape, classes: int, units: int | None = None) -> keras.Model:
    """784-400-784, all sigmoid, for data of any shape in [0, 1]."""
    size = 1
    for length in shape:
        size *= length
    return keras.Sequential(
        [
            keras.Input(shape, name="image"),
            kl.Flatten(name="flatten"),
            kl.Dense(units or 400, activation="sigmoid", name="hidden"),
            kl.Dense(size, activation="sigmoid", name="output"),
            kl.Reshape(shape, name="reshape"),
        ],
        name="autoencoder",
    )


BUILT_IN: dict[str, Callable[[Shape, int, int | None], keras.Model]] = {
    "cnn": cnn,
    "mlp": mlp,
    "autoencoder": autoencoder,
}


def load_model(
    path: Path,
    unsafe: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] | None = None,
) -> keras.Model:
    """Reads a ``.keras`` or ``.h5`` file, one of Keras 1 and 2 as well, or their SavedModel.

    Parameters
    ----------
    path : Path
    unsafe : bool
        Whether code in the file (a Lambda layer) may be loaded.
    compiled : bool
        Whether to load its compile settings too.
    say : callable, optional
        Is told in a line what was adapted in a file of an older Keras.

    Raises
    ------
    TfpruneError
        If there is no such file, it is not a Keras model, needs code, or has no known shapes.
    """
    if not path.exists():
        raise TfpruneError(f"--model {path}: no such file, and not one of {', '.join(BUILT_IN)}")
    if not path.is_file() and not is_saved_model(path):
        raise TfpruneError(
            f"--model {path}: expected a file or a SavedModel, "
            "received a folder of another kind or a device"
        )
    try:
        if path.is_file():
            path.open("rb").close()  # What may not be read looks like no model otherwise.
        return model_files.load(path, unsafe, compiled, say)
    except (TfpruneError, OSError) as error:
        raise TfpruneError(f"--model {path}: {plain(model_files.reason(error))}") from None
