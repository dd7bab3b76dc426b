"""Writes records as text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from tfprune.core.metrics import metric_of
from tfprune.job.records import Artifact, FailedFile
from tfprune.options import COUNTED
from tfprune.results import LayerResult, Other, Reached, Skipped, _shown, layer_table
from tfprune.utils.escapes import plain


def file_table(artifacts: Sequence[Artifact]) -> str:
    """Bytes and scores of each file; sizes relative to the unpruned float32 file."""
    base = next(
        (a.bytes for a in artifacts if (a.variant, a.scheme) == ("original", "float32")), None
    )
    metrics = [
        name for name in ("accuracy", "mse", "agreement", "output_error")
        if any(artifact.scores.get(name) is not None for artifact in artifacts)
    ]  # fmt: skip
    if "accuracy" in metrics:
        metrics = [name for name in metrics if name != "output_error"]
    # Of each of several outputs, beside their mean.
    alone = {name: None for artifact in artifacts for name in artifact.scores if _of_output(name)}
    metrics = [*alone, *metrics]
    zipped = any(artifact.gzip_bytes is not None for artifact in artifacts)
    head = ["file", "variant", "scheme", "bytes", "= weights", "+ overhead", *["gzip"] * zipped]
    head += ["times smaller"]
    head += [_heading(name) for name in metrics] + ["p10 us"]
    measured = any(artifact.arena_bytes is not None for artifact in artifacts)
    head += ["arena bytes"] * measured
    rows: list[list[Any]] = []
    for artifact in artifacts:
        smaller = f"{base / artifact.bytes:.2f}" if base else None
        scores = [_FORMATS[metric_of(name)[0]](artifact.scores.get(name)) for name in metrics]
        p10 = artifact.latency_us.get("p10")
        rows.append(
            [artifact.file, artifact.variant, artifact.scheme, f"{artifact.bytes:,}",
             f"{artifact.weights_bytes:,}", f"{artifact.bytes - artifact.weights_bytes:,}",
             *([f"{artifact.gzip_bytes:,}"] if zipped else []), smaller, *scores,
             None if p10 is None else f"{p10:.1f}",
             *([_count(artifact.arena_bytes)] if measured else [])]
        )  # fmt: skip
    for variant in ("original", "finetuned", "pruned"):
        mine = [artifact for artifact in artifacts if artifact.variant == variant]
        if mine:
            total = sum(artifact.bytes for artifact in mine)
            weights = sum(artifact.weights_bytes for artifact in mine)
            sums = [f"{size:,}" for size in (total, weights, total - weights)]
            rows.append([f"total, {len(mine)} files", variant, None, *sums])
    align = ["left"] * 3 + ["right"] * (len(head) - 3)
    return tabulate(_shown(rows), head, colalign=align, disable_numparse=True, missingval="")


def job_report(
    layers: Sequence[LayerResult],
    skipped: Sequence[Skipped],
    artifacts: Sequence[Artifact],
    dataset: dict[str, Any],
    training: Sequence[dict[str, Any]] = (),
    *,
    failed: Sequence[FailedFile] = (),
    others: Sequence[Other] = (),
    asked: str = "dense",
    notes: Sequence[str] = (),
    reached: Reached | None = None,
    microcontrollers: dict[str, Any] | None = None,
) -> str:
    """Both tables and the lines that say what they were measured on."""
    name = dataset["name"]
    if dataset["fallback_from"]:
        name += f" (FALLBACK: {dataset['fallback_from']} could not be had)"
    counts = ", ".join(
        f"{dataset[part]:,} {part}" for part in ("train", "calibration", "validation", "test")
    )
    lines = [f"data: {name}; {counts}"]
    lines += [
        f"{entry['how']}: {entry['variant']} model, {entry['epochs']} epochs of "
        f"{entry['samples']:,} samples{', augmented,' * entry['augment']} in "
        f"{entry['seconds']:.1f} s, loss on {entry['held_out']:,} "
        f"held-out samples {entry['before']:.4g} -> {entry['after']:.4g}"
        + (f"; {entry['note']}" if entry["note"] else f" (epoch {entry['best_epoch']})")
        for entry in training
    ]
    if reached is not None:
        lines.append(
            f"budget: at most {reached.limit:,} {COUNTED[reached.what]}; reached "
            f"{reached.reached:,} of {reached.whole:,} ({reached.reached / reached.whole:.1%}), "
            f"{reached.why}; {reached.widths}"
        )
    tables = [layer_table(layers, skipped, others, asked, notes), file_table(artifacts)]
    missing = "\n".join(
        ["not written:", *(plain(f"  {one.file}, {one}") for one in failed)] if failed else []
    )
    boards = _boards(microcontrollers["devices"]) if microcontrollers else ""
    return "\n\n".join(part for part in ("\n".join(lines), *tables, missing, boards) if part)


def _boards(devices: Sequence[dict[str, Any]]) -> str:
    """Whether files fit: of a board all memory, less what its own file says is taken."""
    lines = []
    for device in devices:
        taken = device["ram_taken_bytes"], device["flash_taken_bytes"]
        less = f" ({taken[0]:,} and {taken[1]:,} taken)" if any(taken) else ""
        lines.append(
            f"{device['name']}, {device['ram_bytes']:,} B of RAM and {device['flash_bytes']:,} B "
            f"of flash{less}; counted are arena and file, the program's own code and data are not:"
        )
        lines += [f"  {file['file']} {file['verdict']}" for file in device["files"]]
    return "\n".join(lines)


def _of_output(name: str) -> bool:
    metric, output = metric_of(name)
    return bool(output) and metric in _FORMATS


def _heading(name: str) -> str:
    metric, output = metric_of(name)
    return f"{output}: {_HEADINGS[metric]}" if output else _HEADINGS[metric]


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f}"


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


_HEADINGS = {
    "accuracy": "accuracy %", "agreement": "agreement %", "mse": "mse",
    "output_error": "output error %",
}  # fmt: skip
_FORMATS = {"accuracy": _percent, "agreement": _percent, "mse": _plain, "output_error": _percent}
