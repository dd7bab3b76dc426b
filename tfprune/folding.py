"""Fits the folds that the consumers of removed units get."""

from __future__ import annotations

from collections.abc import Sequence

from tfprune.calibration import Calibration, ConsumerView
from tfprune.core.fold import Fold, FoldRule, least_squares, merge_matrix
from tfprune.core.fold_choice import steadiest_fold
from tfprune.core.selection import Selection
from tfprune.graph.shrink import Cut


def cuts_of(
    seen: Calibration, selections: Sequence[Selection], folds: FoldRule, trial: bool = False
) -> list[Cut]:
    """What is taken out of the groups that lose units.

    Parameters
    ----------
    seen : Calibration
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
        taken = merge_matrix(selection, folds.merge_incoming)
        made.append(Cut(one.group, selection.kept, taken, told))
    return made


def _fold(view: ConsumerView, selection: Selection, folds: FoldRule, trial: bool) -> Fold:
    """What a reader gets for the units that go."""
    mine, no_offset = selection.within(view.read.units), view.read.no_offset
    if view.fitted is None or view.held is None:
        return folds.fold(mine, view.moments, view.centre, no_offset)
    moments = view.fitted if trial else view.moments
    if folds.fold is least_squares:
        return steadiest_fold(mine, moments, no_offset, view.fitted, view.held)
    return folds.fold(mine, moments, view.centre, no_offset)
