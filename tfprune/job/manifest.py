"""The manifest: which files a run made, from what, and what was measured on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfprune.data.splits import Dataset
from tfprune.job.records import Artifact, FailedFile, Finding, Tried
from tfprune.output_folder.run_files import SCHEMA
from tfprune.prune_result import PruneResult
from tfprune.training.records import Trained
from tfprune.utils.versions import versions


def manifest(
    *,
    command: Sequence[str],
    seed: int,
    git: dict[str, Any] | None,
    dataset: Dataset,
    model: dict[str, Any],
    result: PruneResult,
    artifacts: Sequence[Artifact],
    failed: Sequence[FailedFile] = (),
    inputs: Sequence[str],
    scoring: dict[str, Any],
    compression: dict[str, Any] | None = None,
    training: Sequence[Trained] = (),
    max_drop: float | None = None,
    tried: Sequence[Tried] = (),
    compat: str | None = None,
    test_data: dict[str, Any] | None = None,
    microcontrollers: dict[str, Any] | None = None,
    classes: dict[str, Any] | None = None,
    changed: dict[str, Any] | None = None,
    licence: str | None = None,
    findings: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Everything as plain data, schema 1.

    ``inputs`` are the files' names of the inputs, ``scoring`` is what :attr:`Yardstick.about` says,
    ``compression`` what was asked for beside pruning, ``max_drop`` how many points of accuracy
    might go, ``tried`` the models that the search for it measured, ``compat`` the old runtime that
    runs all files, ``test_data`` what :meth:`TestSet.write` says, with the files' scores on it,
    ``microcontrollers`` what :func:`tfprune.job.micro_files.examined` says, ``classes`` and
    ``changed`` what :class:`tfprune.job.answers.Answers` says, ``licence`` that of the
    data, None if it is not known, ``failed`` the files that are not there,
    ``findings`` what pruning or quantisation cost beyond the
    usual, and whether the data fits the model.
    """
    return {
        "schema": SCHEMA,
        "command": list(command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "versions": versions(),
        "git": git,
        "dataset": {
            "name": dataset.name,
            "sha256": dataset.sha256,
            "fallback_from": dataset.fallback_from,
            "licence": licence,
            "train": len(dataset.train),
            "calibration": len(dataset.calibration),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "notes": list(dataset.notes),
            **({"classes": list(dataset.classes)} if dataset.classes else {}),
            "scales": dict(zip(inputs, (scale.about for scale in dataset.scales), strict=True)),
        },
        "scoring": scoring,
        "model": model,
        "prune": {
            "threshold_degrees": result.threshold,
            "remove": result.remove,
            "round_to": result.round_to,
            "budget": None if result.reached is None else asdict(result.reached),
            "max_drop": max_drop,
            "tried": [asdict(one) for one in tried],
            "select": result.select,
            "refit": result.refit,
            "refit_kept": result.refit_kept,
            "centre": result.centre,
            "fold": result.fold,
            "layers": [
                {
                    "name": layer.name,
                    "units_before": layer.units_before,
                    "units_after": layer.units_after,
                    "similar": layer.similar,
                    "complementary": layer.complementary,
                    "constant": layer.constant,
                    "note": layer.note,
                    **({"group": layer.group} if layer.group else {}),
                }
                for layer in result.layers
            ],
            "skipped": [asdict(skipped) for skipped in result.skipped],
            **({"notes": list(result.notes)} if result.notes else {}),
        },
        **({"compression": compression} if compression else {}),
        "training": [asdict(trained) for trained in training],
        "warnings": [asdict(finding) for finding in findings],
        "compat": compat,
        **({"test_data": test_data} if test_data else {}),
        **({"microcontrollers": microcontrollers} if microcontrollers else {}),
        **({"classes": classes} if classes else {}),
        **({"changed": changed} if changed else {}),
        "artifacts": [artifact_entry(artifact) for artifact in artifacts],
        **({"failed": [asdict(one) for one in failed]} if failed else {}),
    }


def artifact_entry(artifact: Artifact) -> dict[str, Any]:
    """One artifact as plain data, its scores beside its bytes."""
    entry = asdict(artifact)
    scores, latency = entry.pop("scores"), entry.pop("latency_us")
    for name in ("gzip_bytes", "arena_bytes"):
        if entry[name] is None:
            del entry[name]
    return {**entry, **scores, "latency_us": latency}


def to_json(manifest: dict[str, Any]) -> str:
    """The manifest as text."""
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


def write(manifest: dict[str, Any], path: Path) -> None:
    """Writes the manifest."""
    path.write_text(to_json(manifest), encoding="utf-8")
