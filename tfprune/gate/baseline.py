"""Makes a candidate the new baseline, and tightens limits where models shrank."""

from __future__ import annotations

import json
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.gate.limits import Config, tightened
from tfprune.gate.sizes import Side, members, read_side
from tfprune.output_folder.run_files import MANIFEST, SCHEMA
from tfprune.output_folder.staging import replace_files
from tfprune.utils.digests import text_digest
from tfprune.utils.files import PRIVATE, write_whole
from tfprune.utils.untrusted import inside


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
    old = None if is_new(baseline) else read_side(baseline, "--baseline")
    said: list[str] = []
    text: str | None = None
    if config_file is not None and old is not None:
        said, text = _tightened(config_file, config, old, new)
    folder, files, obsolete = _content(baseline, candidate, new)
    if config_file is not None and text is not None:
        place = config_file.resolve()
        if place.parent == folder.resolve():
            files[place.name], text = text.encode(), None
    replace_files(folder, files, "--baseline", obsolete)
    if config_file is not None and text is not None:
        # In another folder, so in a step of its own. It comes last: a budget that was not tightened
        # does no harm, one that is tightened again at the next update would.
        write_whole(config_file, text.encode())
    return [*said, f"{baseline}: now as {candidate}"]


def folder_of(baseline: Path) -> Path:
    """The folder that is written to when a baseline is made anew."""
    if baseline.suffix == ".json":
        return (baseline.resolve() if baseline.is_symlink() else baseline).parent
    return baseline


def is_new(baseline: Path) -> bool:
    """Whether there is no baseline yet: neither the file, nor anything in the folder."""
    if not baseline.is_dir():
        return not baseline.exists()
    return all(path.name.startswith(PRIVATE) for path in baseline.iterdir())


def _tightened(
    config_file: Path, config: Config, old: Side, new: Side
) -> tuple[list[str], str | None]:
    """What is said of budgets that fall, and the text of the file with them; None without any."""
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
    if not lines:
        return [], None
    return said, tightened(config_file.read_text(encoding="utf-8"), lines)


def _manifest(side: Side) -> str:
    manifest = side.manifest
    if manifest is None:
        entries = [
            {"file": name, "bytes": model.bytes}
            | ({"sha256": text_digest(model.path.read_bytes())} if model.path else {})
            for name, model in sorted(side.models.items())
        ]
        manifest = {"schema": SCHEMA, "artifacts": entries}
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


def _content(
    baseline: Path, candidate: Path, new: Side
) -> tuple[Path, dict[str, bytes], list[str]]:
    """The folder that is written to, the new files in it, and those that go."""
    folder = folder_of(baseline)
    if baseline.suffix == ".json":
        place = baseline.resolve() if baseline.is_symlink() else baseline
        return folder, {place.name: _manifest(new).encode()}, []
    if any(model.path is None for model in new.models.values()):
        raise TfpruneError(
            f"--update: {candidate} has no files to fill the folder {baseline} with; "
            "give a folder as candidate, or a .json file as baseline"
        )
    for name in new.models:
        if not inside(baseline / name, baseline):
            raise TfpruneError(
                f"--update: {baseline / name} is a link that leads out of {baseline}; take it away"
            )
    files = {
        name: model.path.read_bytes()
        for name, model in new.models.items()
        if model.path is not None
    }
    if new.manifest is not None:
        files[MANIFEST] = _manifest(new).encode()
    there = [file.relative_to(folder).as_posix() for file in members(folder)]
    return folder, files, [name for name in (*there, MANIFEST) if name not in files]
