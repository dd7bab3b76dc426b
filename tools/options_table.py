"""``python -m tools.options_table``: writes docs/options.md from the tables of options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfprune.inspection.config import InspectConfig
from tfprune.job.config import JobConfig
from tfprune.studies.config import StudyConfig
from tfprune.sweep.config import SweepConfig
from tfprune.utils.option_table import grouped

if TYPE_CHECKING:
    from tfprune.utils.option_table import Table

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
TABLES = {
    "inspect": InspectConfig, "export": JobConfig, "sweep": SweepConfig, "reproduce": StudyConfig,
}  # fmt: skip


def page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Options of the commands",
        "",
        "Made by `python -m tools.options_table`; a test compares it with what the commands know.",
        "Values stand behind a space or `=`; switches have none.",
        "",
    ]
    for name, table in TABLES.items():
        lines += [f"## `{name}`", "", *_groups(table)]
    return "\n".join(lines)


def _groups(table: type[Table]) -> Iterator[str]:
    for group, members in grouped(table).items():
        yield from (f"### {group}", "", "| option | default | |", "| --- | --- | --- |")
        for option in members:
            usage = f"`{option.listed}`".replace("|", r"\|")
            default = f"`{option.default_text}`" if option.default_text else ""
            yield f"| {usage} | {default} | {option.help} |"
        yield ""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
