"""Lays out what a model scores with a share of one group alone gone, the worst first."""

from __future__ import annotations

from typing import Any

# Points of the score lost at which a cell has its full colour, and how strong that is.
FULL, STRONGEST = 30.0, 0.6
# Groups that are shown at once; the others can be opened.
FIRST = 20


def sensitivity_table(inspected: dict[str, Any] | None) -> dict[str, Any] | None:
    """Head and rows of the table; a cell is what it says and how strong its colour is in [0, 1].

    Parameters
    ----------
    inspected : dict or None
        What :meth:`Inspection.to_dict` of ``tfprune.inspect`` gives. None, or an inspection
        without data, gives None.
    """
    measured = (inspected or {}).get("measured")
    if not inspected or not measured or not measured["sensitivity"]:
        return None
    original = measured["original"]
    groups = sorted(
        measured["sensitivity"], key=lambda group: (min(group["scores"]), group["name"])
    )
    rows = [
        {
            "name": group["name"],
            "cells": [
                {"text": f"{100 * score:.2f}", "left": units, "colour": _colour(original - score)}
                for score, units in zip(group["scores"], group["units"], strict=True)
            ],
        }
        for group in groups
    ]
    return {
        "head": ["group", *(f"{100 * share:g} % gone" for share in inspected["shares"])],
        "rows": rows[:FIRST],
        "more": rows[FIRST:],
        "note": f"{measured['score'].capitalize()} in % on {measured['scored']:,} samples when a "
        "share of the units of one group alone is pruned and folded, without training; "
        f"{100 * original:.2f} % with all units. Groups that cost most are first.",
    }


def _colour(lost: float) -> float:
    return round(STRONGEST * min(max(100 * lost / FULL, 0.0), 1.0), 2)
