"""``tfprune inspect my.keras --data my.npz``: what is in a model and what could go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.cli.command import main as run_command
from tfprune.utils.escapes import to_json

if TYPE_CHECKING:
    from tfprune.inspection.config import InspectConfig
    from tfprune.inspection.result import Inspection


def options() -> type[InspectConfig]:
    """The table of the options."""
    from tfprune.inspection.config import InspectConfig

    return InspectConfig


def inspect(config: InspectConfig, command: list[str]) -> None:
    """Shows what is in a model and what could go, before anything is done.

    Without data: layers, costs, and which units go together. With --data also how alike units are,
    what the model scores with a part of one group gone, and the command to type next. Writes
    nothing but the file that --out names.
    """
    from tfprune.utils.console import quiet, say
    from tfprune.utils.environment import start_keras

    wanted = config.validate()
    start_keras()
    with quiet():
        from tfprune.inspection.runner import run

    found = run(wanted, command, say)
    if wanted.out is not None:
        _write(found, Path(wanted.out))
    print(to_json(found.to_dict()) if wanted.json else _shown(str(found)))


def _write(found: Inspection, path: Path) -> None:
    """What was found, as a page or a picture by the ending of its name."""
    from tfprune.utils.console import say
    from tfprune.utils.files import write_whole

    if path.suffix == ".html":
        data = found.to_html().encode()
    elif found.measured is None:
        say(f"WARNING: {path} is not written: no group of units was measured")
        return
    else:
        stream = BytesIO()
        found.plot().savefig(stream, format=path.suffix[1:], dpi=120)
        data = stream.getvalue()
    write_whole(path, data)


def _shown(text: str) -> str:
    """Text with blocks that stdout knows."""
    from tfprune.inspection.text import ASCII

    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return text.translate(ASCII)
    return text


def main(argv: Sequence[str] | None = None, name: str = "tfprune inspect") -> int:
    """Runs the command."""
    return run_command(inspect, options, argv, name)
