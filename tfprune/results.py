"""What became of the layers of a group, for the result and its table."""

from __future__ import annotations

import numpy as np

from tfprune.moments import Array
from tfprune.records import LayerResult
from tfprune.select import Selection
from tfprune.survey import Seen

_WHY = {
    "effect": "of least effect",
    "span": "in the span of the others",
    "angle": "of the closest pairs",
    "magnitude": "of least magnitude",
    "random": "at random",
}


def layer_results(seen: Seen, selection: Selection, by: str) -> list[LayerResult]:
    """What becomes of each of a group's layers.

    Parameters
    ----------
    seen : Seen
        The group as it was measured.
    selection : Selection
        Which of its units stay.
    by : str
        By what they were chosen, as in :attr:`PruneResult.select`.
    """
    results = []
    group, between, samples = seen.group, seen.angles, seen.samples
    shown = between.astype(np.float32)
    together = len(group.makers) > 1
    for name, units in group.makers.items():
        note = ""
        if set(selection.rescued) & set(units.tolist()):
            note = "one unit kept: a layer needs one"
        elif samples <= selection.units:
            note = f"WARNING: only {samples} samples for {selection.units} units"
        elif selection.least:
            note = f"{len(selection.least)} {_WHY[by]}"
        elif len(selection.kept) == selection.units > 1:
            note = f"closest pair at {_closest(between):.1f} degrees"
        results.append(
            LayerResult(
                name=name,
                units_before=len(units),
                units_after=int(np.isin(units, selection.kept).sum()),
                similar=int(np.isin(units, list(selection.similar)).sum()),
                complementary=int(np.isin(units, list(selection.complementary)).sum()),
                constant=int(np.isin(units, selection.constant).sum()),
                kept=np.flatnonzero(np.isin(units, selection.kept)),
                angles=shown,
                group=group.name if together else "",
                note=note,
            )
        )
    return results


def _closest(between: Array) -> float:
    """Degrees between the pair of units that is nearest to similar or complementary."""
    pairs = np.minimum(between, 180 - between)
    np.fill_diagonal(pairs, np.nan)
    return float(np.nanmin(pairs))
