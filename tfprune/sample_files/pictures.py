"""Decodes pictures, with limits, and brings them to a size."""

from __future__ import annotations

import warnings
from typing import IO, Any

import numpy as np

from tfprune.utils.arrays import Array

FORMATS = ("PNG", "JPEG", "BMP")
# How Pillow calls pixels of so many channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def opened(file: IO[bytes]) -> Any:
    """A picture whose pixels were not read yet; Pillow's limit of pixels is an error.

    Raises
    ------
    Exception
        Of many kinds, if it is damaged or too large.
    """
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"no {', '.join(FORMATS)}") from None
    pixels, most = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise ValueError(f"{pixels:,} pixels, at most {most:,} are read")
    return image


def decoded(file: IO[bytes], channels: int) -> Array:
    """The pixels of a picture, uint8 of shape (height, width, channels); see :func:`opened`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened(file) as image:
            # 16 bits, of which Pillow would cut off what is above 255.
            deep = image.mode.startswith("I")
            one = image.point(lambda value: value / 256).convert("L") if deep else image
            pixels = np.asarray(one.convert(MODES[channels]), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def resized(pixels: Array, size: tuple[int, int]) -> Array:
    """A picture in another size, as Keras' ``image_dataset_from_directory`` does it, rounded."""
    import tensorflow as tf

    made = tf.image.resize(pixels, size, "bilinear").numpy()
    return np.round(made).clip(0, 255).astype(np.uint8)
