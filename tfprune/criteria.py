"""The criteria by which units are removed: what the consumers of a group say of its units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.calibration import Calibration, GroupStats
from tfprune.core.arrays import Array
from tfprune.core.elimination import ConsumerStats, Elimination, backward_elimination
from tfprune.core.fold import FOLD_RULES
from tfprune.core.rounding import Units, least_safe_first, nearest_width, parts, rounded_up
from tfprune.core.selection import Selection, by_nearest, by_span, without
from tfprune.core.unit_group import (
    ScoreFunction,
    UnitConsumer,
    UnitGroup,
    UnitProducer,
    checked_scores,
    magnitude,
)
from tfprune.graph.groups import Consumer, Group
from tfprune.graph.layers import arrays_of, gates_of, kernel_of, makes_with
from tfprune.graph.trace import Trace
from tfprune.options import PruneOptions, criterion_name

# Removes so many units of a group; the last argument is a seed.
ShareRule = Callable[[GroupStats, Trace, int, int], Selection]
# Removes those that others stand for within so many degrees; the last argument names the fold.
DegreesRule = Callable[[GroupStats, float, str], Selection]


@dataclass(frozen=True)
class Criterion:
    """A way to choose units; an entry of :data:`CRITERIA`.

    Attributes
    ----------
    words : str
        What a layer's note says of the units that were removed: ``4 of least effect``.
    colour : str
        Of its points in the picture of a sweep.
    share : callable
        ``(group, trace, count, seed) -> Selection`` without ``count`` of the group's units.
    degrees : callable, optional
        ``(group, degrees, fold) -> Selection``, where it takes a threshold as well.
    budget : bool
        Whether budgets go by it.
    """

    words: str
    colour: str
    share: ShareRule
    degrees: DegreesRule | None = None
    budget: bool = False


def _by_effect(seen: GroupStats, trace: Trace, count: int, seed: int) -> Selection:
    return without(elimination(seen, trace, count).order, seen.constant)


def _by_span(seen: GroupStats, trace: Trace, count: int, seed: int) -> Selection:
    return by_span(_spread(seen), seen.constant, count=count)


def _within_span(seen: GroupStats, degrees: float, fold: str) -> Selection:
    return by_span(_spread(seen), seen.constant, degrees)


def _by_angle(seen: GroupStats, trace: Trace, count: int, seed: int) -> Selection:
    return by_nearest(seen.angles, seen.constant, count)


def _within_angle(seen: GroupStats, degrees: float, fold: str) -> Selection:
    return FOLD_RULES[fold].rule(seen.angles, seen.constant, degrees)


def _by_magnitude(seen: GroupStats, trace: Trace, count: int, seed: int) -> Selection:
    return without(_lowest(magnitude(unit_group(seen, trace)), count), seen.constant)


def _at_random(seen: GroupStats, trace: Trace, count: int, seed: int) -> Selection:
    order = np.random.default_rng(seed).permutation(len(seen.group.unit_ids))
    return without(order[:count], seen.constant)


# By their names, the default with a share first. The options know the names as well, without
# loading numpy: ``tfprune.options.SHARE_SELECTIONS``, ``SELECTIONS`` and ``BUDGET_SELECTIONS``.
# The colours are Okabe and Ito's, which the colour-blind can tell apart.
CRITERIA = {
    "effect": Criterion("of least effect", "#0072b2", _by_effect, budget=True),
    "span": Criterion("in the span of the others", "#009e73", _by_span, _within_span),
    "angle": Criterion("of the closest pairs", "#d55e00", _by_angle, _within_angle),
    "magnitude": Criterion("of least magnitude", "#cc79a7", _by_magnitude),
    "random": Criterion("at random", "#404040", _at_random),
}


def select_units(
    seen: GroupStats, whole: Calibration, options: PruneOptions, place: int
) -> Selection:
    """Which of a group's units are removed, where no budget says how many.

    Parameters
    ----------
    seen : GroupStats
    whole : Calibration
        That it is a part of.
    options : PruneOptions
    place : int
        Its number among the calibration's groups.

    Raises
    ------
    TfpruneError
        If a criterion of the user's own returns no finite score for each unit.
    """
    if options.share is None:
        rule = CRITERIA[criterion_name(options.select)].degrees
        assert rule is not None, "options were checked"
        return rule(seen, options.degrees, options.fold)
    size = len(seen.group.unit_ids)
    count = min(round(options.share * size), size - 1)
    if options.round_to is not None and len(_parts(seen.group)) == 1:
        count = size - nearest_width(size, size - count, options.round_to)
    if not isinstance(options.select, str):
        return _by_score(seen, whole.trace, count, options.select)
    return CRITERIA[options.select].share(seen, whole.trace, count, options.seed + place)


def select_all(whole: Calibration, options: PruneOptions) -> list[Selection]:
    """The selection of each group, where no budget says how many units go.

    Every layer keeps a unit, and widths are multiples of ``options.round_to``.

    Raises
    ------
    TfpruneError
        See :func:`select_units`.
    """
    chosen = [select_units(seen, whole, options, n) for n, seen in enumerate(whole.groups)]
    return settled(whole.groups, whole.trace, chosen, options.round_to)


def settled(
    groups: Sequence[GroupStats],
    trace: Trace,
    selections: Sequence[Selection],
    multiple: int | None = None,
) -> list[Selection]:
    """Selections that leave a unit in every layer, and a multiple of units if asked.

    Layers that have to be equally wide (:attr:`tfprune.graph.trace.Trace.even`) are.
    """
    pairs = zip(groups, selections, strict=True)
    result = [keep_one_per_layer(seen.group, selection) for seen, selection in pairs]
    if multiple is not None:
        result = [
            rounded_up(selection, _parts(seen.group), multiple, seen.angles)
            for seen, selection in zip(groups, result, strict=True)
        ]
    places = {layer: place for place, seen in enumerate(groups) for layer in seen.group.producers}

    def width(layer: str) -> int:
        if layer not in places:
            return len(trace.producers[layer].labels)
        units = groups[places[layer]].group.producers[layer]
        return int(np.isin(units, result[places[layer]].kept).sum())

    uneven = True
    while uneven:  # What comes back may be a unit of other layers as well.
        uneven = False
        for pair in trace.even:
            narrow, wide = sorted(pair, key=width)
            missing = width(wide) - width(narrow)
            if missing:
                place, uneven = places[narrow], True
                units = groups[place].group.producers[narrow]
                order = least_safe_first(result[place], groups[place].angles)
                back = [unit for unit in order if unit in units][:missing]
                result[place] = result[place].kept_even(back)
    return result


def _parts(group: Group) -> list[Units]:
    return parts(len(group.unit_ids), group.producers.values())


def words_for(select: str | ScoreFunction) -> str:
    """What notes say of units that a criterion, or a user's own, removed."""
    if isinstance(select, str):
        return CRITERIA[select].words
    return f"of least score by {criterion_name(select)}"


