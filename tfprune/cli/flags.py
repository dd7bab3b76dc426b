"""A command line, read by fire into the fields of a table of options, and the table's help.

Fire takes unknown words for members, shorthands, separators and switches, and complains about what
it could not use when the work is done. So every word is first put as ``--name=value``, which fire
reads in one way only; and what it fills is the table, which does no work.
"""

from __future__ import annotations

import difflib
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfprune.errors import TfpruneError
from tfprune.utils.option_table import Option, grouped, options

if TYPE_CHECKING:
    from tfprune.utils.option_table import Table

WIDEST = 100
HELP = ("--help", "-h")


def read(table: type[Table], words: Sequence[str], name: str) -> Table:
    """A table with the values of a command line: as text, unchecked.

    Raises
    ------
    TfpruneError
        If a word is not a flag or its value, a flag is given twice, or a value is missing.
    """
    import fire
    from fire.decorators import SetParseFn

    component = SetParseFn(str)(table)
    # What fire would print of its result is not wanted.
    read: Table = fire.Fire(component, _spelled(table, words), name, serialize=lambda _: None)
    return read


def _spelled(table: type[Table], words: Sequence[str]) -> list[str]:
    """Every flag with its value as one word, ``--name=value``."""
    known = {one.flag: one for one in options(table)}
    bare = next((one for one in known.values() if one.bare), None)
    left, values = list(words), dict[str, str]()
    while left:
        word = left.pop(0)
        typed, equals, value = word.partition("=")
        option = known.get(f"--{typed.removeprefix('--').replace('_', '-')}")
        if bare is not None and bare.name not in values and not word.startswith("-"):
            values[bare.name] = word
            continue
        if not typed.startswith("--") or option is None:
            raise TfpruneError(_complaint(word, list(known.values())))
        if option.name in values:
            raise TfpruneError(f"{option.flag}: given twice")
        if not equals:
            value = _value(option, left)
        if not value:
            raise TfpruneError(f"{option.flag}: expected a value, received none")
        values[option.name] = value
    return [f"--{name}={value}" for name, value in values.items()]


def _value(option: Option, left: list[str]) -> str:
    """The value of a flag without ``=``: the next word, which is taken off; empty without one."""
    follows = bool(left) and not left[0].startswith("--")
    if option.switch and not (follows and left[0].lower() in ("true", "false")):
        return "true"
    return left.pop(0) if follows else ""


def _complaint(word: str, known: Sequence[Option]) -> str:
    flags = [option.flag for option in known]
    # Path.exists fails on a word that is too long for a name.
    if os.path.exists(word):  # noqa: PTH110
        return f"stray word {word!r}; a pattern of files is quoted: --data 'shards/*.npz'"
    if not word.startswith("--") or word == "--":
        return f"stray word {word!r}; expected flags: {', '.join(flags)}"
    typed = word.split("=", maxsplit=1)[0].replace("_", "-")
    near = difflib.get_close_matches(typed, flags, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(flags)}"
    return f"unknown flag {word}{hint}"


def help_text(table: type[Table], about: str, usage: str) -> str:
    """What ``--help`` says: the usage, what the command does, and its options by subject.

    Parameters
    ----------
    table : type
        See :mod:`tfprune.utils.option_table`.
    about : str
        What the command does, as in the docstring of a function.
    usage : str
        How the command is typed, without its flags.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    first, _, rest = about.strip().partition("\n")
    paragraphs = [first, *textwrap.dedent(rest).strip().split("\n\n")]
    words = [usage, "[flags]"]
    for one in [one for one in options(table) if one.bare]:
        words.insert(1, f"[{one.metavar}]" if one.default else one.metavar)
    lines = [f"Usage: {' '.join(words)}", ""]
    for paragraph in filter(None, paragraphs):
        lines += [*textwrap.wrap(paragraph, width), ""]
    for group, members in grouped(table).items():
        lines.append(f"{group}:")
        for option in members:
            default = f" (default: {option.default_text})" if option.default_text else ""
            lines.append(f"  {option.listed}")
            indent = " " * 6
            lines += textwrap.wrap(
                option.help + default, width, initial_indent=indent, subsequent_indent=indent,
                break_on_hyphens=False, break_long_words=False,
            )  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip()
