"""``tfprune reproduce STUDY``: a study's experiments, published figures beside ours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfprune.cli.command import main as run_command
from tfprune.utils.escapes import plain

if TYPE_CHECKING:
    from tfprune.studies.config import StudyConfig
    from tfprune.studies.study import Study

# What an interrupt leaves behind.
LEFT = "finished runs are kept, and the same command goes on from there"


def options() -> type[StudyConfig]:
    """The table of the options."""
    from tfprune.studies.config import StudyConfig

    return StudyConfig


def reproduce(config: StudyConfig, command: list[str]) -> None:
    """Repeats a study of MNIST, and shows published and measured figures side by side.

    Writes OUTPUT/STUDY/results.md, results.json, results.jsonl and the study's figures. The same
    command goes on where it was interrupted.
    """
    from tfprune.studies import study as studies
    from tfprune.utils.option_table import checked
    from tfprune.workers.asked import check_asked

    config = checked(config)
    check_asked(config.workers, config.cluster)
    if config.list:
        for name, title, counts in studies.listing():
            said = ", ".join(f"{count} {what}" for what, count in counts.items())
            print(f"{name:8} {title.partition(': ')[2]} ({said})")
        return
    names = studies.NAMES if config.study == "all" else (studies.check_name(config.study),)
    wanted = [studies.load(name, config.quick, config.runs) for name in names]
    _start(wanted, config, command)


def _start(wanted: Sequence[Study], config: StudyConfig, command: list[str]) -> None:
    from pathlib import Path

    from tfprune.utils.console import quiet
    from tfprune.utils.environment import start_keras

    start_keras()
    with quiet():
        from tfprune.studies.data import find_data
        from tfprune.studies.runner import run
    from tfprune.studies.tables import cut_table, table
    from tfprune.workers.pool import open_workers

    with open_workers(config.workers, config.cluster, _say) as pool:
        if pool is not None:
            pool.prepare()
        found = find_data(config.data, config.seed, _say)
        for study in wanted:
            folder = Path(config.output) / study.name
            made = run(
                study, found, folder, seed=config.seed, say=_say, command=command, pool=pool,
                path=config.data,
            )  # fmt: skip
            print(f"\n{study.title}{', A QUICK RUN' if study.quick else ''}, on {found.name}\n")
            print(table(made, "simple"))
            cut = cut_table(made, "simple")
            print(f"\n{cut}" if cut else "", end="\n" if cut else "")
            print(f"\nall of it, with figures: {folder}/results.md", flush=True)


def _say(line: str) -> None:
    print(f"tfprune: {plain(line)}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None, name: str = "tfprune reproduce") -> int:
    """Runs the command."""
    return run_command(reproduce, options, argv, name, LEFT)
