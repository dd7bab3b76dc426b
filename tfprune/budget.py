"""Chooses every layer's width for a budget of parameters, multiply-accumulates or file bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfprune.calibration import Calibration
from tfprune.core.arrays import Array
from tfprune.core.selection import Selection, without
from tfprune.criteria import elimination, settled
from tfprune.errors import TfpruneError
from tfprune.graph.costs import macs, multiply_accumulates, parameters
from tfprune.graph.width_search import TRIES, even, first_that_fits, merged, predicted, ranking
from tfprune.options import COUNTED, PruneOptions, Target
from tfprune.results import Reached
from tfprune.tflite.converter import convert
from tfprune.utils.console import meter

# Samples that a file is made with to count its bytes, which do not depend on them.
SAMPLES = 64
# Widths that are compared: from one share for all groups (0) to those by effect alone (1).
BLENDS = (1.0, 0.5, 0.0)


@dataclass(frozen=True)
class Widths:
    """How much of a model stays.

    Attributes
    ----------
    selections : list of Selection
        One for each group.
    heads : mapping of str to float or None
        By the paths of attention layers what share goes of their heads: see
        :func:`tfprune.graph.attention.reduce_attention`.
    """

    selections: list[Selection]
    heads: Mapping[str, float | None]

    @property
    def changed(self) -> bool:
        """Whether anything goes."""
        gone = any(len(one.kept) < one.units for one in self.selections)
        return gone or any(self.heads.values())


class RemovalSchedule:
    """The order in which a model's units go for a budget, one by one, least effect per cost first.

    Parameters
    ----------
    calibration : Calibration
    macs : bool
        Whether costs are multiply-accumulates, in place of parameters.
    heads : mapping of str to array, optional
        What :func:`tfprune.graph.attention.head_errors` says of attention that may be reduced, a
        dimension of all its heads at a time.
    """

    def __init__(
        self,
        calibration: Calibration,
        macs: bool = False,
        heads: Mapping[str, Array] | None = None,
    ) -> None:
        self._groups, self._trace = calibration.groups, calibration.trace
        self._heads = dict(heads or {})
        groups = [stats.group for stats in calibration.groups]
        count = multiply_accumulates if macs else parameters
        self._costs = count(calibration.trace, groups, list(self._heads))
        eliminations = [elimination(stats, calibration.trace) for stats in calibration.groups]
        self._orders = [one.order for one in eliminations]
        errors = [one.errors / (one.variance or 1.0) for one in eliminations]
        errors += self._heads.values()
        self._ranking = ranking(errors, self._costs)

    def blended(self, blend: float) -> RemovalSchedule:
        """The same units in the same order within each group, with other widths.

        Parameters
        ----------
        blend : float
            From 0, one share for all groups, to 1, by effect per cost alone.
        """
        other = copy.copy(self)
        other._ranking = merged(even(self.sizes), self._ranking, blend)
        return other

    @property
    def sizes(self) -> list[int]:
        """The units of each group, and behind them the dimensions of attention's heads."""
        units = [len(stats.constant) for stats in self._groups]
        return units + [len(errors) + 1 for errors in self._heads.values()]

    @property
    def costs(self) -> list[float]:
        """The predicted cost after 0, 1, ... removals."""
        return predicted(self._ranking, self.sizes, self._costs)

    def at(self, steps: int, multiple: int | None = None) -> Widths:
        """What is left after so many removals; every layer keeps at least one unit.

        With a multiple, units come back, the last ones that went first, until widths are multiples.
        """
        lost = np.bincount(self._ranking[:steps], minlength=len(self.sizes))
        groups = len(self._groups)
        selections = [
            without(order[:count], stats.constant)
            for order, count, stats in zip(self._orders, lost[:groups], self._groups, strict=True)
        ]
        shares = (lost / self.sizes)[groups:]
        heads = dict(zip(self._heads, map(float, shares), strict=True))
        return Widths(settled(self._groups, self._trace, selections, multiple), heads)

    def least(self, multiple: int | None = None) -> float:
        """The predicted cost once nothing more can go."""
        widths = self.at(len(self._ranking), multiple)
        left = [len(one.kept) / one.units for one in widths.selections]
        left += [1 - (share or 0) for share in widths.heads.values()]
        return self._costs.total(np.array(left))


