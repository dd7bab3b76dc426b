"""Says of a run in a few words how much smaller and faster its file is, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfprune.core.metrics import metric_of

# Points of accuracy, times and shares below which nothing is said to differ; times of one thing
# that is measured twice are further apart than sizes.
EQUAL_POINTS, EQUAL_TIMES, EQUAL_SPEED = 0.005, 1.005, 1.03
# Of outputs, up to which nothing much is lost.
MOST_ERROR = 0.05

Entry = dict[str, Any]


def compared(files: Sequence[Entry]) -> tuple[Entry, Entry] | None:
    """The original float32 file (or the largest of the original) and the pruned int8 one.

    Where there is no pruned int8 file it is the smallest of the pruned ones. None if either model
    has no file.

    Parameters
    ----------
    files : sequence of dict
        The manifest's ``artifacts``.
    """
    originals = [one for one in files if one["variant"] == "original"]
    pruned = [one for one in files if one["variant"] == "pruned"]
    if not originals or not pruned:
        return None
    before = max(originals, key=lambda one: (one["scheme"] == "float32", one["bytes"]))
    after = min(pruned, key=lambda one: (one["scheme"] != "int8", one["bytes"]))
    return before, after


def cards(files: Sequence[Entry], samples: int) -> list[dict[str, Any]]:
    """What the first screen says: ``head``, ``text`` and whether it is ``good`` of each.

    Size and cost are those of the whole way from the original float32 file. The time of the
    original is that of its file of the same scheme, as integers take another time than floats.
    """
    pair = compared(files)
    if not pair:
        return []
    before, after = pair
    alike = [f for f in files if (f["variant"], f["scheme"]) == ("original", after["scheme"])]
    slow = alike[0] if alike else before
    made = [_size(before, after, slow), _speed(slow, after), _cost(before, after, samples)]
    return [card for card in made if card]


def microseconds(time: float | None) -> str:
    """A latency as a page says it; nothing where there is none."""
    return "" if time is None else f"{time:,.{1 if time >= 10 else 2}f}"


def _size(before: Entry, after: Entry, alike: Entry) -> dict[str, Any]:
    text = f"{after['bytes']:,} bytes in place of {before['bytes']:,}"
    if alike is not before:
        alone = _times(alike["bytes"], after["bytes"], "smaller", "larger", "the same size")
        text += f"; pruning alone: {alone} (the original's {alike['scheme']} file has "
        text += f"{alike['bytes']:,})"
    return {
        "what": "Size",
        "head": _times(before["bytes"], after["bytes"], "smaller", "larger", "The same size"),
        "text": text,
        "good": after["bytes"] < before["bytes"],
    }


def _speed(before: Entry, after: Entry) -> dict[str, Any] | None:
    old, new = (one.get("latency_us", {}).get("p10") for one in (before, after))
    if not old or not new:
        return None
    text = f"{microseconds(new)} µs in place of {microseconds(old)} µs of the original's "
    text += f"{before['scheme']} file, one thread of the computer that made the files"
    changed = before["scheme"] != after["scheme"]
    if changed and new > old and after["scheme"] in ("int8", "int16x8", "int4"):
        text += "; on x86 integers are often slower, on ARM seldom"
    return {
        "what": "Speed",
        "head": _times(old, new, "faster here", "slower here", "As fast here", equal=EQUAL_SPEED),
        "text": text,
        "good": new < EQUAL_SPEED * old,
    }


def _cost(before: Entry, after: Entry, samples: int) -> dict[str, Any] | None:
    measured = f"{samples:,} test samples"
    if _have("accuracy", before, after):
        points = 100 * (before["accuracy"] - after["accuracy"])
        head = f"{abs(points):.2f} points of accuracy {'lost' if points > 0 else 'gained'}"
        return {
            "what": "Cost",
            "head": head if abs(points) >= EQUAL_POINTS else "No accuracy lost",
            "text": f"{100 * after['accuracy']:.2f} % in place of "
            f"{100 * before['accuracy']:.2f} % on {measured}" + _agreeing(after),
            "good": points < 0.5,
        }
    if _have("mse", before, after):
        old, new = before["mse"], after["mse"]
        change = f"{100 * (new / old - 1):+.1f} % error" if old else f"An error of {new:.4g}"
        return {
            "what": "Cost",
            "head": change,
            "text": f"mean squared error {new:.4g} in place of {old:.4g} on {measured}",
            "good": new <= 1.05 * old,
        }
    if _have("agreement", before, after):
        error = after.get("output_error") or 0.0
        # All agree where the model has but one answer, however far its outputs are off.
        empty = after["agreement"] == 1 and error > MOST_ERROR
        text = f"with the unpruned float model on {measured}; there are no labels"
        return {
            "what": "Cost",
            "head": f"{100 * after['agreement']:.2f} % agreement",
            "text": text + (f"; output error {100 * error:.1f} %" if error else ""),
            "good": after["agreement"] >= 0.98 and not empty,
        }
    return None


def _agreeing(after: Entry) -> str:
    """How many answers are the original's, in words that follow the accuracy."""
    if after.get("agreement") is None:
        return ""
    if any(metric_of(name)[1] for name in after):  # Some of several outputs may be values.
        return f"; agreement with the original {100 * after['agreement']:.1f} %"
    return f"; {100 * after['agreement']:.1f} % of the answers are the original's"


def _have(name: str, *entries: Entry) -> bool:
    return all(entry.get(name) is not None for entry in entries)


def _times(
    old: float, new: float, less: str, more: str, same: str, *, equal: float = EQUAL_TIMES
) -> str:
    ratio = max(old, new) / max(min(old, new), 1e-9)
    if ratio < equal:
        return same
    return f"{ratio:.{1 if ratio >= 10 else 2}f} times {less if new < old else more}"
