"""What the readers of a group say of its units, and which of these go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfprune.effect import Sight, least_effect
from tfprune.groups import Group, Read
from tfprune.layers import kernel_of, weights_of
from tfprune.moments import Array, Moments, angles
from tfprune.readings import Trace
from tfprune.select import Selection


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


def by_effect(
    group: Group,
    views: Sequence[View],
    constant: npt.NDArray[np.bool_],
    trace: Trace,
    share: float,
) -> Selection:
    """Takes out a share of a group's units, those that matter least to its readers.

    Parameters
    ----------
    share : float
        In (0, 1); rounded to whole units, and at least one stays.
    """
    size = len(group.roots)
    count = min(round(share * size), size - 1)
    sights = [
        Sight(seen.read.units, seen.moments, _rows(trace, seen.read), seen.read.shiftless)
        for seen in views
    ]
    taken = least_effect(size, sights, constant, count)
    return Selection(
        kept=np.setdiff1d(np.arange(size), taken),
        constant=tuple(int(unit) for unit in taken if constant[unit]),
        least=tuple(int(unit) for unit in taken if not constant[unit]),
    )


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
