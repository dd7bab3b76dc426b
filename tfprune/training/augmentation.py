"""Flips and shifts of pictures, so that a network sees more than there are."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.graph.inputs import input_shapes
from tfprune.utils.arrays import Array

# A picture is shifted by at most one of so many parts of its size: 3 of 32 pixels.
PARTS = 10
CHANNELS = (1, 3, 4)


def check_pictures(model: keras.Model, what: str = "augment") -> None:
    """Checks that a model reads pictures, which can be flipped and shifted.

    Parameters
    ----------
    model : keras.Model
    what : str
        What the user calls the option that needs them.

    Raises
    ------
    TfpruneError
        Unless every input is of shape (samples, height, width, channels), of 1, 3 or 4 channels.
    """
    for name, shape in input_shapes(model).items():
        if len(shape) != 3 or shape[-1] not in CHANNELS:
            raise TfpruneError(
                f"{what}: expected a model that reads pictures, samples of shape (height, width, "
                f"channels) of 1, 3 or 4 channels; input {name} of model {model.name} has samples "
                f"of shape {shape}; leave it out"
            )


def flipped_and_shifted(batch: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """A batch of which half the pictures are mirrored, and all shifted by up to a tenth.

    Parameters
    ----------
    batch : sequence of arrays of shape (samples, height, width, channels)
        One for each input; all pictures of a sample are mirrored or none, and shifted by the same
        share of their size.
    rng : numpy.random.Generator

    Returns
    -------
    list of arrays
        Of the same shapes and dtypes.

    Examples
    --------
    >>> pictures = np.arange(9.0).reshape(1, 3, 3, 1)  # Too small to be shifted.
    >>> (seen,) = flipped_and_shifted([pictures], np.random.default_rng(3))
    >>> seen[0, :, :, 0]
    array([[2., 1., 0.],
           [5., 4., 3.],
           [8., 7., 6.]])
    """
    mirrored = rng.random(len(batch[0])) < 0.5
    places = rng.random((len(batch[0]), 2))
    made = []
    for pictures in batch:
        most = np.array(pictures.shape[1:3]) // PARTS
        shifts = np.floor(places * (2 * most + 1)).astype(np.intp) - most
        made.append(moved(pictures, mirrored, shifts))
    return made


def moved(pictures: Array, mirrored: npt.NDArray[np.bool_], shifts: npt.NDArray[np.intp]) -> Array:
    """Mirrors pictures from left to right, then shifts them; edges fill what is left empty.

    Parameters
    ----------
    pictures : array of shape (samples, height, width, channels)
    mirrored : array of shape (samples,)
        Which ones are mirrored.
    shifts : array of shape (samples, 2)
        Pixels down and to the right.

    Examples
    --------
    >>> row = np.array([1, 2, 3, 4]).reshape(1, 1, 4, 1)
    >>> moved(row, np.array([False]), np.array([[0, 1]])).ravel()
    array([1, 1, 2, 3])
    >>> moved(row, np.array([True]), np.array([[0, 1]])).ravel()
    array([4, 4, 3, 2])
    """
    rows, columns = (
        np.clip(np.arange(size) - shift[:, None], 0, size - 1)
        for size, shift in zip(pictures.shape[1:3], shifts.T, strict=True)
    )
    columns[mirrored] = pictures.shape[2] - 1 - columns[mirrored]
    samples = np.arange(len(pictures))[:, None, None]
    return pictures[samples, rows[:, :, None], columns[:, None, :]]
