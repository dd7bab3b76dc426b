"""What is in a model, as text: tables of its layers, a tree of its groups, a map of sensitivity."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from tfprune.inspection.records import (
    DEGREES,
    SHARES,
    GroupInfo,
    LayerInfo,
    Measurements,
    Redundancy,
    Sensitivity,
)
from tfprune.utils.escapes import plain

# From so many points of the score lost on, the block beside a score; and what stands for blocks
# where a stream does not know them.
MARKS = ((20.0, "█"), (10.0, "▓"), (3.0, "▒"), (1.0, "░"))
WIDTH = 3
ASCII = str.maketrans("█▓▒░", "#*:.")
# Consumers of a group that a line names.
NAMED = 4
LAYER_HEAD = ("layer", "class", "output", "parameters", "MACs", "int8 bytes")
REDUNDANCY_HEAD = (
    "group", "units", "constant", "dead",
    *(f"near {degrees:g}" for degrees in DEGREES), *(f"span {degrees:g}" for degrees in DEGREES),
)  # fmt: skip
SENSITIVITY_HEAD = ("group", *(f"{100 * share:g} % gone" for share in SHARES))
TREE_TITLE = "What prunes together, who consumes it, and what stays"
REDUNDANCY_TITLE = (
    "Units that others stand for: near, within so many degrees of one that stays or of its "
    "opposite; span, of the span of all that stay"
)


def layer_rows(layers: Sequence[LayerInfo]) -> list[list[str]]:
    """The cells of the table of layers, with a total row."""
    rows = [
        [
            plain(one.name), plain(one.layer), shape_text(one.shape), f"{one.parameters:,}",
            count_text(one.macs), f"{one.bytes:,}",
        ]
        for one in layers
    ]  # fmt: skip
    sums = [sum(one.parameters for one in layers), sum(one.bytes for one in layers)]
    return [*rows, ["total", "", "", f"{sums[0]:,}", count_text(macs_of(layers)), f"{sums[1]:,}"]]


def redundancy_rows(groups: Sequence[Redundancy]) -> list[list[str]]:
    """The cells of the table of units that others stand for."""
    return [
        [plain(one.name), *map(str, (one.units, one.constant, one.dead, *one.near, *one.spanned))]
        for one in groups
    ]


def sensitivity_title(measured: Measurements, blocks: bool = True) -> str:
    """What the figures of the map of sensitivity are; with ``blocks`` what these stand for."""
    marks = ", ".join(f"{mark} {points:g}" for points, mark in reversed(MARKS))
    legend = f"{marks} points lost or more" if blocks else "the redder, the more is lost"
    warning = f"WARNING: {measured.warning}\n" if measured.warning else ""
    return (
        f"{warning}Sensitivity: {measured.score} in % on {measured.scored:,} samples held out of "
        f"the training data, one group alone cut and folded; {100 * measured.original:.2f} whole "
        f"({legend})"
    )


def macs_of(layers: Sequence[LayerInfo]) -> int | None:
    """The multiply-accumulates of all layers; None if those of one are not known."""
    known = [one.macs for one in layers if one.macs is not None]
    return sum(known) if len(known) == len(layers) else None


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as ``32x32x3``; ``?`` stands for any size."""
    return "x".join("?" if size is None else str(size) for size in shape) or "-"


def count_text(count: int | None) -> str:
    """A number with separators, a dash for none."""
    return "-" if count is None else f"{count:,}"


def layer_table(layers: Sequence[LayerInfo]) -> str:
    """The layers, with a total row."""
    align = ("left", "left", "left", "right", "right", "right")
    return tabulate(layer_rows(layers), LAYER_HEAD, disable_numparse=True, colalign=align)


def group_tree(groups: Sequence[GroupInfo]) -> str:
    """The groups, and below each who consumes it, what half of it is worth, or why it stays."""
    lines = []
    for group in groups:
        units = f"{group.units:,} units" if group.units else "units"
        together = ", together" if len(group.layers) > 1 else ""
        lines.append(f"+- {plain(group.name)} ({plain(group.kind)}, {units}{together})")
        lines += [f"|  +- {fact}" for fact in group_facts(group)]
    return "\n".join(lines) if lines else "no layer has units"


def group_facts(group: GroupInfo) -> list[str]:
    """What is said of a group, a line each."""
    if group.stays is not None:
        return [f"stays: {plain(group.stays)}"]
    named = [plain(name) for name in group.consumers[:NAMED]]
    more = len(group.consumers) - len(named)
    facts = [f"consumed by {', '.join(named)}{f' and {more} more' if more else ''}"]
    if group.half_parameters is not None:
        macs = "" if group.half_macs is None else f" and {group.half_macs:,} MACs"
        facts.append(f"without half of them {group.half_parameters:,} parameters{macs} fewer")
    return facts


def redundancy_table(groups: Sequence[Redundancy]) -> str:
    """How many units others can stand for."""
    align = ("left", *["right"] * (len(REDUNDANCY_HEAD) - 1))
    rows = redundancy_rows(groups)
    return tabulate(rows, REDUNDANCY_HEAD, disable_numparse=True, colalign=align)


def sensitivity_table(groups: Sequence[Sensitivity], original: float) -> str:
    """Scores with a share of one group gone; the darker the block, the more is lost."""
    rows = [
        [plain(one.name), *(_marked(score, original) for score in one.scores)] for one in groups
    ]
    align = ("left", *["left"] * len(SHARES))
    return tabulate(rows, SENSITIVITY_HEAD, disable_numparse=True, colalign=align)


def _marked(score: float, original: float) -> str:
    lost = 100 * (original - score)
    mark = next((mark for points, mark in MARKS if lost >= points), " ")
    return f"{100 * score:6.2f} {mark * WIDTH}"
