"""Lays out what each class got right before and after, those that lost most first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Rows that are shown at once; the others can be opened.
FIRST = 20


def class_table(
    classes: dict[str, Any] | None,
    pair: tuple[dict[str, Any], dict[str, Any]] | None,
    files: Sequence[dict[str, Any]],
    names: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Head and rows of the table, and a line that says who pays.

    Parameters
    ----------
    classes : dict or None
        The manifest's ``classes``.
    pair : tuple or None
        The two files of the headline.
    files : sequence of dict
        The manifest's ``artifacts``: the pruned float32 file has a column as well, as it shows
        what pruning alone cost.
    names : sequence of str
        Of the classes, where they have names.
    """
    if not classes or not pair or pair[1]["file"] not in classes["right"]:
        return None
    before = classes["right"].get(pair[0]["file"], classes["original"])
    columns = {_name(pair[0]): before}
    for one in files:
        if (one["variant"], one["scheme"]) == ("pruned", "float32") and one is not pair[1]:
            columns[_name(one)] = classes["right"].get(one["file"], before)
    after = classes["right"][pair[1]["file"]]
    columns[_name(pair[1])] = after
    samples = classes["samples"]
    there = [number for number, count in enumerate(samples) if count]
    change = {n: 100 * (after[n] - before[n]) / samples[n] for n in there}
    order = sorted(there, key=lambda n: (change[n], n))
    each = classes["each"]
    rows = [
        [f"{n} {names[n]}" if n < len(names) else str(n), f"{samples[n]:,}"]
        + [f"{100 * column[n] / samples[n]:.2f}" for column in columns.values()]
        # Adding 0 takes the sign off a negative nothing.
        + [f"{round(change[n], 2) + 0.0:+.2f}" if after[n] != before[n] else "0"]
        for n in order
    ]
    return {
        "each": each,
        "words": (each,) if names else (),
        "head": [each, "samples", *(f"{name} %" for name in columns), "points"],
        "rows": rows[:FIRST],
        "more": rows[FIRST:],
        "note": _note(classes, order, change, {n: before[n] - after[n] for n in there}, names),
    }


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['variant']} {entry['scheme']}"


def _note(
    classes: dict[str, Any],
    order: Sequence[int],
    change: dict[int, float],
    fewer: dict[int, int],
    names: Sequence[str],
) -> str:
    each, samples = classes["each"], classes["samples"]
    lost = [n for n in order if change[n] < 0]
    gained = sum(change[n] > 0 for n in order)
    plural = "classes" if each == "class" else "units"
    if not lost:
        return f"None of {len(order)} {plural} lost accuracy; {gained} gained."
    worst = lost[0]
    name = f" ({names[worst]})" if worst < len(names) else ""
    return (
        f"{each.capitalize()} {worst}{name} pays most: {-change[worst]:.2f} points, "
        f"{fewer[worst]:,} of its {samples[worst]:,} test samples. Of {len(order)} {plural} "
        f"{len(lost)} lost and {gained} gained."
    )