def _by_score(seen: GroupStats, trace: Trace, count: int, score: ScoreFunction) -> Selection:
    group = unit_group(seen, trace)
    scores = checked_scores(criterion_name(score), group, score(group))
    return without(_lowest(scores, count), seen.constant)


def _lowest(scores: Array, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The units of the lowest scores; of equal ones the first."""
    return np.argsort(scores, kind="stable")[:count]


def elimination(seen: GroupStats, trace: Trace, count: int | None = None) -> Elimination:
    """The order in which units go by their effect, and its errors; all but one by default."""
    consumers = [
        ConsumerStats(
            view.consumer.units,
            view.moments,
            _outgoing(trace, view.consumer),
            view.consumer.no_offset,
        )
        for view in seen.views
    ]
    size = len(seen.group.unit_ids)
    rest = size - 1 if count is None else count
    return backward_elimination(size, consumers, seen.constant, rest)


def unit_group(seen: GroupStats, trace: Trace) -> UnitGroup:
    """What criteria of users' own receive of a group."""
    producers = tuple(
        UnitProducer(path, units.copy(), _incoming(trace, path))
        for path, units in seen.group.producers.items()
    )
    consumers = tuple(
        UnitConsumer(
            view.consumer.layer, view.consumer.units.copy(), _outgoing(trace, view.consumer),
            view.moments.count, view.moments.mean, view.moments.covariance(),
        )
        for view in seen.views
    )  # fmt: skip
    size = len(seen.group.unit_ids)
    return UnitGroup(size, producers, consumers, seen.angles.copy(), seen.constant.copy())


def _spread(seen: GroupStats) -> Array:
    """Products of the units' activation vectors without their constants, in units of their length.

    Where several layers read them, their vectors are laid end to end, each reader's of one length.
    """
    size = len(seen.group.unit_ids)
    total, seen_by = np.zeros((size, size)), np.zeros(size)
    for view in seen.views:
        mean = np.zeros(view.moments.units) if view.consumer.no_offset else view.moments.mean
        lengths = np.where(view.lengths > 0, view.lengths, np.inf)
        total[np.ix_(view.consumer.units, view.consumer.units)] += view.moments.gram(
            mean
        ) / np.outer(lengths, lengths)
        seen_by[view.consumer.units] += 1
    places = np.sqrt(np.maximum(seen_by, 1))
    return total / np.outer(places, places)


def _incoming(trace: Trace, path: str) -> Array:
    """Weights from which a layer makes its units, shape (inputs, its units)."""
    layer = trace.layers[path]
    weights, incoming = arrays_of(layer), []
    for where in makes_with(layer):
        # Of the last two axes one counts inputs, the other units, in a block for each gate.
        kernel = np.moveaxis(weights[where.name], where.axis, -2).astype(np.float64)
        incoming.append(kernel.reshape(-1, kernel.shape[-1] // gates_of(layer)))
    return np.concatenate(incoming)


def _outgoing(trace: Trace, consumer: Consumer) -> Array:
    """By what a layer multiplies each unit that it sees, shape (seen, outputs)."""
    layer = trace.layers[consumer.layer]
    where = kernel_of(layer, consumer.part)
    kernel = np.moveaxis(arrays_of(layer)[where.name], where.axis, 0)
    flat = kernel.reshape(len(kernel), -1)[:, where.columns]
    rows = flat.astype(np.float64)[consumer.index]
    return np.asarray(np.moveaxis(rows, 0, 1).reshape(rows.shape[1], -1))


def keep_one_per_layer(group: Group, selection: Selection) -> Selection:
    """Keeps a unit in every layer of the group, and one of what each layer reads."""
    for units in (*group.producers.values(), *(one.units for one in group.consumers)):
        if not np.isin(units, selection.kept).any():
            selection = selection.rescue(int(units[-1]))
    return selection
