"""What the readers of a group say of its units, and which of these go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfprune.core.elimination import Elimination, Sight, least_effect
from tfprune.core.moments import Array, Moments, angles
from tfprune.core.selection import Selection, by_nearest, by_span, without
from tfprune.graph.activations import Measured
from tfprune.graph.groups import Group, Read
from tfprune.graph.layers import kernel_of, weights_of
from tfprune.graph.trace import Trace


@dataclass(frozen=True, eq=False)
class View:
    """One read of a group's units, what was measured there, and how alike units are to it.

    Attributes
    ----------
    read : Read
    moments : Moments
    centre : array of shape (seen,)
        The point about which angles are measured.
    lengths : array of shape (seen,)
        Against what the error of a unit that goes is held; 0 for units without a direction. The
        lengths of the vectors about the centre, or less.
    fitted, held : Moments or None
        Of the samples that folds are tried on, if there are any: fitted on the one, compared on
        the other.
    """

    read: Read
    moments: Moments
    centre: Array
    lengths: Array
    fitted: Moments | None = None
    held: Moments | None = None


def view(read: Read, measured: Measured, point: str | float) -> View:
    """A read and what was measured, seen from ``mean``, ``activation``, ``none`` or a number.

    Where a constant has nowhere to go (``read.shiftless``) a unit can only be a multiple of
    another, so angles are about 0. With ``mean`` an error is held against what varies there as
    well, since that is what the reader works with.
    """
    moments = measured.moments
    if read.shiftless:
        centre = np.zeros(moments.units)
    elif point == "activation":
        centre = read.centre
    elif point == "mean":
        centre = moments.mean
    else:
        centre = np.full(moments.units, 0.0 if point == "none" else float(point))
    lengths = moments.lengths(centre)
    if read.shiftless and point == "mean":
        # A constant one is as long as it is.
        varying = moments.lengths(moments.mean)
        lengths = np.where(varying > 0, varying, lengths)
    return View(read, moments, centre, lengths, measured.fitted, measured.held)


def evidence(group: Group, views: Sequence[View]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Angles between a group's units, and which of them never change.

    Every reader gets a fold of its own, so a pair may go where it is similar (or opposite) to
    each reader, by whatever factor: the angle that counts is that of the reader to whom the two
    look least alike. Where one reader sees only one of them, or sees one as nothing, they are as
    different as can be.

    Returns
    -------
    degrees : array of shape (units, units)
        NaN for units without a direction to every reader: about the mean those that never change.
    constant : array of shape (units,)
    """
    size = len(group.roots)
    between = None
    constant = np.ones(size, bool)
    alive = np.zeros(size, bool)
    for seen in views:
        read, moments, centre = seen.read, seen.moments, seen.centre
        still = moments.constant(seen.held)
        if read.shiftless:
            # Only nothing can go where a constant has no bias to go into.
            still &= moments.mean == 0
        constant[read.units] &= still
        gram = moments.gram(centre)
        nowhere = seen.lengths == 0
        gram[nowhere] = 0
        gram[:, nowhere] = 0
        whole = _held_against(angles(gram), moments.lengths(centre), seen.lengths)
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


def _held_against(degrees: Array, lengths: Array, measure: Array) -> Array:
    """Angles whose sine is the error of a unit as a share of another length than its own.

    The best multiple of unit j misses unit i by ``lengths[i] * sin(angle)``; of the two units of
    a pair the one counts that is missed by more.

    Parameters
    ----------
    degrees : array of shape (units, units)
    lengths, measure : arrays of shape (units,)
        The vectors' lengths, and what errors are held against in place of them.
    """
    if (lengths == measure).all():
        return degrees
    longer = lengths / np.where(measure > 0, measure, np.inf)
    sines = np.sin(np.radians(degrees)) * np.maximum(longer, longer[:, None])
    opened = np.degrees(np.arcsin(np.minimum(sines, 1)))
    opened = np.where(degrees > 90, 180 - opened, opened)
    opened[np.diag_indices_from(opened)] = degrees.diagonal()
    return opened


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
        lengths = np.where(seen.lengths > 0, seen.lengths, np.inf)
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
