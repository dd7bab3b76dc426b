"""Writes a comparison as a table, Markdown, JSON or benchmark entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tfprune.gate.comparison import Comparison, Row
from tfprune.gate.sizes import Side
from tfprune.tflite.reader import Share, shares
from tfprune.utils.escapes import code, plain
from tfprune.utils.escapes import markdown as escaped
from tfprune.utils.escapes import to_json as json_text

# Version of the JSON document; docs/ci.md describes it.
SCHEMA = 1
# A pull request's comment is found again by this and replaced.
MARKER = "<!-- tfprune-sizes -->"
HEAD = ("model", "baseline", "candidate", "delta", "%", "budget", "left", "accuracy", "verdict")
# How many tensors are worth naming.
TENSORS = 12


def table(comparison: Comparison, everything: bool = False) -> str:
    """Plain text for a terminal."""
    rows = [list(map(plain, row)) for row in cells(comparison, everything)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        numbers = [cell.rjust(width) for cell, width in zip(row[1:8], widths[1:8], strict=True)]
        lines.append(
            "  ".join([row[0].ljust(widths[0]), *numbers, row[8].ljust(widths[8]), row[9]])
        )
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    lines = [line.rstrip() for line in lines]
    below = map(plain, _below(comparison, everything))
    return "\n".join([*lines, *below, summary(comparison)])


def markdown(comparison: Comparison, everything: bool = False) -> str:
    """A step summary or the comment of a pull request."""
    head, *rows = cells(comparison, everything)
    icons = {"fail": "❌", "removed": "❌", "warn": "⚠️", "added": "🆕", "pass": "✅"}
    failed = {row.name: row.failed for row in comparison.rows}
    lines = [MARKER, f"### {'❌' if comparison.failed else '✅'} Model sizes", ""]
    lines.append(f"**{summary(comparison)}**")
    lines.append("")
    if rows:
        lines.append("| " + " | ".join([*head[:9], "why"]) + " |")
        lines.append("|---|" + "---:|" * 7 + "---|---|")
    for name, *figures, verdict, why_not in rows:
        if verdict:
            icon = "➖" if verdict == "removed" and not failed[name] else icons[verdict]  # noqa: RUF001
            shown = [code(name), *figures, f"{icon} {verdict}", escaped(why_not)]
        else:
            shown = [f"**{cell}**" if cell else "" for cell in (name, *figures, verdict, why_not)]
        lines.append("| " + " | ".join(shown) + " |")
    below = [f"- {escaped(line)}" for line in _below(comparison, everything)]
    return "\n".join([*lines, *(["", *below] if below else []), ""])


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain data; see docs/ci.md for the fields."""
    return {
        "schema": SCHEMA,
        "failed": comparison.failed,
        "models": [
            {
                "name": row.name,
                "verdict": row.verdict,
                "failed": row.failed,
                "reason": row.reason,
                "baseline_bytes": row.baseline,
                "candidate_bytes": row.candidate,
                "delta_bytes": row.delta,
                "delta_percent": None if row.percent is None else round(row.percent, 4),
                "budget_bytes": row.budget,
                "bytes_left": row.left,
                "accuracy": row.accuracy,
                "accuracy_delta_points": None if row.drop is None else round(-row.drop, 4) + 0.0,
            }
            for row in comparison.rows
        ],
        "total": {
            "baseline_bytes": comparison.baseline,
            "candidate_bytes": comparison.candidate,
            "delta_bytes": comparison.candidate - comparison.baseline,
        },
        "warnings": list(comparison.warnings),
    }


def to_json(comparison: Comparison, everything: bool = False) -> str:
    """:func:`document` as text; always all models."""
    return json_text(document(comparison))


def benchmark(comparison: Comparison, everything: bool = False) -> str:
    """Entries for github-action-benchmark's ``customSmallerIsBetter``; always all models."""
    entries = [
        {
            "name": row.name,
            "unit": "bytes",
            "value": row.candidate,
            "extra": f"{row.verdict}{': ' if row.reason else ''}{row.reason}",
        }
        for row in comparison.rows
        if row.candidate is not None
    ]
    return json_text(entries)


FORMATS: dict[str, Callable[[Comparison, bool], str]] = {
    "table": table,
    "markdown": markdown,
    "json": to_json,
    "benchmark": benchmark,
}


