"""What the readers of a group say of its units, and which of these go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfprune.effect import Elimination, Sight, least_effect
from tfprune.groups import Group, Read
from tfprune.layers import kernel_of, weights_of
from tfprune.moments import Array, Moments, angles
from tfprune.readings import Trace
from tfprune.select import Selection, by_nearest, by_span, without


@dataclass(frozen=True, eq=False)
class View:
    """One read of a group's units, what was measured there, and the point angles are about."""

    read: Read
    moments: Moments
    centre: Array


def view(read: Read, moments: Moments, point: str | float) -> View:
    """A read and its moments, seen from ``auto``, ``none``, ``mean`` or a number."""
    if point == "auto":
        return View(read, moments, read.centre)
    if point == "mean":
        return View(read, moments, moments.mean)
    value = 0.0 if point == "none" else float(point)
    return View(read, moments, np.full(moments.units, value))


def evidence(group: Group, views: Sequence[View]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Angles between a group's units, and which of them never change.

    Every reader gets a fold of its own, so a pair may go where it is similar (or opposite) to
    each reader, by whatever factor: the angle that counts is that of the reader to whom the two
    look least alike. Where one reader sees only one of them, or sees one as nothing, they are as
    different as can be.

    Returns
    -------
    degrees : array of shape (units, units)
        NaN for units that are nothing to every reader.
    constant : array of shape (units,)
    """
    size = len(group.roots)
    between = None
    constant = np.ones(size, bool)
    alive = np.zeros(size, bool)
    for seen in views:
        read, moments, centre = seen.read, seen.moments, seen.centre
        at = np.zeros_like(centre) if read.shiftless else centre
        still = moments.constant()
        if read.shiftless:
            # Only nothing can go where a constant has no bias to go into.
            still &= moments.mean == 0
        constant[read.units] &= still
        whole = angles(moments.gram(at))
        only = np.zeros(size, bool)
        only[read.units] = ~np.isnan(whole.diagonal())
        alive |= only
        if len(read.units) < size:
            mine, whole = whole, np.full((size, size), np.nan)
            whole[np.ix_(read.units, read.units)] = mine
        if not only.all():
            whole[only[:, None] != only] = 90.0
        if between is None:
            between = whole
            continue
        nearer = np.isnan(between) | (np.abs(whole - 90) < np.abs(between - 90))
        np.copyto(between, whole, where=nearer & ~np.isnan(whole))
    assert between is not None, "a group that can be pruned has a reader"
    between[np.diag_indices(size)] = np.where(alive, 0.0, np.nan)
    return between, constant


def chosen(
    group: Group,
    views: Sequence[View],
    evidence: tuple[Array, npt.NDArray[np.bool_]],
    trace: Trace,
    *,
    select: str,
    share: float,
    seed: int = 0,
) -> Selection:
    """Takes out a share of a group's units.

    Parameters
    ----------
    evidence : tuple
        Of :func:`evidence`.
    select : {"effect", "span", "angle", "magnitude", "random"}
    share : float
        In (0, 1); rounded to whole units, and at least one stays.
    seed : int
        Of ``random``.
    """
    between, constant = evidence
    size = len(group.roots)
    count = min(round(share * size), size - 1)
    if select == "angle":
        return by_nearest(between, constant, count)
    if select == "span":
        return by_span(_spread(group, views), constant, count=count)
    if select == "random":
        taken = np.random.default_rng(seed).permutation(size)[:count]
    elif select == "magnitude":
        taken = np.argsort(_magnitudes(group, trace), kind="stable")[:count]
    else:
        taken = elimination(group, views, constant, trace, count).order
    return without(taken, constant)


def elimination(
    group: Group,
    views: Sequence[View],
    constant: npt.NDArray[np.bool_],
    trace: Trace,
    count: int | None = None,
) -> Elimination:
    """The order in which units go by their effect, and its errors; all but one by default."""
    sights = [
        Sight(seen.read.units, seen.moments, _rows(trace, seen.read), seen.read.shiftless)
        for seen in views
    ]
    size = len(group.roots)
    return least_effect(size, sights, constant, size - 1 if count is None else count)


def in_span(
    group: Group, views: Sequence[View], constant: npt.NDArray[np.bool_], threshold: float
) -> Selection:
    """Takes out units within so many degrees of the span of those that stay."""
    return by_span(_spread(group, views), constant, threshold)


def _spread(group: Group, views: Sequence[View]) -> Array:
    """Products of the units' activation vectors without their constants, in units of their length.

    Where several layers read them, their vectors are laid end to end, each reader's of one length.
    """
    size = len(group.roots)
    total, seen_by = np.zeros((size, size)), np.zeros(size)
    for seen in views:
        mean = np.zeros(seen.moments.units) if seen.read.shiftless else seen.moments.mean
        centre = np.zeros_like(mean) if seen.read.shiftless else seen.centre
        lengths = np.sqrt(np.maximum(seen.moments.gram(centre).diagonal(), 0))
        lengths[lengths == 0] = np.inf
        total[np.ix_(seen.read.units, seen.read.units)] += seen.moments.gram(mean) / np.outer(
            lengths, lengths
        )
        seen_by[seen.read.units] += 1
    places = np.sqrt(np.maximum(seen_by, 1))
    return total / np.outer(places, places)


def _magnitudes(group: Group, trace: Trace) -> Array:
    """Length of each unit's incoming weights, all makers together, shape (units,)."""
    squares = np.zeros(len(group.roots))
    for path, units in group.makers.items():
        layer = trace.layers[path]
        where = kernel_of(layer, "")
        kernel = dict(zip(weights_of(layer), layer.get_weights(), strict=True))[where.name]
        # Of the last two axes one counts inputs, the other units.
        made = np.moveaxis(kernel, where.axis, 0).astype(np.float64)
        np.add.at(squares, units, (made**2).sum(axis=tuple(range(made.ndim - 1))))
    return np.sqrt(squares)


def _rows(trace: Trace, read: Read) -> Array:
    """By what a layer multiplies each unit that it sees, shape (seen, outputs)."""
    layer = trace.layers[read.layer]
    where = kernel_of(layer, read.part)
    values = dict(zip(weights_of(layer), layer.get_weights(), strict=True))
    kernel = np.moveaxis(values[where.name], where.axis, 0)
    rows = kernel.reshape(len(kernel), -1).astype(np.float64)[read.index]
    return np.asarray(np.moveaxis(rows, 0, 1).reshape(rows.shape[1], -1))


def nowhere_empty(group: Group, selection: Selection) -> Selection:
    """Keeps a unit in every layer of the group."""
    for units in group.makers.values():
        if not np.isin(units, selection.kept).any():
            selection = selection.rescue(int(units[-1]))
    return selection
