"""Chooses every layer's width for a budget of parameters, multiply-accumulates or file bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfprune.calibration import Calibration
from tfprune.core.selection import Selection, without
from tfprune.criteria import elimination, keep_one_per_layer
from tfprune.errors import TfpruneError
from tfprune.graph.costs import macs, multiply_accumulates, parameters
from tfprune.graph.width_search import TRIES, first_that_fits, predicted, ranking
from tfprune.options import COUNTED, Target
from tfprune.results import Reached
from tfprune.tflite.converter import convert
from tfprune.utils.console import meter

# Samples that a file is made with to count its bytes, which do not depend on them.
SAMPLES = 64


class RemovalSchedule:
    """A model's steps from whole to one unit a group, always the next by effect per cost.

    Parameters
    ----------
    survey : Calibration
    macs : bool
        Whether costs are multiply-accumulates, in place of parameters.
    """

    def __init__(self, survey: Calibration, macs: bool = False) -> None:
        self._groups = survey.groups
        groups = [seen.group for seen in survey.groups]
        self._costs = (multiply_accumulates if macs else parameters)(survey.trace, groups)
        found = [elimination(seen, survey.trace) for seen in survey.groups]
        self._orders = [made.order for made in found]
        errors = [made.errors / (made.variance or 1.0) for made in found]
        self._ranking = ranking(errors, self._costs)

    @property
    def costs(self) -> list[float]:
        """What is predicted of the cost after 0, 1, ... steps."""
        sizes = [len(seen.constant) for seen in self._groups]
        return predicted(self._ranking, sizes, self._costs)

    def at(self, steps: int) -> list[Selection]:
        """What stays of every group after so many steps: a unit in each of its layers at least."""
        lost = np.bincount(self._ranking[:steps], minlength=len(self._groups))
        return [
            keep_one_per_layer(seen.group, without(order[:count], seen.constant))
            for order, count, seen in zip(self._orders, lost, self._groups, strict=True)
        ]


def fit_budget(
    survey: Calibration,
    schedule: RemovalSchedule,
    target: Target,
    built: Callable[[Sequence[Selection]], keras.Model],
    *,
    progress: bool = False,
) -> tuple[list[Selection], Reached]:
    """Takes out as few units as a budget allows.

    Parameters
    ----------
    survey : Calibration
    ladder : RemovalSchedule
        Of this survey.
    target : Target
    built : callable
        Selections for all groups -> the model that is left.
    progress : bool
        Whether to count the models that are tried on stderr.

    Raises
    ------
    TfpruneError
        If one unit in every layer that can be pruned is still over the budget.
    """
    whole = _size(survey.model, survey, target)
    limit = int(target.amount * whole) if target.amount < 1 else int(target.amount)
    with meter("fitting the budget", TRIES, progress, "model") as drawn:

        def size(steps: int) -> int:
            drawn.update()
            return _size(built(schedule.at(steps)), survey, target) if steps else whole

        steps, sizes = first_that_fits(size, limit, schedule.costs)
    unit = COUNTED[target.what]
    if steps is None:
        raise TfpruneError(
            f"{target.called}: {limit:,} {unit} cannot be reached; the least is "
            f"{min(sizes.values()):,} of {whole:,}, with one unit left in every layer that may "
            "lose any (layers='all' may reach more)"
        )
    why = "nothing has to go"
    if steps:
        more = sizes.get(steps - 1)
        why = f"one unit more makes {more:,}" if more else f"within {limit - sizes[steps]:,} of it"
    return schedule.at(steps), Reached(target.what, limit, sizes[steps], whole, why, len(sizes))


def _size(model: keras.Model, survey: Calibration, target: Target) -> int:
    if target.what == "params":
        return int(model.count_params())
    if target.what == "macs":
        return macs(model)
    samples = next(survey.samples.batches(SAMPLES))
    ((_, content),) = convert(model, [target.scheme], samples, target.batch, target.compat)
    return len(content)
