"""Draws the figures of a study from its records."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfprune.studies.record import unpack
from tfprune.studies.study import Experiment, Table
from tfprune.studies.summary import Results

COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#a6761d")
GREY = "#7f7f7f"
DPI = 110


def files(results: Results) -> dict[str, bytes]:
    """The figures for which there is anything to draw, as PNG, by the names of their files."""
    drawn = {}
    for spec in results.study.figures:
        figure = DRAWN[spec["kind"]](results, spec)
        if figure is not None:
            out = io.BytesIO()
            figure.savefig(out, dpi=spec.get("dpi", DPI), format="png")
            drawn[spec["file"]] = out.getvalue()
    return drawn


def curves(results: Results, spec: Table) -> Figure | None:
    """A quantity over epochs, or over seconds, training dashed and test solid; mean of the runs."""
    figure, panels = _side_by_side(spec["panels"])
    drawn = False
    for axes, panel in panels:
        for name, colour in zip(spec["experiments"], COLOURS, strict=False):
            runs = [record.history for record in results.of(name) if record.history]
            if not runs:
                continue
            label = spec.get("labels", {}).get(name, name)
            length = min(len(run) for run in runs)
            x = np.mean([[one[panel["x"]] for one in run[:length]] for run in runs], axis=0)
            for prefix, style in (("", "--"), ("test_", "-"), ("held_", ":")):
                key = prefix + panel["quantity"]
                if key not in runs[0][0] or (panel.get("test_only") and not prefix):
                    continue
                y = np.mean([[one[key] for one in run[:length]] for run in runs], axis=0)
                y = panel.get("scale", 1) * y + panel.get("offset", 0)
                samples = {"": "training", "test_": "test", "held_": "held out"}[prefix]
                axes.plot(x, y, style, color=colour, label=f"{label}, {samples}")
                drawn = True
        axes.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"])
        axes.xaxis.get_major_locator().set_params(integer=panel["x"] == "epoch")
        if panel.get("log"):
            axes.set_yscale("log")
        if panel.get("percent"):
            for axis in ("major", "minor"):
                getattr(axes.yaxis, f"set_{axis}_formatter")("{x:g}")
        axes.grid(alpha=0.3)
    if not drawn:
        return None
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    figure.suptitle(spec["title"])
    return figure


def points(results: Results, spec: Table) -> Figure | None:
    """Quantities over the points of experiments, the published figures as crosses."""
    figure, panels = _side_by_side(spec["panels"])
    drawn = False
    for axes, panel in panels:
        shown = [one for line in panel["lines"] for one in _points_of(results, line["experiment"])]
        for line, colour in zip(panel["lines"], COLOURS, strict=False):
            points_here = [
                (_place(one, panel), measured)
                for one in _points_of(results, line["experiment"])
                if (measured := results.measured(one.id, line["quantity"])) is not None
            ]
            if points_here:
                axes.errorbar(
                    [x for x, _ in points_here],
                    [measured.mean for _, measured in points_here],
                    [measured.deviation or 0 for _, measured in points_here],
                    fmt=line.get("style", "o-"),
                    color=colour,
                    capsize=3,
                    markersize=4,
                    label=line["label"],
                )
                drawn = True
        said = [
            (_place(one, panel), row.published)
            for line in panel["lines"]
            for one in _points_of(results, line["experiment"])
            for row in one.rows
            if row.published is not None and row.quantity == line["quantity"]
        ]
        if said:
            axes.plot(*zip(*said, strict=True), "x", color="black", label="published")
        if panel.get("log"):
            axes.set_xscale("log")
            places = sorted({_place(one, panel) for one in shown})
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
        if panel.get("from_zero"):
            axes.set_ylim(bottom=0)
        axes.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"])
        axes.grid(alpha=0.3)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(spec["title"])
    return figure if drawn else None


def _points_of(results: Results, prefix: str) -> list[Experiment]:
    return [one for one in results.study.experiments if one.id.startswith(f"{prefix}.")]


def _place(experiment: Experiment, panel: Table) -> float:
    return float(experiment.settings.get(panel.get("at", "x"), 0))


def reconstructions(results: Results, spec: Table) -> Figure | None:
    """Test images, and what became of them, a row for each epoch or each network."""
    rows: list[tuple[str, Any]] = []
    for entry in spec["rows"]:
        packed = [
            record.pictures[entry["picture"]]
            for record in results.of(entry["experiment"])
            if entry["picture"] in record.pictures
        ]
        if not packed:
            continue
        images = unpack(packed[0])
        if not rows:
            rows.append(("original", images[0]))
        rest = images[1:]
        for epoch, row in enumerate(rest, 1):
            name = entry["label"] if len(rest) == 1 else f"{entry['label']} {epoch}"
            if entry.get("last") and epoch < len(rest):
                continue
            rows.append((entry["label"] if entry.get("last") else name, row))
    if not rows:
        return None
    count = len(rows[0][1])
    figure = Figure(figsize=(0.62 * count + 2.2, 0.64 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    for (label, images), line in zip(rows, grid, strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(spec["title"], fontsize=10)
    return figure


def filters(results: Results, spec: Table) -> Figure | None:
    """The kernels of a first convolution, each from its least (white) to its largest weight."""
    packed = [
        record.pictures["filters"]
        for record in results.of(spec["experiment"])
        if "filters" in record.pictures
    ]
    if not packed:
        return None
    kernels = unpack(packed[0])
    across = 16
    figure = Figure(figsize=(8, 0.55 * -(-len(kernels) // across) + 0.5), layout="constrained")
    grid = figure.subplots(-(-len(kernels) // across), across, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for axes, kernel in zip(grid.ravel(), kernels, strict=False):
        axes.imshow(kernel, cmap="gray_r", vmin=0, vmax=1)
    figure.suptitle(spec["title"], fontsize=10)
    return figure


def _side_by_side(panels: Sequence[Table]) -> tuple[Figure, list[tuple[Any, Table]]]:
    """A figure with axes for each panel."""
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for one in axes:
        _plain(one)
    return figure, list(zip(axes, panels, strict=True))


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


DRAWN: dict[str, Callable[[Results, Table], Figure | None]] = {
    one.__name__: one for one in (curves, points, reconstructions, filters)
}
