"""Shows a sweep as one HTML file."""

from __future__ import annotations

import shlex

import tfprune
from tfprune.report.page import render
from tfprune.sweep.grid import UNPRUNED
from tfprune.sweep.tables import WORDS, Sweep, cells, smallest_within, told

# Files that the page lists, at most.
MOST = 2000


def sweep_page(sweep: Sweep, picture: bytes | None = None) -> str:
    """The Pareto set, the picture, all files and what was refused.

    Parameters
    ----------
    sweep : Sweep
    picture : bytes, optional
        A PNG.
    """
    best, files = sweep.pareto, sweep.files
    best_head, best_rows = cells(sweep, best)
    all_head, all_rows = cells(sweep, files[:MOST], {row.key for row in best})
    points = list(dict.fromkeys(row.point for row in best if row.point.flags))
    refused = [row for row in sweep.rows if row.reason]
    return render(
        "sweep.html",
        model=sweep.about["model"],
        data=sweep.about["data"],
        told=told(sweep),
        cards=_cards(sweep),
        metric=(files[0].metric if files else "figures").capitalize(),
        picture=picture,
        words=WORDS,
        best_head=best_head,
        best=best_rows,
        flags=[(point.name, point.flags) for point in points],
        all_head=all_head,
        all=all_rows,
        more=max(0, len(files) - MOST),
        refused=[(f"{row.point.name}, {row.scheme}", row.reason) for row in refused[:MOST]],
        command=shlex.join(sweep.command),
        version=tfprune.__version__,
    )


def _cards(sweep: Sweep) -> list[dict[str, str]]:
    """The smallest Pareto file within a point of the best unpruned one's accuracy, in words."""
    found = smallest_within(sweep)
    if found is None:
        return []
    whole, small = found
    largest = max((row for row in sweep.files if row.select == UNPRUNED), key=lambda row: row.size)
    return [
        {
            "what": f"Smallest within a point of validation {small.metric}",
            "head": f"{small.size:,} bytes",
            "text": f"{small.point.name}, {small.scheme}; the largest unpruned file has "
            f"{largest.size:,}",
        },
        {
            "what": f"Its test {small.metric}",
            "head": f"{100 * (small.test or 0):.2f} %",
            "text": f"the best unpruned file has {100 * (whole.test or 0):.2f} %",
        },
    ]
