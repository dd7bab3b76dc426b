"""``tfprune inspect my.keras --data my.npz``: what is in a model and what could go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfprune.cli.command import main as run_command
from tfprune.utils.escapes import plain, to_json

if TYPE_CHECKING:
    from tfprune.inspection.config import InspectConfig


def options() -> type[InspectConfig]:
    """The table of the options."""
    from tfprune.inspection.config import InspectConfig

    return InspectConfig


def inspect(config: InspectConfig, command: list[str]) -> None:
    """Shows what is in a model and what could go, before anything is done.

    Without data: layers, costs, and which units go together. With --data also how alike units are,
    what the model scores with a part of one group gone, and the command to type next. Writes
    nothing.
    """
    from tfprune.utils.console import quiet
    from tfprune.utils.environment import start_keras

    wanted = config.validate()
    start_keras()
    with quiet():
        from tfprune.inspection.runner import run

    found = run(wanted, command, _say)
    print(to_json(found.to_dict()) if wanted.json else found)


def _say(line: str) -> None:
    lead = "" if line.startswith("WARNING") else "tfprune: "
    print(f"{lead}{plain(line)}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None, name: str = "tfprune inspect") -> int:
    """Runs the command."""
    return run_command(inspect, options, argv, name)
