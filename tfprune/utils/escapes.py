"""Escapes control characters in names from files; standard library only.

The name of a file, a tensor or a layer may be anything: a line break, an escape sequence of a
terminal, a command of a CI system (``::error::``), Markdown or HTML.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

# Control, format (bidirectional ones among them), surrogate and separating characters.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# What has a meaning within a line of Markdown, or makes a link, a mention or a formula.
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|!~&@:$]|(?<=www)[.]")

# What a span of code may hold, in a table as elsewhere.
CODE = re.compile(r"[^\s`|\\](?:[^`|\\]*[^\s`|\\])?")


def plain(text: object) -> str:
    """One line for a terminal or a log of CI, whatever the text holds.

    Characters that cannot be seen are shown as escapes (``\\n``, ``\\u202e``). ``::`` and ``##``
    before a bracket or ``vso`` are broken up, as they begin commands of CI systems.
    """
    shown = visible(text).replace("::", ":\\x3a")
    return re.sub(r"##(?=\[|vso)", r"#\\x23", shown)


def visible(text: object) -> str:
    """The text with its characters that cannot be seen, line breaks among them, as escapes."""
    return "".join(map(_visible, str(text)))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", plain(text))


def code(text: object) -> str:
    """Text as a span of code in Markdown, also in a table.

    What holds characters that could end the span or the cell is shown escaped in place of it.
    """
    shown = plain(text)
    return f"`{shown}`" if CODE.fullmatch(shown) else markdown(text)


def fence(text: str, language: str = "") -> str:
    """Lines as a block of code in Markdown; the lines themselves are made of :func:`plain` text."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def to_json(value: Any) -> str:
    """Indented JSON, with no character that a terminal or a CI system takes for something else.

    Raises
    ------
    ValueError
        If a number in it is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    # Only within strings can these stand, and there an escape means the same.
    return re.sub(r"##(?=\[|vso)", r"#\\u0023", text)
