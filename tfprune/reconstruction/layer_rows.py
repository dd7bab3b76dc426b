"""The rows that one layer's least squares are made of, for samples whoever reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph.forward import Index
from tfprune.reconstruction.least_squares import CHUNK, FEW, Problem, Solution
from tfprune.reconstruction.rows import (
    Seeds,
    index_of,
    mixed,
    patch_index,
    places_by_seeds,
)
from tfprune.reconstruction.segments import Segments
from tfprune.reconstruction.sites import Site
from tfprune.utils.arrays import Array

# Numbers in the rows of one layer, at most (256 MiB), in what it should make, and rows.
NUMBERS, GOALS, ROWS = 2**26, 2**25, 2**17
# In a large model, where each is dear: rows for an unknown of an output, and rows at least.
ROWS_PER_UNKNOWN, LEAST_ROWS = 32, 2**13
# Relative squared error that is rounding.
NOTHING = 1e-9
# A normalisation's gain below this share of the median is as good as none.
LEAST_GAIN = 1e-3
# Rows that are multiplied at a time, at least.
FEWEST = 256
# One sample in so many is held back, to keep what does better there alone.
HELD_BACK = 7


def rows_wanted(site: Site, large: bool) -> int:
    """How many rows a layer's least squares should have."""
    kernel = site.layer.get_weights()[0]
    inputs = kernel[..., 0].size
    most = min(ROWS, NUMBERS // inputs, GOALS // len(site.kept))
    if large:
        unknowns = inputs // kernel.shape[-2] if site.depthwise else inputs
        # A kernel of one channel has few unknowns, and rows hold all channels.
        numbers = NUMBERS // 2 if site.depthwise else NUMBERS // 4 * 3
        room = min(numbers // inputs, GOALS // 2 // len(site.kept))
        most = min(most, max(LEAST_ROWS, ROWS_PER_UNKNOWN * unknowns), room)
    return most


def held_back(digests: Seeds) -> npt.NDArray[np.bool_]:
    """Which samples are held back, about a seventh: it depends on each sample alone.

    Parameters
    ----------
    digests : array of shape (samples,)
        See :func:`tfprune.reconstruction.rows.sample_digests`.
    """
    return mixed(~digests) % np.uint64(HELD_BACK) == HELD_BACK - 1


@dataclass(frozen=True, eq=False)
class Rows:
    """What a layer reads and should make at some positions of a batch.

    Attributes
    ----------
    rows : array of shape (rows, kernel positions, channels)
    goal : array of shape (rows, outputs)
    added : array of shape (rows, outputs) or None
    held : array of shape (rows,)
    """

    rows: Array
    goal: Array
    added: Array | None
    held: npt.NDArray[np.bool_]

    @property
    def numbers(self) -> int:
        """How many there are in all arrays."""
        return self.rows.size + self.goal.size + (0 if self.added is None else self.added.size)

    def parts(self) -> Iterator[Rows]:
        """Few rows at a time, which are copied in double precision."""
        each = min(CHUNK, max(FEWEST, FEW // self.rows[0].size))
        for at in range(0, len(self.rows), each):
            part = slice(at, at + each)
            added = None if self.added is None else self.added[part]
            yield Rows(self.rows[part], self.goal[part], added, self.held[part])

    def problem(self, site: Site) -> Problem:
        """As least squares in float64: of each channel where the layer is depthwise, else one."""
        kernel, bias = parts_of(site, (site.layer.get_weights()[0], layer_bias(site)))
        gain, shift = (_split(site, one) for one in normalisation(site))
        goal = _apart(site, self.goal)
        if site.norm is not None and not site.others:
            goal = goal * gain[:, None] + shift[:, None]
        if site.depthwise:
            rows = np.ascontiguousarray(self.rows.transpose(2, 0, 1), np.float64)
        else:
            rows = self.rows.reshape(1, len(self.rows), -1).astype(np.float64)
        added = 0.0 if self.added is None else _apart(site, self.added)
        return Problem(rows, goal, kernel, bias, self.held, gain, shift, added, site.limits)


def drawn_rows(site: Site, segments: Segments, each: int, digests: Seeds) -> Iterator[Rows]:
    """Rows batch by batch; which positions of a sample are drawn depends on it and the layer alone.

    Parameters
    ----------
    site : Site
    segments : Segments
        Of samples, moved on to the layer.
    each : int
        Positions of a sample, at most.
    digests : array of shape (samples,)
    """
    seeds = mixed(digests + np.uint64(zlib.crc32(site.path.encode()) << 32))
    held = held_back(digests)
    samples: list[npt.NDArray[np.intp]] = []
    begun = 0

    def places(
        ours: list[tuple[int, ...]], theirs: list[tuple[int, ...]]
    ) -> tuple[list[Index], list[Index]]:
        nonlocal begun
        start, begun = begun, begun + theirs[0][0]
        drawn = places_by_seeds(theirs[0], each, seeds[start:begun])
        samples.append(drawn[0] + start)
        mine = [patch_index(site.layer, ours[0], drawn)]
        return [*mine, *(index_of(one, drawn) for one in ours[1:])], [index_of(theirs[0], drawn)]

    for (rows, *others), (goal,), _ in segments.drawn(site.tensors, [site.goal], places):
        added = np.sum(others, axis=0) if others else None
        yield Rows(rows, goal[:, site.kept], added, held[samples.pop()])


def parts_of(site: Site, solution: Solution) -> Solution:
    """A layer's kernel and bias as those of its problems, in float64: see :class:`Problem`.

    Returns
    -------
    kernel : array of shape (problems, inputs, outputs)
    bias : array of shape (problems, outputs) or None
    """
    kernel, bias = solution
    if site.depthwise:
        flat = kernel.reshape(-1, *kernel.shape[-2:]).transpose(1, 0, 2)
    else:
        flat = kernel.reshape(1, -1, kernel.shape[-1])
    return flat.astype(np.float64), None if bias is None else _split(site, bias)


def whole_of(site: Site, solution: Solution) -> Solution:
    """The way back from :func:`parts_of`."""
    kernel, bias = solution
    shape = site.layer.get_weights()[0].shape
    flat = kernel.transpose(1, 0, 2) if site.depthwise else kernel
    return flat.reshape(shape), None if bias is None else bias.reshape(-1)


def _split(site: Site, values: Array) -> Array:
    """Numbers of a layer's outputs by problems, in float64."""
    problems = site.layer.get_weights()[0].shape[-2] if site.depthwise else 1
    return values.astype(np.float64).reshape(problems, -1)


def _apart(site: Site, values: Array) -> Array:
    """Values of shape (rows, outputs) by problems, in float64: (problems, rows, outputs)."""
    problems = site.layer.get_weights()[0].shape[-2] if site.depthwise else 1
    parts = values.reshape(len(values), problems, -1).transpose(1, 0, 2)
    return np.ascontiguousarray(parts, np.float64)


def normalisation(site: Site) -> tuple[Array, Array]:
    """Gain and shift of the normalisation behind a layer."""
    width = len(site.kept)
    if site.norm is None:
        return np.ones(width), np.zeros(width)
    norm = site.norm
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(one), np.float64)
        for one in (norm.moving_mean, norm.moving_variance)
    )
    gain = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        gain *= keras.ops.convert_to_numpy(norm.gamma)
    shift = -gain * mean
    if norm.center:
        shift += keras.ops.convert_to_numpy(norm.beta)
    least = LEAST_GAIN * float(np.median(np.abs(gain))) + 1e-12
    return np.where(np.abs(gain) < least, np.copysign(least, gain), gain), shift


def layer_bias(site: Site) -> Array | None:
    """The constant of a layer: its own, or 0 where the normalisation behind it can hold one."""
    if site.layer.use_bias:
        return np.asarray(site.layer.get_weights()[1])
    return None if site.norm is None else np.zeros(len(site.kept))


def assign(site: Site, kernel: Array, bias: Array | None) -> None:
    """Gives a layer a kernel and a bias; one that has no place for it moves what normalises."""
    if site.layer.use_bias:
        site.layer.set_weights([kernel, bias])
        return
    site.layer.set_weights([kernel])
    if bias is not None:
        mean = site.norm.moving_mean
        mean.assign(keras.ops.convert_to_numpy(mean) - bias)
