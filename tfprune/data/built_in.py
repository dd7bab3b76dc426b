"""The built-in reference networks; Keras is loaded only to build one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfprune.errors import TfpruneError

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]


def cnn(shape: Shape, classes: int, units: int | None = None) -> keras.Model:
    """The studies' CNN: two 5x5 convolutions (10 and 20 filters), 64 hidden units."""
    import keras
    from keras import layers as kl

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
    import keras
    from keras import layers as kl

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
    import keras
    from keras import layers as kl

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
