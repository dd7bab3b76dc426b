"""What the readers of a group say of its units, and which of these go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfprune.calibration import Calibration, ConsumerView, GroupStats
from tfprune.core.elimination import ConsumerStats, Elimination, backward_elimination
from tfprune.core.fold import FOLD_RULES
from tfprune.core.moments import Array
from tfprune.core.selection import Selection, by_nearest, by_span, without
from tfprune.graph.groups import Consumer, Group
from tfprune.graph.layers import kernel_of, weights_of
from tfprune.graph.trace import Trace
from tfprune.options import PruneOptions


def select_share(
    group: Group,
    views: Sequence[ConsumerView],
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
    size = len(group.unit_ids)
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
    views: Sequence[ConsumerView],
    constant: npt.NDArray[np.bool_],
    trace: Trace,
    count: int | None = None,
) -> Elimination:
    """The order in which units go by their effect, and its errors; all but one by default."""
    consumers = [
        ConsumerStats(seen.read.units, seen.moments, _rows(trace, seen.read), seen.read.no_offset)
        for seen in views
    ]
    size = len(group.unit_ids)
    return backward_elimination(size, consumers, constant, size - 1 if count is None else count)


def in_span(
    group: Group, views: Sequence[ConsumerView], constant: npt.NDArray[np.bool_], threshold: float
) -> Selection:
    """Takes out units within so many degrees of the span of those that stay."""
    return by_span(_spread(group, views), constant, threshold)


def _spread(group: Group, views: Sequence[ConsumerView]) -> Array:
    """Products of the units' activation vectors without their constants, in units of their length.

    Where several layers read them, their vectors are laid end to end, each reader's of one length.
    """
    size = len(group.unit_ids)
    total, seen_by = np.zeros((size, size)), np.zeros(size)
    for seen in views:
        mean = np.zeros(seen.moments.units) if seen.read.no_offset else seen.moments.mean
        lengths = np.where(seen.lengths > 0, seen.lengths, np.inf)
        total[np.ix_(seen.read.units, seen.read.units)] += seen.moments.gram(mean) / np.outer(
            lengths, lengths
        )
        seen_by[seen.read.units] += 1
    places = np.sqrt(np.maximum(seen_by, 1))
    return total / np.outer(places, places)


def _magnitudes(group: Group, trace: Trace) -> Array:
    """Length of each unit's incoming weights, all makers together, shape (units,)."""
    squares = np.zeros(len(group.unit_ids))
    for path, units in group.producers.items():
        layer = trace.layers[path]
        where = kernel_of(layer, "")
        kernel = dict(zip(weights_of(layer), layer.get_weights(), strict=True))[where.name]
        # Of the last two axes one counts inputs, the other units.
        made = np.moveaxis(kernel, where.axis, 0).astype(np.float64)
        np.add.at(squares, units, (made**2).sum(axis=tuple(range(made.ndim - 1))))
    return np.sqrt(squares)


def _rows(trace: Trace, read: Consumer) -> Array:
    """By what a layer multiplies each unit that it sees, shape (seen, outputs)."""
    layer = trace.layers[read.layer]
    where = kernel_of(layer, read.part)
    values = dict(zip(weights_of(layer), layer.get_weights(), strict=True))
    kernel = np.moveaxis(values[where.name], where.axis, 0)
    rows = kernel.reshape(len(kernel), -1).astype(np.float64)[read.index]
    return np.asarray(np.moveaxis(rows, 0, 1).reshape(rows.shape[1], -1))


def keep_one_per_layer(group: Group, selection: Selection) -> Selection:
    """Keeps a unit in every layer of the group."""
    for units in group.producers.values():
        if not np.isin(units, selection.kept).any():
            selection = selection.rescue(int(units[-1]))
    return selection


def select_units(
    seen: GroupStats, whole: Calibration, options: PruneOptions, place: int
) -> Selection:
    """Which of a group's units go.

    Parameters
    ----------
    seen : Seen
    whole : Calibration
        That it is a part of.
    options : PruneOptions
    place : int
        Its number among the survey's groups.
    """
    group, views, found = seen.group, seen.views, (seen.angles, seen.constant)
    if options.share is not None:
        return select_share(
            group, views, found, whole.trace,
            select=options.select, share=options.share, seed=options.seed + place,
        )  # fmt: skip
    if options.select == "span":
        return in_span(group, views, seen.constant, options.degrees)
    return FOLD_RULES[options.fold].rule(*found, options.degrees)
