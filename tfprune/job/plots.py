"""Draws pictures from records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from tfprune.job.records import Artifact
from tfprune.results import LayerResult
from tfprune.tflite.schemes import SCHEMES

# Above this many units a plain dendrogram order is drawn: the best one takes too long.
OPTIMAL_ORDER_UNITS = 400
# Percent points that the score axis shows at least.
LEAST_SPAN = 1.0
COLOURS = {"original": "#7f7f7f", "finetuned": "#7570b3", "pruned": "#d95f02"}


def angle_histogram(layer: LayerResult, threshold: float | None, path: Path) -> None:
    """How many pairs of units have which angle, with the two thresholds if there are any."""
    figure, axes = _figure(7, 4)
    axes.hist(layer.pair_angles, bins=np.arange(0, 181, 3), color="#1b9e77")
    if threshold is not None:
        for at, label in ((threshold, "similar below"), (180 - threshold, "complementary above")):
            axes.axvline(at, color="#d95f02", linestyle="--", label=f"{label} {at:g}°")
        figure.legend(frameon=False, ncols=2, loc="outside lower center")
    axes.set(
        title=f"{layer.name}: {layer.units_before} units, {layer.units_after} kept "
        f"({layer.constant} constant)",
        xlabel="angle between two units' activation vectors (degrees)",
        ylabel="pairs",
        xlim=(0, 180),
        xticks=range(0, 181, 30),
    )
    figure.savefig(path, dpi=120)


def angle_map(layer: LayerResult, path: Path) -> None:
    """The angle matrix, units ordered so that similar ones stand together."""
    figure, axes = _figure(6.4, 5.4)
    order = similarity_order(layer.angles)
    image = axes.imshow(
        layer.angles[np.ix_(order, order)], cmap="RdYlBu", vmin=0, vmax=180, interpolation="nearest"
    )
    bar = figure.colorbar(image, ax=axes, ticks=range(0, 181, 30))
    bar.set_label("degrees (0 similar, 180 complementary)")
    dead = int(np.isnan(layer.angles.diagonal()).sum())
    title = f"{layer.name}: angles between {layer.units_before - dead} units"
    axes.set(
        title=title + (f" ({dead} without a direction)" if dead else ""),
        xlabel="units, ordered by similarity",
        ylabel="units, ordered by similarity",
    )
    figure.savefig(path, dpi=120)


def similarity_order(angles: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Units that have a direction, ordered by average linkage of their angles."""
    alive = np.flatnonzero(np.isfinite(angles.diagonal()))
    if len(alive) < 3:
        return alive
    condensed = squareform(angles[np.ix_(alive, alive)].astype(float), checks=False)
    linkage = hierarchy.linkage(
        condensed, "average", optimal_ordering=len(alive) <= OPTIMAL_ORDER_UNITS
    )
    return alive[hierarchy.leaves_list(linkage)]


def bytes_against_score(artifacts: Sequence[Artifact], path: Path) -> None:
    """Every file's size against what it scores."""
    figure, axes = _figure(7, 4.5)
    metric = next(
        name for name in ("accuracy", "mse", "agreement", "output_error")
        if name in artifacts[0].scores
    )  # fmt: skip
    share = metric != "mse"
    for artifact in artifacts:
        value = artifact.scores[metric] * (100 if share else 1)
        axes.plot(
            artifact.bytes,
            value,
            SCHEMES[artifact.scheme].marker,
            color=COLOURS[artifact.variant],
            markersize=8,
            label=f"{artifact.variant} {artifact.scheme}",
        )
    axes.set_xscale("log")
    sizes = [artifact.bytes for artifact in artifacts]
    ticks = np.geomspace(min(sizes), max(sizes), 5)
    axes.set_xticks(ticks, [f"{tick / 1000:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set(
        xlabel="file (kB, logarithmic)",
        ylabel=metric.replace("_", " ") + (" on the test set (%)" if share else " on the test set"),
        title=f"size against {metric.replace('_', ' ')}",
    )
    axes.grid(alpha=0.3)
    axes.ticklabel_format(axis="y", useOffset=False)
    if share:
        # Less than this is noise and should look like it.
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, LEAST_SPAN) / 2
        axes.set_ylim(middle - half, middle + half)
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
