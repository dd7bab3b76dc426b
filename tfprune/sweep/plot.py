"""Draws a sweep as one picture: the score of each file against its bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tfprune.criteria import CRITERIA
from tfprune.sweep.grid import UNPRUNED
from tfprune.sweep.results_log import Row
from tfprune.sweep.tables import Sweep
from tfprune.tflite.schemes import SCHEMES
from tfprune.utils.figures import score_text

COLOURS = {name: criterion.colour for name, criterion in CRITERIA.items()}
COLOURS[UNPRUNED] = "#000000"
# Full markers are named last.
FILLS = {
    scheme.name: scheme.fill
    for scheme in sorted(SCHEMES.values(), key=lambda scheme: scheme.fill == "full")
}
REFITTED, HEALED = "least-squares, refitted", "healed"
MARKERS = {
    "least-squares": "o", REFITTED: "D", "scaled": "s", "outgoing": "^", "incoming": "<",
    "drop": "X", HEALED: "*", UNPRUNED: "P",
}  # fmt: skip
# A file that loses more than so many times what the best unpruned one does is an arrow at the foot.
FARTHEST = 10
# A loss of accuracy that counts as small, where the unpruned files lose nothing.
SMALL = 0.005
TICKS = (1, 1.5, 2, 3, 5, 7)
# How far points of one size stand apart, as a share of the axis.
BESIDE = 0.008
# Pareto points that are named beside the picture, at most.
NAMED = 20


def picture(sweep: Sweep) -> bytes:
    """A PNG; the vertical axis spreads small losses and is cut off where models collapse."""
    rows, best = sweep.files, sweep.pareto
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots()
    if rows:
        scale = _Scale(rows)
        axes.plot(
            *zip(*map(scale.place, best), strict=True), color="black", linewidth=1, zorder=1
        )  # fmt: skip
        for row in sorted(rows, key=lambda row: row.select == UNPRUNED):
            _mark(axes, row, scale)
        _number(axes, best, scale)
        _dress(axes, rows, scale)
        _legends(figure, rows, best, any(map(scale.beyond, rows)))
    about = sweep.about
    axes.set_title(
        f"{about['model']}: {_metric(rows)} of {about['test']:,} test samples against bytes"
        + (f" ({len(sweep.rows)} of {sweep.total} files)" if len(sweep.rows) < sweep.total else ""),
        loc="left",
    )
    out = io.BytesIO()
    figure.savefig(out, dpi=100, format="png", pil_kwargs={"optimize": True})
    return out.getvalue()


class _Scale:
    """Losses on a logarithmic axis, and which are beyond it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.share = rows[0].metric != "mse"
        losses = [row.loss("test") for row in rows]
        unpruned = [row.loss("test") for row in rows if row.select == UNPRUNED]
        least = SMALL if self.share else 0.0
        base = max(min(unpruned or losses), least)
        # Nothing lost has no logarithm.
        above = [loss for loss in losses if loss > 0]
        self.least = min(losses) or min([*above, base or 1.0]) / 2
        self._beside = [name for name in COLOURS if any(row.select == name for row in rows)]
        if UNPRUNED in self._beside:
            self._beside.remove(UNPRUNED)
        sizes = [row.size for row in rows]
        self._step = (1.1 * max(sizes) / min(sizes)) ** BESIDE
        self.most = max(min(FARTHEST * base, max(losses)), 2 * self.least)

    def place(self, row: Row) -> tuple[float, float]:
        """Where a file is drawn; those of other selections stand beside it if they are as large."""
        shift = 0.0
        if row.select in self._beside:
            shift = self._beside.index(row.select) - (len(self._beside) - 1) / 2
        loss = float(np.clip(row.loss("test"), self.least, self.most))
        return row.size * self._step**shift, loss

    def beyond(self, row: Row) -> bool:
        """Whether a file is worse than the axis shows."""
        return row.loss("test") > self.most


def correction(row: Row) -> str:
    """What consumers get for removed units, as the picture's markers show it."""
    if row.heal:
        return HEALED
    return REFITTED if row.refit else row.fold or UNPRUNED


def _mark(axes: Any, row: Row, scale: _Scale) -> None:
    unpruned = row.select == UNPRUNED
    beyond = scale.beyond(row)
    axes.plot(
        *scale.place(row),
        marker="$\\downarrow$" if beyond else MARKERS[correction(row)],
        fillstyle="full" if beyond else FILLS[row.scheme],
        color=COLOURS[row.select],
        markeredgewidth=0.6 if beyond else 1.2,
        markersize=14 if unpruned else 7,
        linestyle="none",
        clip_on=False,
        zorder=3 if unpruned else 2,
    )


