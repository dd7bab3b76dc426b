"""Which units go, and what every reader gets for them."""

from __future__ import annotations

from collections.abc import Sequence

from tfprune.calibration import Survey, View
from tfprune.core.fold import Fold, Scheme, intake, least_squares
from tfprune.core.fold_choice import steadied
from tfprune.core.selection import Selection
from tfprune.graph.shrink import Cut


def cuts(
    seen: Survey, selections: Sequence[Selection], folds: Scheme, trial: bool = False
) -> list[Cut]:
    """What is taken out of the groups that lose units.

    Parameters
    ----------
    seen : Survey
    selections : sequence of Selection
        For each of its groups.
    folds : Scheme
    trial : bool
        Whether folds are fitted without the samples that were held back.
    """
    made = []
    for one, selection in zip(seen.groups, selections, strict=True):
        if len(selection.kept) == selection.units:
            continue
        told = [(view.read, _fold(view, selection, folds, trial)) for view in one.views]
        taken = intake(selection, folds.merge_incoming)
        made.append(Cut(one.group, selection.kept, taken, told))
    return made


def _fold(view: View, selection: Selection, folds: Scheme, trial: bool) -> Fold:
    """What a reader gets for the units that go."""
    mine, shiftless = selection.within(view.read.units), view.read.shiftless
    if view.fitted is None or view.held is None:
        return folds.fold(mine, view.moments, view.centre, shiftless)
    moments = view.fitted if trial else view.moments
    if folds.fold is least_squares:
        return steadied(mine, moments, shiftless, view.fitted, view.held)
    return folds.fold(mine, moments, view.centre, shiftless)
