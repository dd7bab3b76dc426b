"""Draws what became of each layer: its width before and after, and the angles in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tfprune.results import LayerResult
from tfprune.utils.escapes import plain

# Inches of a row and around the rows; degrees of a bin; characters of a name, at most.
ROW, AROUND, BIN, LONGEST = 0.32, 1.4, 5, 30


def widths_and_angles(layers: Sequence[LayerResult], threshold: float | None = None) -> Figure:
    """A row for each layer: bars of its width before and after; how many pairs have which angle.

    Parameters
    ----------
    layers : sequence of LayerResult
    threshold : float or None
        Degrees; drawn with what they mean for complementary units.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(9, AROUND + ROW * len(layers)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(layers))
    left.barh(places, [one.units_before for one in layers], color="#c7c7c7", label="before")
    after = left.barh(places, [one.units_after for one in layers], color="#d95f02", label="after")
    left.bar_label(
        after, [f"{one.units_before} → {one.units_after}" for one in layers], padding=3, fontsize=8
    )
    # Nothing in a name is a formula.
    names = [plain(one.name)[:LONGEST].replace("$", r"\$") for one in layers]
    left.set_yticks(places, names, fontsize=8)
    left.invert_yaxis()
    left.set(xlabel="units", title="widths")
    if layers:
        left.legend(frameon=False, fontsize=8)
    edges = np.arange(0, 181, BIN)
    counts = np.array([_shares(one, edges) for one in layers]).reshape(-1, len(edges) - 1)
    rows = np.arange(len(layers) + 1) - 0.5
    image = right.pcolormesh(edges, rows, 100 * counts, cmap="Greens", vmin=0)
    figure.colorbar(image, ax=right, label="pairs of units (%)")
    right.set(xlabel="degrees between two units", title="angles", xticks=range(0, 181, 30))
    if threshold is not None:
        for at in (threshold, 180 - threshold):
            right.axvline(at, color="#d95f02", linestyle="--")
    return figure


def _shares(layer: LayerResult, edges: np.ndarray) -> np.ndarray:
    """The share of a layer's pairs in each bin; zeros where no pair has an angle."""
    pairs = layer.angles[np.triu_indices(len(layer.angles), 1)]
    counts = np.histogram(pairs[np.isfinite(pairs)], edges)[0]
    return counts / max(counts.sum(), 1)
