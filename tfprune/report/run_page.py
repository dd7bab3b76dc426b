"""Makes the page of a run of ``export`` from its manifest and a few arrays."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.report import headline
from tfprune.report.charts import histogram, is_picture, pictures, scatter
from tfprune.report.class_table import class_table
from tfprune.report.page import render
from tfprune.report.sensitivity import sensitivity_table
from tfprune.results import LayerResult
from tfprune.utils.arrays import Array
from tfprune.utils.escapes import plain
from tfprune.utils.figures import score_text

# Bytes of UTF-8; above, pictures and histograms are left out.
LARGEST = 3_000_000
# Histograms, layers and numbers of a sample that are shown, at most.
HISTOGRAMS, LAYERS, NUMBERS = 24, 400, 10
# Characters of a class's name that are shown.
NAME = 40
METRICS = {"accuracy": "accuracy %", "mse": "mse", "agreement": "agreement %"}
SECTIONS = {
    "findings": "Warnings", "files": "Files", "chart": "Scores", "widths": "Widths",
    "histograms": "Angles", "sensitivity": "Sensitivity", "classes": "Classes",
    "changed": "Changed answers",
}  # fmt: skip
ANCHORS = {"chart": "scores", "histograms": "angles"}


def run_page(
    manifest: dict[str, Any],
    layers: Sequence[LayerResult] = (),
    samples: Sequence[Array] = (),
    sensitivity: dict[str, Any] | None = None,
) -> str:
    """The page as HTML; what the manifest does not hold is left out.

    Parameters
    ----------
    manifest : dict
        Schema 1.
    layers : sequence of LayerResult
        Whose angles are drawn; layers that go together once.
    samples : sequence of arrays
        The test samples that the manifest's ``changed`` names, of the input that :func:`shown`
        chooses.
    sensitivity : dict or None
        ``tfprune.inspect(model, x).to_dict()``, where that was measured.
    """
    page = _rendered(manifest, layers, samples, sensitivity)
    large = len(page.encode(errors="replace")) > LARGEST
    return _rendered(manifest, (), (), None) if large else page


def shown(x: Sequence[Array], index: Sequence[int]) -> list[Array]:
    """Some samples of the input that is worth showing: the first of pictures, else the first."""
    inputs = [data for data in x if is_picture(data.shape[1:])]
    return [(inputs or x)[0][at] for at in index]


def _rendered(
    manifest: dict[str, Any],
    layers: Sequence[LayerResult],
    samples: Sequence[Array],
    sensitivity: dict[str, Any] | None,
) -> str:
    files = manifest["artifacts"]
    pair = headline.compared(files)
    tests = manifest["dataset"]["test"]
    metric = next((m for m in METRICS if any(one.get(m) is not None for one in files)), None)
    prune = manifest["prune"]
    names = class_names(manifest)
    values: dict[str, Any] = {
        "cards": headline.cards(files, tests),
        "compared": [one["file"] for one in pair or ()],
        "subtitle": _subtitle(prune),
        "findings": _findings(manifest),
        "files": _bars(files),
        "variants": list(dict.fromkeys(one["variant"] for one in files)),
        "file_table": _file_table(files),
        "file_note": "Scores are those of the files themselves in LiteRT on "
        f"{tests:,} test samples; agreement is the share of decisions that are the unpruned float "
        "model's. Latency is the 10th percentile of one invocation, one thread of the computer "
        "that made the files, not of a device.",
        "chart": scatter(files, metric) if metric else None,
        "metric": metric,
        "sensitivity": sensitivity_table(sensitivity),
        "classes": class_table(manifest.get("classes"), pair, files, names),
        "changed": _changed(manifest.get("changed"), samples, tests, names),
        **_widths(prune),
        **_histograms(prune, layers),
        **_running(manifest),
    }
    sections = [
        (ANCHORS.get(name, name), title) for name, title in SECTIONS.items() if values[name]
    ]
    sections += [("running", "How to run it"), ("provenance", "Where it comes from")]
    return render(
        "report.html",
        model=manifest["model"]["name"],
        version=manifest["versions"].get("tfprune", ""),
        sections=sections,
        provenance=_provenance(manifest),
        command=shlex.join(manifest["command"]),
        **values,
    )


def class_names(manifest: dict[str, Any]) -> list[str]:
    """The names of the classes, as one line each; none where labels are numbers, or units."""
    if manifest.get("classes", {}).get("each") != "class":
        return []
    return [cut_to(plain(name), NAME) for name in manifest["dataset"].get("classes", ())]


def cut_to(text: str, most: int) -> str:
    """The text, or as much of it as there is room for."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _subtitle(prune: dict[str, Any]) -> str:
    before = sum(layer["units_before"] for layer in prune["layers"])
    after = sum(layer["units_after"] for layer in prune["layers"])
    if before == after:
        return "No units were removed: nothing was found to prune with what was asked for."
    return (
        f"{before - after:,} of {before:,} units of the layers that were to be pruned "
        f"({(before - after) / before:.0%}) are gone; the weights that read them are corrected."
    )


