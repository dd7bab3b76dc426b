"""``tfprune compare``: fails when a model became bigger or worse than its limits allow.

Needs the standard library alone, so that it starts at once anywhere; hence argparse, not fire.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tfprune.cli.command import guarded, program
from tfprune.errors import TfpruneError

if TYPE_CHECKING:
    from tfprune.gate import limits as budgets
    from tfprune.gate.comparison import Comparison

PASS, FAIL = 0, 1
# The format that needs more than the standard library: Jinja2.
HTML = "html"


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise TfpruneError(message)


def parser(name: str) -> argparse.ArgumentParser:
    """The flags."""
    from tfprune.gate.formats import FORMATS

    made = _Parser(
        prog=" ".join(program(name)),
        allow_abbrev=False,
        description="Compares the sizes of two sets of .tflite files, and fails beyond the limits.",
        epilog="Exit codes: 0 pass, 1 a limit is broken, 2 wrong usage or unreadable files.",
    )
    made.add_argument("--baseline", type=Path, help="manifest.json or folder of .tflite files")
    made.add_argument("--candidate", type=Path, help="the same, to be judged")
    made.add_argument("--config", type=Path, help="sizes.toml with limits and budgets")
    made.add_argument("--max-increase", help="growth in percent that may pass, 2%% by default")
    made.add_argument("--slack", help="growth that always passes, 256 bytes by default")
    made.add_argument("--max-drop", help="points of accuracy that may be lost, 0.2 by default")
    made.add_argument("--allow-removed", action="store_true", help="a missing model passes")
    made.add_argument("--format", choices=[*FORMATS, HTML], default="table")
    made.add_argument("--output", type=Path, help="write there in place of stdout")
    made.add_argument("--all", action="store_true", help="show unchanged models too")
    made.add_argument("--why", action="store_true", help="show where the bytes are")
    made.add_argument(
        "--update",
        action="store_true",
        help="make the candidate the baseline, and tighten budgets where models shrank",
    )
    made.add_argument("--history", type=Path, help="JSON lines file to append this run to")
    made.add_argument(
        "--plot", action="store_true", help="draw --history to --output (a .png), nothing else"
    )
    return made


def main(argv: Sequence[str] | None = None, name: str = "tfprune compare") -> int:
    """Runs the command; returns its exit code."""

    def call() -> int:
        try:
            return _run(parser(name).parse_args(argv), name)
        except (TfpruneError, OSError, MemoryError):
            raise
        except Exception as error:  # Exit code 1 would say that a limit is broken.
            told = f"{type(error).__name__}: {error}"
            raise TfpruneError(f"unexpected {told}; please report it") from None

    return guarded(call, name)


def _run(flags: argparse.Namespace, name: str) -> int:
    from tfprune.gate.baseline import folder_of, is_new
    from tfprune.gate.comparison import compare
    from tfprune.gate.formats import FORMATS, why
    from tfprune.gate.sizes import read_side
    from tfprune.output_folder.staging import finish
    from tfprune.utils.escapes import fence, plain

    if flags.plot:
        return _plot(flags)
    for needed in ("baseline", "candidate"):
        if getattr(flags, needed) is None:
            raise TfpruneError(f"--{needed}: expected a manifest or a folder, received none")
    if flags.why and flags.format not in ("table", "markdown"):
        raise TfpruneError(f"--why: expected --format table or markdown, received {flags.format}")
    for flag in ("history", "output"):
        path = getattr(flags, flag)
        if path is not None and (not path.name or (path.exists() and not path.is_file())):
            raise TfpruneError(f"--{flag} {path}: expected the name of a file")
    if flags.update:
        finish(folder_of(flags.baseline), "--baseline")
    config = _config(flags)
    candidate = read_side(flags.candidate, "--candidate")
    first = flags.update and is_new(flags.baseline)
    baseline = candidate if first else read_side(flags.baseline, "--baseline")
    comparison = compare(baseline, candidate, config)
    text = (FORMATS.get(flags.format) or _page)(comparison, flags.all)
    if flags.why:
        inside = why(baseline, candidate)
        text += f"\n\n{fence(inside)}\n" if flags.format == "markdown" else f"\n\n{inside}"
    _put(flags, text)
    for warning in comparison.warnings:
        print(f"{name}: warning: {plain(warning)}", file=sys.stderr)
    if flags.history:
        from tfprune.gate.history import append

        append(flags.history, candidate)
    if flags.update:
        return _update(flags, config, name)
    return FAIL if comparison.failed else PASS


def _config(flags: argparse.Namespace) -> budgets.Config:
    """The limits of the file, with those of the command line over its general ones."""
    from tfprune.gate import limits as budgets

    config = budgets.load(flags.config) if flags.config else budgets.Config()
    given: dict[str, Any] = {}
    for key, reader in budgets.READERS.items():
        value = getattr(flags, key.replace("-", "_"), None)
        if value is None:
            continue
        try:
            given[key.replace("-", "_")] = reader(value)
        except TfpruneError as error:
            raise TfpruneError(f"--{key}: {error}") from None
    return replace(
        config,
        limits=replace(config.limits, **given),
        allow_removed=config.allow_removed or flags.allow_removed,
    )


def _put(flags: argparse.Namespace, text: str) -> None:
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if flags.format == "markdown" and summary:
        with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    if flags.output is None:
        print(text)
        return
    from tfprune.utils.files import write_whole

    write_whole(flags.output, (text + "\n").encode(errors="backslashreplace"))
    print(f"written to {flags.output}", file=sys.stderr)


def _page(comparison: Comparison, everything: bool) -> str:
    from tfprune.report.comparison_page import comparison_page

    return comparison_page(comparison, everything)


def _update(flags: argparse.Namespace, config: budgets.Config, name: str) -> int:
    from tfprune.gate.baseline import update
    from tfprune.utils.escapes import plain

    for line in update(flags.baseline, flags.candidate, flags.config, config):
        print(f"{name}: {plain(line)}", file=sys.stderr)
    return PASS


def _plot(flags: argparse.Namespace) -> int:
    if flags.history is None or flags.output is None:
        raise TfpruneError("--plot: expected --history FILE.jsonl and --output FILE.png")
    from tfprune.gate.history import plot

    plot(flags.history, flags.output)
    return PASS