def fit_budget(
    calibration: Calibration,
    schedule: RemovalSchedule,
    options: PruneOptions,
    built: Callable[[Widths], keras.Model],
    progress: bool = False,
) -> tuple[Widths, Reached]:
    """Removes as few units as a budget allows.

    Parameters
    ----------
    calibration : Calibration
    schedule : RemovalSchedule
        Of the same calibration.
    options : PruneOptions
        Its ``target``, and ``round_to``.
    built : callable
        Builds a model of these widths.
    progress : bool
        Whether to draw a progress bar on stderr.

    Raises
    ------
    TfpruneError
        If the least that can be left in every layer is still over the budget.
    """
    target, multiple = options.target, options.round_to
    assert target is not None, "a target was asked for"
    whole = _size(calibration.model, calibration, target)
    limit = int(target.amount * whole) if target.amount < 1 else int(target.amount)
    with meter("budget", TRIES, progress, "model") as bar:

        def size(steps: int) -> int:
            bar.update()
            if not steps:
                return whole
            return _size(built(schedule.at(steps, multiple)), calibration, target)

        steps, sizes = first_that_fits(size, limit, schedule.costs)
    unit = COUNTED[target.what]
    left = "one unit" if multiple is None else f"at most {multiple} units"
    if steps is None:
        more_asked = any(one.prunable for one in calibration.others)
        wider = f" ({target.wider} may reach more)" if more_asked else ""
        raise TfpruneError(
            f"{target.called}: {limit:,} {unit} cannot be reached; the least is "
            f"{min(sizes.values()):,} of {whole:,}, with {left} left in every layer that may "
            f"lose any{wider}"
        )
    why, more = "nothing has to go", None
    if steps:
        more = sizes.get(steps - 1)
        step = "one unit more makes" if multiple is None else f"up to {multiple} units more make"
        why = f"{step} {more:,}" if more else f"within {limit - sizes[steps]:,} of it"
    reached = Reached(target.what, limit, sizes[steps], whole, why, len(sizes), larger=more)
    return schedule.at(steps, multiple), reached


def fit_best_budget(
    calibration: Calibration,
    schedule: RemovalSchedule,
    options: PruneOptions,
    built: Callable[[Widths], keras.Model],
    *,
    distance: Callable[[Widths], float],
    progress: bool = False,
) -> tuple[Widths, Reached]:
    """Removes as few units as a budget allows, with the widths that do best on samples held back.

    Effect per cost compares groups by the error in what their consumers receive. What becomes of it
    in the outputs is another matter: often one share for all groups does better. So three
    schedules are fitted to the budget, and the models compared.

    Parameters
    ----------
    calibration, schedule, options, built, progress
        As of :func:`fit_budget`. With ``options.target.blend`` nothing is compared.
    distance : callable
        How far the outputs of the smaller model are from the original's; less is better.

    Raises
    ------
    TfpruneError
        If the least that can be left in every layer is still over the budget.
    """
    target = options.target
    assert target is not None, "a target was asked for"
    if target.blend is not None:
        schedule = schedule.blended(target.blend)
        widths, reached = fit_budget(calibration, schedule, options, built, progress)
        return widths, replace(reached, blend=target.blend)
    widths, reached = fit_budget(calibration, schedule, options, built, progress)
    if not widths.changed or len(schedule.sizes) == 1:
        return widths, reached
    rivals = options
    if target.what == "bytes":
        # A file for each try takes long: parameters stand for its bytes until one has won.
        params = int(built(widths).count_params())
        rivals = replace(options, target=replace(target, what="params", amount=params))
    best, found = (math.inf, 1.0), {1.0: (widths, reached)}
    with meter("budget: widths", len(BLENDS), progress, "model") as bar:
        for blend in BLENDS:
            if blend not in found:
                found[blend] = fit_budget(calibration, schedule.blended(blend), rivals, built)
            best = min(best, (distance(found[blend][0]), blend), key=lambda one: one[0])
            bar.update()
    blend = best[1]
    if blend != 1 and rivals is not options:
        found[blend] = fit_budget(calibration, schedule.blended(blend), options, built, progress)
    widths, reached = found[blend]
    return widths, replace(reached, blend=blend)


def _size(model: keras.Model, calibration: Calibration, target: Target) -> int:
    if target.what == "params":
        return int(model.count_params())
    if target.what == "macs":
        return macs(model)
    samples = next(calibration.samples.batches(SAMPLES))
    ((_, content),) = convert(model, [target.scheme], samples, target.batch, target.compat)
    return len(content)
