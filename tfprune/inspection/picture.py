"""Draws the sensitivity of a model's groups of units as a heat map."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tfprune.inspection.records import FULL, SHARES, Measurements
from tfprune.utils.escapes import plain

# Inches of a row, and of what stands around the rows; characters that a name has there at most.
ROW, AROUND, LONGEST = 0.32, 1.4, 40


def heat_map(measured: Measurements) -> Figure:
    """Scores with a share of one group gone, a row for each group; the darker, the more is lost.

    Parameters
    ----------
    measured : Measurements

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = measured.sensitivity
    scores = 100 * np.array([row.scores for row in rows])
    lost = 100 * measured.original - scores
    figure = Figure(figsize=(6.5, AROUND + ROW * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.clip(lost, 0, FULL), cmap="Oranges", vmin=0, vmax=FULL, aspect="auto")
    for (row, column), score in np.ndenumerate(scores):
        colour = "white" if lost[row, column] > 0.7 * FULL else "black"
        axes.text(column, row, f"{score:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(SHARES)), [f"{100 * share:g} % gone" for share in SHARES])
    # Nothing in a name is a formula.
    names = [_short(plain(row.name)).replace("$", r"\$") for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_title(f"{measured.score} (%), {100 * measured.original:.2f} as it is", fontsize=10)
    figure.colorbar(image, ax=axes, label="points lost", extend="max")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
