"""Makes a candidate the new baseline, and tightens budgets where models shrank."""

from __future__ import annotations

import json
from pathlib import Path

from tfprune.budgets import Config, tightened
from tfprune.digest import text_digest
from tfprune.errors import TfpruneError
from tfprune.files import write_whole
from tfprune.sizes import MANIFEST, SCHEMA, Side, members, read_side


def update(baseline: Path, candidate: Path, config_file: Path | None, config: Config) -> list[str]:
    """Rewrites the baseline as the candidate is.

    A baseline folder gets the candidate's files and loses those that are gone; a baseline
    manifest becomes the candidate's, or a list of sizes where it has none. Where all models of a
    rule shrank, its budget falls by as much as the largest of them.

    Parameters
    ----------
    baseline : Path
        What does not exist is made: a manifest if it ends in ``.json``, else a folder.
    candidate : Path
    config_file : Path or None
    config : Config

    Returns
    -------
    list of str
        What was done, a line each.

    Raises
    ------
    TfpruneError
        If a model is over its absolute budget: raising one is for a person to do.
    """
    new = read_side(candidate, "--candidate")
    for name, model in new.models.items():
        budget = config.limits_for(name).budget
        if budget is not None and model.bytes > budget:
            raise TfpruneError(
                f"--update: {name} has {model.bytes:,} B, over its budget of {budget:,} B; "
                "raise the budget by hand if that is meant"
            )
    old = read_side(baseline, "--baseline") if baseline.exists() else None
    said = []
    if config_file is not None and old is not None:
        said += _tighten(config_file, config, old, new)
    if baseline.suffix == ".json":
        baseline.parent.mkdir(parents=True, exist_ok=True)
        write_whole(baseline, _manifest(new).encode())
    else:
        _sync(baseline, candidate, new)
    return [*said, f"{baseline}: now as {candidate}"]


def _tighten(config_file: Path, config: Config, old: Side, new: Side) -> list[str]:
    lines: dict[int, int] = {}
    said = []
    for rule in config.rules:
        budget = rule.limits.get("budget")
        mine = [name for name in new.models if config.rule_for(name) is rule]
        known = [name for name in mine if name in old.models]
        if budget is None or rule.line is None or not known or len(known) < len(mine):
            continue
        before = max(old.models[name].bytes for name in known)
        now = max(new.models[name].bytes for name in known)
        if now < before:
            lines[rule.line] = budget - (before - now)
            said.append(f"{config_file}: {rule.match}: budget {budget:,} -> {lines[rule.line]:,} B")
    if lines:
        write_whole(config_file, tightened(config_file.read_text(), lines).encode())
    return said


def _manifest(side: Side) -> str:
    made = side.manifest
    if made is None:
        entries = [
            {"file": name, "bytes": model.bytes}
            | ({"sha256": text_digest(model.path.read_bytes())} if model.path else {})
            for name, model in sorted(side.models.items())
        ]
        made = {"schema": SCHEMA, "artifacts": entries}
    return json.dumps(made, indent=2) + "\n"


def _sync(baseline: Path, candidate: Path, new: Side) -> None:
    if any(model.path is None for model in new.models.values()):
        raise TfpruneError(
            f"--update: {candidate} has no files to fill the folder {baseline} with; "
            "give a folder as candidate, or a .json file as baseline"
        )
    for name, model in new.models.items():
        assert model.path is not None
        place = baseline / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, model.path.read_bytes())
    for file in members(baseline):
        if file.relative_to(baseline).as_posix() not in new.models:
            file.unlink()
    if new.manifest is not None:
        write_whole(baseline / MANIFEST, _manifest(new).encode())
    else:
        (baseline / MANIFEST).unlink(missing_ok=True)
