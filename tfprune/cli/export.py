"""``tfprune export --prune 30``: a Keras model in, small measured TFLite files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.cli.command import PARTIAL
from tfprune.cli.command import main as run_command
from tfprune.utils.escapes import plain

if TYPE_CHECKING:
    from tfprune.job.config import JobConfig


def options() -> type[JobConfig]:
    """The table of the options."""
    from tfprune.job.config import JobConfig

    return JobConfig


def export(config: JobConfig, command: list[str]) -> int:
    """Prunes units that do the same work, and exports TFLite files with measured figures.

    Writes NAME_SCHEME.tflite, NAME_pruneDEGREES_SCHEME.tflite, NAME_pruneDEGREES.keras,
    manifest.json, report.html, NAME.md and plots/. A budget in place of degrees stands in the
    names as well: NAME_remove50, NAME_params50, NAME_macs50, NAME_bytes20000, NAME_drop0.1.
    """
    from tfprune.utils.console import quiet, say
    from tfprune.utils.environment import start_keras

    config = config.validate()
    start_keras()
    with quiet():
        from tfprune.job.pipeline import run
    from tfprune.job.manifest import to_json
    from tfprune.job.tables import job_report
    from tfprune.report.page import REPORT
    from tfprune.results import refit_note

    outcome = run(config, command, say)
    result = outcome.result
    made = outcome.manifest
    print(
        to_json(made)
        if config.json
        else job_report(
            result.layers,
            result.skipped,
            outcome.artifacts,
            made["dataset"],
            made["training"],
            failed=outcome.failed,
            others=result.others,
            asked=result.asked,
            notes=(result.layers_note, refit_note(result.refit_kept)),
            # A search says what it tried; the budgets on its way are its own.
            reached=None if config.options.max_drop is not None else result.reached,
            microcontrollers=made.get("microcontrollers"),
        ),
        end="" if config.json else "\n",
        flush=True,
    )
    # What concerns the data was said when the data was read.
    for finding in (one for one in outcome.findings if one.about != "data"):
        print(plain(finding), file=sys.stderr, flush=True)
    names = made["files"]
    folder = Path(config.output)
    say(f"{len(names)} files in {folder}; the report is {folder / REPORT}")
    if outcome.failed:
        count = len(outcome.failed)
        total = count + len(outcome.artifacts)
        say(f"{count} of {total} files were not written; the others are there")
        return PARTIAL
    return 0


def main(argv: Sequence[str] | None = None, name: str = "tfprune export") -> int:
    """Runs the command."""
    return run_command(export, options, argv, name)
