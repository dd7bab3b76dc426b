"""Fits the folds that the consumers of removed units get."""

from __future__ import annotations

from collections.abc import Sequence

from tfprune.calibration import Calibration, ConsumerView
from tfprune.core.fold import Fold, FoldRule, least_squares, merge_matrix
from tfprune.core.fold_choice import steadiest_fold
from tfprune.core.selection import Selection
from tfprune.graph.shrink import Cut
from tfprune.graph.tied import with_tied_tables


def cuts_of(
    calibration: Calibration, selections: Sequence[Selection], folds: FoldRule, trial: bool = False
) -> list[Cut]:
    """The cuts of all groups that lose units: which units stay, and each consumer's fold.

    Parameters
    ----------
    calibration : Calibration
    selections : sequence of Selection
        One for each of its groups.
    folds : FoldRule
    trial : bool
        Whether folds are fitted without the samples held back.
    """
    cuts = []
    for stats, selection in zip(calibration.groups, selections, strict=True):
        if len(selection.kept) == selection.units:
            continue
        consumer_folds = [
            (view.consumer, _fold(view, selection, folds, trial)) for view in stats.views
        ]
        intake = merge_matrix(selection, folds.merge_incoming)
        cuts.append(Cut(stats.group, selection.kept, intake, consumer_folds))
    return with_tied_tables(calibration.trace, cuts)


def _fold(view: ConsumerView, selection: Selection, folds: FoldRule, trial: bool) -> Fold:
    """The fold of one consumer."""
    mine, no_offset = selection.within(view.consumer.units), view.consumer.no_offset
    if view.fitted is None or view.held is None:
        return folds.fold(mine, view.moments, view.centre, no_offset)
    moments = view.fitted if trial else view.moments
    if folds.fold is least_squares:
        return steadiest_fold(mine, moments, no_offset, view.fitted, view.held)
    return folds.fold(mine, moments, view.centre, no_offset)
