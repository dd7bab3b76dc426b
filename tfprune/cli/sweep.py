"""``tfprune sweep --model my.keras --data my.npz``: accuracy against bytes, all ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfprune.cli.command import main as run_command

if TYPE_CHECKING:
    from tfprune.sweep.config import SweepConfig

# What an interrupt leaves behind.
LEFT = "what was measured is kept, and the same command goes on from there"


def options() -> type[SweepConfig]:
    """The table of the options."""
    from tfprune.sweep.config import SweepConfig

    return SweepConfig


def sweep(config: SweepConfig, command: list[str]) -> None:
    """Prunes a model in many ways, and draws what each file scores against its bytes.

    Writes sweep.html, sweep.png, sweep.md, sweep.csv and sweep.jsonl, and prints the Pareto set:
    the files that no other beats in both bytes and accuracy on validation data. The same command
    goes on where it was interrupted.
    """
    from tfprune.sweep.grid import grid
    from tfprune.utils.console import quiet, say
    from tfprune.utils.environment import start_keras

    wanted = grid(config)
    start_keras()
    with quiet():
        from tfprune.sweep.runner import run
    from tfprune.job.repeated_command import repeated
    from tfprune.sweep.tables import next_command, to_text

    made = run(wanted, command, say)
    print(to_text(made))
    print(f"\nall files: {wanted.config.output}/sweep.html, sweep.png, sweep.md, sweep.csv")
    without = ("heal", "augment", "round_to", "schemes", "output")
    line = next_command(made, repeated(wanted.config, command, "export", without))
    if line:
        print(f"next, the smallest within a point of the unpruned: {line}")


def main(argv: Sequence[str] | None = None, name: str = "tfprune sweep") -> int:
    """Runs the command."""
    return run_command(sweep, options, argv, name, LEFT)
