"""Solves for one layer after another, from the input on, what the pruned network delivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfprune.graph.forward import Index
from tfprune.reconstruction.layer_rows import (
    NOTHING,
    assign,
    layer_bias,
    normalisation,
    rows_wanted,
)
from tfprune.reconstruction.least_squares import Problem, solved
from tfprune.reconstruction.rows import index_of, patch_index, places_of
from tfprune.reconstruction.segments import Segments
from tfprune.reconstruction.sites import Site, Wiring, sites_of
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter


def solve_layers(
    ours: Wiring,
    theirs: Wiring,
    kept: Mapping[str, npt.NDArray[np.intp]],
    x: Sequence[Array],
    held: npt.NDArray[np.bool_],
    *,
    progress: bool = False,
) -> list[str]:
    """Fits every layer's kernel and bias to what the original's layer makes; in place.

    Each layer is solved for by least squares on what the pruned model, as far as it is fitted,
    delivers to it. A layer whose output is added to others' aims at the sum; one in front of a ReLU
    is free below 0. What does no better on the samples held back stays.

    Parameters
    ----------
    ours, theirs : Wiring
        Of the pruned model and of the original.
    kept : mapping of str to array
        By layer, which of the original's outputs it makes, where some went.
    x : sequence of arrays of shape (samples, ...)
    held : array of shape (samples,)
        Which samples are held back to choose the ridge by.
    progress : bool

    Returns
    -------
    list of str
        The layers that changed.
    """
    sites = sites_of(ours, theirs, kept)
    segments = Segments(ours, theirs, x)
    rng = np.random.default_rng(0)
    changed = []
    with meter("reconstruction: least squares", len(sites), progress, "layer") as bar:
        for site in sites:
            segments.go_to(site.path)
            if _solve(site, segments, held, rng):
                changed.append(site.path)
            bar.update()
    return changed


def _solve(
    site: Site, segments: Segments, held: npt.NDArray[np.bool_], rng: np.random.Generator
) -> bool:
    """Solves for one layer; returns whether it changed."""
    kernel, bias = site.layer.get_weights()[0], layer_bias(site)
    each = max(1, -(-rows_wanted(site, segments.large) // segments.samples))
    rows, goal, added, sample = _drawn(site, segments, each, rng)
    gain, shift = normalisation(site)
    if site.norm is not None and not site.others:
        goal *= gain.astype(np.float32)
        goal += shift.astype(np.float32)
    mask = held[sample]

    def fitted(rows: Array, kernel: Array, own: slice) -> tuple[Array, Array | None] | None:
        problem = Problem(
            rows, goal[:, own], kernel, None if bias is None else bias[own], mask, gain[own],
            shift[own], added[:, own] if isinstance(added, np.ndarray) else added, site.limits,
        )  # fmt: skip
        spread = float(np.mean(np.var(problem.goal, axis=0))) or 1.0
        if problem.error(kernel, problem.bias) <= NOTHING * spread:
            return None
        return solved(problem, threads=segments.large and not site.depthwise)

    if not site.depthwise:
        flat = kernel.reshape(-1, kernel.shape[-1])
        found = fitted(rows.reshape(len(rows), -1), flat, slice(None))
        if found is not None:
            assign(site, found[0].reshape(kernel.shape), found[1])
        return found is not None
    channels, width = kernel.shape[-2:]
    flat = kernel.reshape(-1, channels, width).astype(np.float64)
    changed = False
    for channel in range(channels):
        own = slice(channel * width, (channel + 1) * width)
        found = fitted(np.ascontiguousarray(rows[:, :, channel]), flat[:, channel], own)
        if found is not None:
            flat[:, channel], changed = found[0], True
            if bias is not None and found[1] is not None:
                bias[own] = found[1]
    if changed:
        assign(site, flat.reshape(kernel.shape), bias)
    return changed


def _drawn(
    site: Site, segments: Segments, each: int, rng: np.random.Generator
) -> tuple[Array, Array, Array | float, npt.NDArray[np.intp]]:
    """Of some positions what the layer reads, should make, what is added, and the sample."""
    samples: list[npt.NDArray[np.intp]] = []

    def places(
        ours: list[tuple[int, ...]], theirs: list[tuple[int, ...]]
    ) -> tuple[list[Index], list[Index]]:
        drawn = places_of(theirs[0], each, rng)
        samples.append(drawn[0])
        mine = [patch_index(site.layer, ours[0], drawn)]
        return [*mine, *(index_of(one, drawn) for one in ours[1:])], [index_of(theirs[0], drawn)]

    arrays: list[Array] = []
    filled = 0
    for (rows, *others), (goal,), start in segments.drawn(site.tensors, [site.goal], places):
        made = [rows, goal[:, site.kept], *([np.sum(others, axis=0)] if others else [])]
        if not arrays:
            # All samples have as many rows; joined at the end, they would be there twice.
            count = len(rows) // (int(samples[0][-1]) + 1) * segments.samples
            arrays = [np.empty((count, *part.shape[1:]), np.float32) for part in made]
        samples[-1] = samples[-1] + start
        for array, part in zip(arrays, made, strict=True):
            array[filled : filled + len(part)] = part
        filled += len(rows)
    rows, goal, *rest = arrays
    return rows, goal, rest[0] if rest else 0.0, np.concatenate(samples)
