"""Writes results.md and results.json: published and measured figures side by side."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from tfprune.studies.study import Experiment, Row
from tfprune.studies.summary import Measured, Results, shown, unit

KINDS = ("constant", "similar", "complementary")


def files(results: Results) -> dict[str, bytes]:
    """The content of both, by name."""
    return {
        "results.md": to_markdown(results).encode(errors="backslashreplace"),
        "results.json": to_json(results).encode(),
    }


def to_json(results: Results) -> str:
    """All rows as plain data, with the manifest."""
    document = {
        "schema": 1,
        "study": results.study.name,
        "quick": results.study.quick,
        "comparable": results.comparable,
        **results.about,
        "runs": {"done": len(results.records), "wanted": results.total},
        "rows": [_entry(results, one, row) for one, row in results.rows],
        "missing": results.missing,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _entry(results: Results, experiment: Experiment, row: Row) -> dict[str, Any]:
    measured = results.measured(experiment.id, row.quantity)
    return {
        "experiment": experiment.id,
        "label": row.label,
        "quantity": row.quantity,
        "unit": unit(row.quantity)[0].strip(),
        "published": row.published,
        "measured": None if measured is None else asdict(measured),
        "difference": difference(results, row, measured),
        "values": {
            quantity: asdict(value)
            for quantity in sorted({key for one in results.of(experiment.id) for key in one.values})
            if (value := results.measured(experiment.id, quantity)) is not None
        },
        "note": row.note,
    }


def difference(results: Results, row: Row, measured: Measured | None) -> float | None:
    """Measured less published; None where there is nothing to compare."""
    if measured is None or row.published is None or not results.comparable:
        return None
    return measured.mean - row.published


def to_markdown(results: Results) -> str:
    """The tables, what they are of, and the figures."""
    study = results.study
    parts = [f"# {study.title}", study.text, _warnings(results), table(results)]
    cut = cut_table(results)
    if cut:
        parts += ["## Pruned: the study's rule and the package's", CUT_TEXT, cut]
    notes: dict[str, str] = {}
    for _, row in results.rows:
        if row.note:
            # One note for all rows of an experiment, by what they have in common.
            notes.setdefault(row.note, row.label.rpartition(": ")[0] or row.label)
    if notes:
        lines = [f"- {label}: {note}" for note, label in notes.items()]
        parts += ["## Notes", "\n".join(lines)]
    for figure in study.figures:
        parts.append(f"![{figure['title']}]({figure['file']})")
    parts += ["## How it was made", manifest(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warnings(results: Results) -> str:
    lines = []
    if results.study.quick:
        lines.append(
            "**A quick run**: fewer epochs, samples, runs and points than the study's; its figures "
            "show that everything works, and no more."
        )
    if not results.comparable:
        lines.append(
            f"**On {results.about['data']['name']}, not on MNIST**: published figures are of "
            "MNIST, so no difference is shown."
        )
    if len(results.records) + _never(results) < results.total:
        lines.append(
            f"{len(results.records)} of {results.total} runs done; the same command goes on."
        )
    return "\n\n".join(lines)


def _never(results: Results) -> int:
    return sum(one.runs for one in results.study.experiments if one.id in results.missing)


def table(results: Results, form: str = "pipe") -> str:
    """Published | measured mean ± standard deviation over N runs | difference."""
    body = []
    for experiment, row in results.rows:
        measured = results.measured(experiment.id, row.quantity)
        after, digits = unit(row.quantity)
        published = "" if row.published is None else f"{row.published:,.{digits}f}{after}"
        apart = difference(results, row, measured)
        if apart is not None:
            said = f"{apart:+,.{digits}f}"
        else:
            said = "" if row.published is None or results.comparable else "not comparable"
        body.append(
            [
                row.label,
                published,
                results.missing.get(experiment.id) or shown(measured, row.quantity) or "to do",
                "" if measured is None else measured.runs,
                said,
            ]
        )
    head = ["", "published", "measured: mean ± sd", "runs", "difference"]
    align = ("left", "right", "right", "right", "right")
    return tabulate(body, head, form, colalign=align, disable_numparse=True)


CUT_TEXT = (
    "Units removed are in percent of the layers' units, *constant* (a dead ReLU is the constant "
    "0) + *similar* + *complementary*. Bytes are of int8 TFLite files of first runs: the study's "
    "network with zeros for what was removed; the same without what was removed; the package's."
)


def cut_table(results: Results, form: str = "pipe") -> str:
    """For rows of pruned networks: both rules, what went and why, and bytes of files."""
    body = []
    for experiment, row in results.rows:
        if not row.cut:
            continue

        def of(quantity: str, one: Experiment = experiment) -> Measured | None:
            return results.measured(one.id, quantity)

        body.append(
            [
                row.label,
                shown(of(row.quantity), row.quantity),
                shown(of(row.ours), row.ours),
                *(_classes(results, experiment, side) for side in ("study", "ours")),
                *(_bytes(of(f"{which}.bytes")) for which in ("zeroed", "study", "ours")),
            ]
        )
    if not body:
        return ""
    head = [
        "",
        "study's rule",
        "least squares",
        "removed by the study's",
        "removed by ours",
        "zeroed, bytes",
        "shrunken, bytes",
        "least squares, bytes",
    ]
    align = ("left", *["right"] * 7)
    return tabulate(body, head, form, colalign=align, disable_numparse=True)


def _classes(results: Results, experiment: Experiment, side: str) -> str:
    whole = results.measured(experiment.id, f"{side}.removed")
    if whole is None:
        return ""
    parts = (results.measured(experiment.id, f"{side}.{kind}") for kind in KINDS)
    return f"{whole.mean:.1f} = " + " + ".join(f"{part.mean:.1f}" for part in parts if part)


def _bytes(measured: Measured | None) -> str:
    return "" if measured is None else f"{measured.mean:,.0f}"


def manifest(results: Results) -> str:
    """The command, and what it ran with, in short."""
    about = results.about
    commit = about["git"]["commit"][:12] if about["git"] else "no git checkout"
    if about["git"] and about["git"]["dirty"]:
        commit += " with changes"
    used = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    data = about["data"]
    minutes = sum(record.seconds for record in results.records) / 60
    return (
        f"```sh\n{shlex.join(about['command'])}\n```\n\n"
        f"{data['name']}, {data['train']:,} training and {data['test']:,} test images, "
        f"sha256 `{data['sha256'][:16]}…`; first seed {about['seed']}, the next run's is one more; "
        f"{minutes:.0f} minutes in all; commit {commit}; {used}."
    )
