"""The data that studies are repeated on: MNIST, or the digits that scikit-learn brings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfprune.data.sources import load as load_data
from tfprune.data.splits import Raw, Split
from tfprune.errors import TfpruneError
from tfprune.studies.bench import Data
from tfprune.studies.networks import CLASSES, SHAPE
from tfprune.utils.digests import text_digest

# Of the labels of MNIST's 10,000 test images, as bytes.
MNIST_LABELS = "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"


def find_data(path: str | None, seed: int, say: Callable[[str], None]) -> Data:
    """MNIST from a file, or without one the digits that scikit-learn brings.

    Raises
    ------
    TfpruneError
        If the file has no images of 28x28 with classes 0 to 9, for training and test.
    """
    if path is None:
        say(
            "no --data: on scikit-learn's 1,797 handwritten digits, not on MNIST; "
            "published figures are of MNIST"
        )
    raw = load_data("digits" if path is None else "mnist", path, seed, say)
    train, test = (_images(raw, part, path) for part in (raw.train, raw.test))
    labels = np.asarray(test.y).astype(np.uint8).tobytes()
    is_mnist = path is not None and text_digest(labels) == MNIST_LABELS
    if path is not None and not is_mnist:
        say(f"--data {path}: not MNIST's test labels; published figures are of MNIST")
    return Data("MNIST" if is_mnist else raw.name, raw.sha256, is_mnist, train, test)


def _images(raw: Raw, part: Split, path: str | None) -> Split:
    x, y = part.arrays[0], part.y
    if y is None or y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= CLASSES:
        raise TfpruneError(f"--data {path}: expected a class from 0 to 9 for each image")
    scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return Split(scaled.reshape(-1, *SHAPE), y.astype(np.intp))