def _findings(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        {"message": one["message"], "advice": list(one.get("advice", ()))}
        for one in manifest.get("warnings", ())
    ]
    found += [{"message": note, "advice": []} for note in manifest["prune"].get("notes", ())]
    found += [
        {"message": f"not written: {one['file']}: {one['reason']}", "advice": []}
        for one in manifest.get("failed", ())
    ]
    return found


def _bars(files: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    most = max((one["bytes"] for one in files), default=0) or 1
    return [{**one, "share": round(100 * one["bytes"] / most, 1)} for one in files]


def _file_table(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    base = next(
        (f["bytes"] for f in files if (f["variant"], f["scheme"]) == ("original", "float32")), None
    )
    columns: dict[str, list[str]] = {
        "file": [f"{n}. {one['variant']} {one['scheme']}" for n, one in enumerate(files, 1)],
        **{
            head: [score_text(name, one.get(name)) for one in files]
            for name, head in METRICS.items()
        },
        "µs": [headline.microseconds(one.get("latency_us", {}).get("p10")) for one in files],
        "times smaller": [f"{base / max(f['bytes'], 1):.2f}" if base else "" for f in files],
        "bytes": [f"{one['bytes']:,}" for one in files],
        "arena bytes": [_number(one.get("arena_bytes"), ",") for one in files],
        "gzip bytes": [_number(one.get("gzip_bytes"), ",") for one in files],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return {"head": list(kept), "rows": list(zip(*kept.values(), strict=True))}


def _widths(prune: dict[str, Any]) -> dict[str, Any]:
    layers = prune["layers"]
    most = max((layer["units_before"] for layer in layers), default=0) or 1
    rows = [
        {
            "name": layer["name"],
            "note": layer.get("note") or (f"with {group}" if (group := layer.get("group")) else ""),
            "before": layer["units_before"],
            "after": layer["units_after"],
            "whole": round(max(100 * layer["units_before"] / most, 2), 1),
            "part": round(100 * layer["units_after"] / max(layer["units_before"], 1), 1),
        }
        for layer in layers[:LAYERS]
    ]
    note = "The whole bar is the width before, the coloured part what is left."
    if len(layers) > LAYERS:
        note += f" The first {LAYERS} of {len(layers):,} layers."
    return {"widths": rows, "widths_note": note, "skipped": prune.get("skipped", ())[:LAYERS]}


def _histograms(prune: dict[str, Any], layers: Sequence[LayerResult]) -> dict[str, Any]:
    first = {layer.group or layer.name: layer for layer in reversed(layers) if layer.angles.size}
    drawn = list(reversed(first.values()))
    threshold = prune.get("threshold_degrees")
    charts = []
    for layer in drawn[:HISTOGRAMS]:
        pairs = layer.pair_angles
        dead = int(np.isnan(layer.angles.diagonal()).sum())
        caption = f"{len(pairs):,} pairs of {layer.units_before - dead:,} units"
        caption += f"; {dead:,} units never change" if dead else ""
        charts.append(
            {"name": layer.name, "chart": histogram(pairs, threshold), "caption": caption}
        )
    more = len(drawn) - len(charts)
    return {"histograms": charts, "more_histograms": more, "marked": threshold is not None}


def _changed(
    changed: dict[str, Any] | None, samples: Sequence[Array], tests: int, names: Sequence[str]
) -> dict[str, Any] | None:
    if changed is None:
        return None
    entries = changed["samples"]
    note = f"{changed['file']} answers {changed['count']:,} of {tests:,} test samples otherwise "
    note += "than the unpruned float model"
    if "worse" in changed:
        note += f": {changed['worse']:,} were right and are wrong now, {changed['better']:,} the "
        note += "other way round"
    note += "."
    if len(entries) < changed["count"]:
        first = ", those that are wrong now first" if "worse" in changed else ""
        note += f" {len(entries)} of them{first}:"
    rows = [{"label": None, **one} for one in entries]
    for row in rows:
        known = {part: row[part] for part in ("label", "before", "after")}
        row |= {part: names[n] for part, n in known.items() if n is not None and n < len(names)}
    drawn = len(samples) == len(entries) > 0
    made = {"note": note, "samples": rows, "pictures": False}
    if drawn and is_picture(samples[0].shape):
        for row, picture in zip(rows, pictures(samples), strict=True):
            row["picture"] = picture
        return {**made, "pictures": True}
    labelled = "worse" in changed
    head = ["sample", *["label"] * labelled, "before", "after", *["values"] * drawn]
    table = [
        [one["index"], *[one["label"]] * labelled, one["before"], one["after"]] for one in rows
    ]
    if drawn:
        table = [[*row, _values(sample)] for row, sample in zip(table, samples, strict=True)]
    return {**made, "head": head, "rows": table}


def _values(sample: Array) -> str:
    flat = np.asarray(sample).ravel()
    told = ", ".join(f"{value:.4g}" for value in flat[:NUMBERS].astype(float))
    return told + (f", … ({flat.size:,} in all)" if flat.size > NUMBERS else "")


def _running(manifest: dict[str, Any]) -> dict[str, Any]:
    files, test = manifest["artifacts"], manifest.get("test_data")
    pair = headline.compared(files)
    file = pair[1]["file"] if pair else files[-1]["file"] if files else "model.tflite"
    note = (
        f"{test['file']} holds {test['samples']:,} of the test samples."
        if test
        else "test.npz is data of your own; --test-data 100 would have put some test samples here."
    )
    run = {
        "file": shlex.quote(file),
        "data": shlex.quote(test["file"]) if test else "test.npz",
        "note": f"{note} tfprune's README says what a 32-bit system needs.",
    }
    micro = manifest.get("microcontrollers")
    boards = [
        (device["name"], one["file"], one["verdict"])
        for device in (micro or {}).get("devices", ())
        for one in device["files"]
    ]
    tried = (
        "TensorFlow Lite Micro ran the int8 files; the list of files has the arena that each "
        "needs. --device says whether they fit in a board."
    )
    asked = (
        "Not tried: --c-array writes the int8 files as C for TensorFlow Lite Micro and measures "
        "the memory that they need, --device says whether they fit in a board."
    )
    return {"run": run, "boards": boards, "micro_note": tried if micro else asked}


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    data, git, prune = manifest["dataset"], manifest.get("git"), manifest["prune"]
    parts = ("train", "calibration", "validation", "test")
    fallback = data.get("fallback_from")
    rows = [
        ("made on", manifest["created"]),
        ("seed", str(manifest["seed"])),
        ("versions", ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())),
        ("commit", f"{git['commit']}{' (with changes)' if git['dirty'] else ''}" if git else ""),
        ("model", f"{manifest['model']['name']}, SHA-256 {manifest['model'].get('sha256')}"),
        ("data", data["name"] + (f" (in place of {fallback})" if fallback else "")),
        ("SHA-256 of the data", data["sha256"]),
        ("licence of the data", data.get("licence") or ""),
        ("samples", ", ".join(f"{data[part]:,} {part}" for part in parts if part in data)),
        ("preparation", "; ".join(data.get("notes", ()))),
        ("units chosen by", str(prune.get("select") or "")),
        ("widths are multiples of", str(prune.get("round_to") or "")),
        ("centre, fold", ", ".join(str(prune[k]) for k in ("centre", "fold") if prune.get(k))),
        ("training", "; ".join(_training(one) for one in manifest.get("training", ()))),
        ("for old runtimes", manifest.get("compat") or ""),
    ]
    return [(name, value) for name, value in rows if value]


def _training(entry: dict[str, Any]) -> str:
    augmented = ", augmented" if entry.get("augment") else ""
    losses = " -> ".join(f"{entry[when]:.4g}" for when in ("before", "after") if when in entry)
    return (
        f"{entry['how']} of the {entry['variant']} model, {entry['epochs']} epochs{augmented}"
        + (f", loss on held-out samples {losses}" if losses else "")
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