def _number(axes: Any, best: Sequence[Row], scale: _Scale) -> None:
    for number, row in enumerate(best, 1):
        at = scale.place(row)
        axes.plot(
            *at, "o", markersize=13, fillstyle="none", color="black", markeredgewidth=1,
            clip_on=False, zorder=4,
        )  # fmt: skip
        axes.annotate(
            str(number), at, (-8, 9), textcoords="offset points", ha="center", fontsize=8, zorder=5
        )


def _dress(axes: Any, rows: Sequence[Row], scale: _Scale) -> None:
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()
    sizes = [row.size for row in rows]
    ticks = _between(min(sizes) / 1.1, max(sizes) * 1.1, (1, 1.5, 2, 3, 4, 5, 7))
    axes.set_xticks(ticks, [f"{tick / 1000:g}" for tick in ticks])
    # Arrows stand inside.
    axes.set_ylim(scale.most * (1.1 if any(map(scale.beyond, rows)) else 1), scale.least / 1.06)
    ticks = _between(scale.least, scale.most, TICKS)
    axes.set_yticks(ticks, [f"{100 * (1 - t):.6g}" if scale.share else f"{t:.3g}" for t in ticks])
    metric = _metric(rows)
    axes.set(
        xlabel="file (kB, logarithmic; those of one size side by side)",
        ylabel=f"{metric} (%), logarithmic in the errors"
        if scale.share
        else f"{metric} (logarithmic)",
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _between(low: float, high: float, steps: Iterable[float]) -> list[float]:
    """Round numbers between two others."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [float(f"{step}e{power}") for power in powers for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _legends(figure: Any, rows: Sequence[Row], best: Sequence[Row], beyond: bool) -> None:
    """What colours, shapes and fillings mean, and the names of the Pareto points."""
    selections = [name for name in COLOURS if any(row.select == name for row in rows)]
    shapes = [name for name in MARKERS if any(correction(row) == name for row in rows)]
    schemes = [name for name in FILLS if any(row.scheme == name for row in rows)]
    grey: dict[str, Any] = {"linestyle": "none", "color": "#555555", "markersize": 8}
    colours = [
        Line2D([], [], marker="o", linestyle="none", color=COLOURS[name], label=name)
        for name in selections if name != UNPRUNED
    ]  # fmt: skip
    marks = [Line2D([], [], marker=MARKERS[name], label=name, **grey) for name in shapes]
    fills = [
        Line2D([], [], marker="o", fillstyle=FILLS[name], label=name, **grey) for name in schemes
    ]
    fills.append(
        Line2D([], [], marker="o", fillstyle="none", linestyle="-", color="black", markersize=11,
               linewidth=1, label="Pareto set")
    )  # fmt: skip
    if beyond:
        fills.append(Line2D([], [], marker="$\\downarrow$", label="worse than shown", **grey))
    names = [
        Line2D([], [], linestyle="none", marker=f"${number}$", color="black",
               markersize=6 if number < 10 else 9, markeredgewidth=0, label=_named(row))
        for number, row in enumerate(best[:NAMED], 1)
    ]  # fmt: skip
    more = f", the first {NAMED}" if len(best) > NAMED else ""
    figure.legend(
        handles=names, loc="outside lower left", ncols=2, frameon=False, fontsize=8,
        title=f"Pareto set, chosen on validation data{more}: bytes, {_metric(rows)} on test data",
        title_fontsize=8, alignment="left",
    )  # fmt: skip
    sections = (("chosen by", colours), ("corrected by", marks), ("file", fills))
    legend = figure.legend(
        handles=[
            handle
            for title, handles in sections
            for handle in (Line2D([], [], linestyle="none", label=title), *handles)
        ],
        loc="outside right upper", frameon=False, fontsize=8, alignment="left",
    )  # fmt: skip
    for text in legend.get_texts():
        if text.get_text() in dict(sections):
            text.set_weight("bold")


def _named(row: Row) -> str:
    score = score_text(row.metric, row.test or 0.0, " %")
    return f"{row.point.name} {row.scheme}: {row.size:,}, {score}"


def _metric(rows: Sequence[Row]) -> str:
    return rows[0].metric if rows else "figures"
