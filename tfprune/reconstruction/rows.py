"""What a layer multiplies with its kernel at single positions, as rows of a matrix."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.graph.forward import Index, taken
from tfprune.utils.arrays import Array

Places = npt.NDArray[np.intp]
Seeds = npt.NDArray[np.uint64]


def sample_digests(x: Sequence[Array]) -> Seeds:
    """A number for each sample that depends on nothing but its values, on 32 bits.

    Parameters
    ----------
    x : sequence of arrays of shape (samples, ...)
        One for each input, in memory.
    """
    flat = [np.ascontiguousarray(one).reshape(len(one), -1).view(np.uint8) for one in x]
    made = np.zeros(len(x[0]), np.uint64)
    for number in range(len(made)):
        for one in flat:
            made[number] = zlib.crc32(one[number], int(made[number]))
    return made


def mixed(numbers: Seeds) -> Seeds:
    """Numbers that look like drawn at random, each from the one given (splitmix64).

    References
    ----------
    Steele, Lea, Flood (2014), "Fast splittable pseudorandom number generators".

    Examples
    --------
    >>> mixed(np.array([0, 1], np.uint64)) % np.uint64(1000)
    array([535, 465], dtype=uint64)
    """
    with np.errstate(over="ignore"):
        made = numbers + np.uint64(0x9E3779B97F4A7C15)
        made = (made ^ (made >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        made = (made ^ (made >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return made ^ (made >> np.uint64(31))


def places_by_seeds(shape: tuple[int, ...], each: int, seeds: Seeds) -> tuple[Places, ...]:
    """As :func:`places_of`, where those drawn of a sample depend on its seed alone.

    Parameters
    ----------
    shape, each
        See :func:`places_of`.
    seeds : array of shape (samples,)
        Numbers that look random.
    """
    count = int(np.prod(shape[1:-1]))
    if count <= each:
        return places_of(shape, each, np.random.default_rng(0))
    with np.errstate(over="ignore"):
        draws = mixed(np.add.outer(seeds, np.arange(each, dtype=np.uint64)))
    flat = (draws % np.uint64(count)).astype(np.intp).ravel()
    return _places(shape, each, flat)


def places_of(shape: tuple[int, ...], each: int, rng: np.random.Generator) -> tuple[Places, ...]:
    """Positions of an output, the same number for each sample.

    Parameters
    ----------
    shape : tuple of int
        Of the output: samples, positions, features.
    each : int
        How many of each sample at most; all where there are no more, else drawn at random.
    rng : numpy.random.Generator

    Returns
    -------
    tuple of arrays of shape (rows,)
        Sample, then the position on each axis.

    Examples
    --------
    >>> places_of((2, 3, 5), 9, np.random.default_rng(0))
    (array([0, 0, 0, 1, 1, 1]), array([0, 1, 2, 0, 1, 2]))
    """
    samples, axes = shape[0], shape[1:-1]
    count = int(np.prod(axes))
    if count <= each:
        flat = np.tile(np.arange(count), samples)
    else:
        flat = rng.integers(0, count, samples * each)
    return _places(shape, min(count, each), flat)


def _places(shape: tuple[int, ...], each: int, flat: Places) -> tuple[Places, ...]:
    """Positions by their number within a sample, so many of each, as the sample and the axes."""
    rows, axes = np.repeat(np.arange(shape[0]), each), shape[1:-1]
    return (rows, *(np.asarray(one) for one in np.unravel_index(flat, axes or (1,))[: len(axes)]))


def patches(layer: Any, x: Array, places: tuple[Places, ...]) -> Array:
    """What a layer multiplies with its kernel to make its output at some places.

    Parameters
    ----------
    layer : Dense, Conv1D to Conv3D or DepthwiseConv1D or 2D
        With channels last.
    x : array of shape (samples, positions, channels)
        The layer's input.
    places : tuple of arrays of shape (rows,)
        See :func:`places_of`.

    Returns
    -------
    array of shape (rows, kernel positions, channels)
        Its last two axes in the order of the layer's kernel; one kernel position for Dense.
    """
    return taken(x, patch_index(layer, x.shape, places))


def index_of(shape: Sequence[int], places: tuple[Places, ...]) -> Index:
    """Places as positions counted through all samples of a tensor of this shape."""
    return np.ravel_multi_index(places, tuple(shape[:-1]))


def patch_index(layer: Any, shape: Sequence[int], places: tuple[Places, ...]) -> Index:
    """Where a layer reads to make its output at some places.

    Parameters
    ----------
    layer, places
        See :func:`patches`.
    shape : sequence of int
        Of the layer's input.

    Returns
    -------
    array of shape (rows, kernel positions)
        See :func:`tfprune.graph.forward.taken`.
    """
    if type(layer) is kl.Dense:
        return index_of(shape, places)[:, None]
    axes = list(
        zip(shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    )
    before = [_zeros_before(*axis, layer.padding) for axis in axes]
    offsets = list(itertools.product(*map(range, layer.kernel_size)))
    found = np.empty((len(places[0]), len(offsets)), np.intp)
    for number, offset in enumerate(offsets):
        index, inside = places[0], np.ones(len(places[0]), bool)
        for place, (size, _, stride, spread), step, zeros in zip(
            places[1:], axes, offset, before, strict=True
        ):
            at = place * stride + step * spread - zeros
            inside &= (at >= 0) & (at < size)
            index = index * size + at
        found[:, number] = np.where(inside, index, -1)
    return found


def _zeros_before(size: int, kernel: int, stride: int, spread: int, kind: str) -> int:
    """Zeros that stand before an axis."""
    reach = spread * (kernel - 1)
    if kind in ("valid", "causal"):
        return reach if kind == "causal" else 0
    return max((-(-size // stride) - 1) * stride + reach + 1 - size, 0) // 2