def why(baseline: Side, candidate: Side) -> str:
    """Where the bytes of each candidate are, and which tensors grew."""
    parts = []
    for name, model in sorted(candidate.models.items()):
        if model.path is None:
            parts.append(f"{plain(name)}: only its size is known; compare folders to see inside")
            continue
        now = shares(model.path)
        old = baseline.models.get(name)
        before = shares(old.path) if old and old.path else None
        parts.append(_inside(name, now, before))
    return "\n\n".join(parts)


def _inside(name: str, now: Sequence[Share], before: Sequence[Share] | None) -> str:
    total = sum(share.bytes for share in now)
    lines = [f"{plain(name)}: {total:,} B"]
    lines += _ranked("kind", _sums(now, "kind"), _sums(before, "kind"), total)
    lines += _ranked("operator", _sums(now, "operator"), _sums(before, "operator"), total)
    lines += _ranked("tensor", _sums(now, "name"), _sums(before, "name"), total)
    return "\n".join(lines)


def _sums(parts: Sequence[Share] | None, by: str) -> Counter[str] | None:
    if parts is None:
        return None
    sums: Counter[str] = Counter()
    for share in parts:
        key = getattr(share, by)
        # By kind everything counts; by tensor and operator what belongs to none is left out.
        if key:
            sums[key] += share.bytes
    return sums


def _ranked(
    what: str, now: Counter[str] | None, before: Counter[str] | None, total: int
) -> list[str]:
    assert now is not None
    changes = {
        key: now[key] - before[key] for key in {*now, *before}
    } if before is not None else {}  # fmt: skip
    # What changed comes first, then what is large.
    keys = sorted({*now, *changes}, key=lambda key: (-abs(changes.get(key, 0)), -now[key], key))
    lines = []
    for key in keys[:TENSORS]:
        change = f"  {changes[key]:+,} B" if changes.get(key) else ""
        shown = plain(key[:60])
        shown = shown if len(shown) <= 60 and len(key) <= 60 else f"{shown[:57]}..."
        share = f"{100 * now[key] / max(total, 1):5.1f} %"
        lines.append(f"  {what:<8}  {shown:<60}  {now[key]:>9,} B  {share}{change}")
    if len(keys) > TENSORS:
        lines.append(f"  {what:<8}  {len(keys) - TENSORS} more")
    return lines


def cells(comparison: Comparison, everything: bool) -> list[list[str]]:
    """Header, rows and total as text; ten cells each, the last one the reason."""
    rows = [row for row in comparison.rows if everything or row.changed]
    total = Row(
        name="total",
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        budget=None,
        drop=None,
        accuracy=None,
        verdict="",
        failed=False,
        reason=f"{len(comparison.rows)} models",
    )
    return [[*HEAD, ""], *(_row(row) for row in [*rows, total])]


def _row(row: Row) -> list[str]:
    before, now = _sizes(row.baseline, row.candidate)
    accuracy = "" if row.accuracy is None else f"{100 * row.accuracy:.2f} %"
    if row.drop is not None:
        # Adding 0 takes the sign off a negative nothing.
        accuracy += f" ({round(-row.drop, 2) + 0.0:+.2f})"
    return [
        row.name,
        before,
        now,
        f"{row.delta:+,} B" if row.delta else "0",
        "" if row.percent is None else f"{row.percent:+.2f}" if row.delta else "0",
        "" if row.budget is None else f"{row.budget:,} B",
        "" if row.left is None else f"{row.left:,} B",
        accuracy,
        row.verdict,
        row.reason,
    ]


def _sizes(before: int | None, now: int | None) -> list[str]:
    """Both sizes in KiB, or in bytes where they differ and would look alike."""
    both = [size for size in (before, now) if size is not None]
    rounded = {f"{size / 1024:.1f} KiB" for size in both}
    plain = len(set(both)) > len(rounded)
    return [
        "" if size is None else f"{size:,} B" if plain else f"{size / 1024:.1f} KiB"
        for size in (before, now)
    ]


def _below(comparison: Comparison, everything: bool) -> list[str]:
    hidden = 0 if everything else sum(not row.changed for row in comparison.rows)
    lines = [f"warning: {warning}" for warning in comparison.warnings]
    if hidden:
        lines.append(f"{hidden} unchanged, not shown (--all shows them)")
    return lines


def summary(comparison: Comparison) -> str:
    """The verdict and the bytes gained, in a line."""
    failed = sum(row.failed for row in comparison.rows)
    delta = comparison.candidate - comparison.baseline
    verdict = f"FAILED: {failed} of {len(comparison.rows)} models" if failed else "passed"
    return f"{verdict}, {delta:+,} B in total" if delta else f"{verdict}, total size unchanged"
