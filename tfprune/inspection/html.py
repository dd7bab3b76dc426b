"""What is in a model, as HTML for notebooks; names of layers are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tfprune.inspection.records import FULL, GroupInfo, Measurements, Sensitivity
from tfprune.inspection.text import SENSITIVITY_HEAD, group_facts
from tfprune.utils.escapes import plain

STYLE = (
    "body{font-family:sans-serif;margin:2em} table{border-collapse:collapse} "
    "td,th{padding:.2em .8em;text-align:right} td:first-child,th:first-child{text-align:left} "
    "@media(max-width:32rem){body{margin:1em} td,th{padding:.2em .4em}}"
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], last_bold: bool = False) -> str:
    """A table of text, every cell escaped."""
    body = []
    for number, row in enumerate(rows):
        kind = "th" if last_bold and number == len(rows) - 1 else "td"
        body.append(_row([f"<{kind}>{escape(cell)}</{kind}>" for cell in row]))
    heads = _row([f"<th>{escape(cell)}</th>" for cell in head])
    return _table(heads, body)


def tree(groups: Sequence[GroupInfo]) -> str:
    """Groups as a list of lists."""
    items = []
    for group in groups:
        facts = "".join(f"<li>{escape(fact)}</li>" for fact in group_facts(group))
        title = f"<b>{escape(plain(group.name))}</b>, {escape(plain(group.kind))}, {group.units:,}"
        items.append(f"<li>{title} units<ul>{facts}</ul></li>")
    return f"<ul>{''.join(items)}</ul>"


def heat_map(groups: Sequence[Sensitivity], measured: Measurements) -> str:
    """Scores with a share of one group gone; the redder, the more is lost."""
    rows = []
    for one in groups:
        cells = [f"<td>{escape(plain(one.name))}</td>"]
        for score, units in zip(one.scores, one.units, strict=True):
            lost = min(max(100 * (measured.original - score) / FULL, 0.0), 1.0)
            colour = f"rgba(213, 94, 0, {0.8 * lost:.2f})"
            cells.append(
                f'<td style="background: {colour}" title="{units} units left">'
                f"{100 * score:.2f}</td>"
            )
        rows.append(_row(cells))
    heads = _row([f"<th>{escape(cell)}</th>" for cell in SENSITIVITY_HEAD])
    return _table(heads, rows)


def step(command: str, expected: str) -> str:
    """What to type next, and what to expect of it."""
    code = f"<code>{escape(command)}</code>"
    return (
        f'<p>next:</p><pre style="white-space:pre-wrap;overflow-wrap:anywhere">{code}</pre>'
        f"<p>expect {escape(expected)}</p>"
    )


def page(title: str, body: str) -> str:
    """A page by itself, which loads nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _table(heads: str, rows: Sequence[str]) -> str:
    """A table, which scrolls by itself where the window is narrower."""
    body = f"<thead>{heads}</thead><tbody>{''.join(rows)}</tbody>"
    return f'<div style="overflow-x:auto"><table>{body}</table></div>'


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"
