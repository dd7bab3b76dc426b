"""A command line read by fire, checked before any work starts.

Fire alone runs a function first and only then complains about words that it could not use.
Here it only collects the flags; the work starts when the whole line has been understood.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import fire
from fire.core import FireExit
from fire.decorators import SetParseFn

from tfprune.errors import TfpruneError


def collect(work: Callable[..., Any], argv: Sequence[str], name: str) -> dict[str, Any] | None:
    """The flags of a command line, by the types of a function's parameters.

    Returns
    -------
    dict or None
        None if help was asked for, and shown.

    Raises
    ------
    TfpruneError
        If a flag is unknown, a word stray, or a value of another type.
    """
    if not {"--help", "-h"} & set(argv):
        _check_words(work, argv)
    given: dict[str, Any] = {}

    # Not functools.wraps: fire would follow it to the real function.
    def gather(**flags: str) -> None:
        given.update(flags)

    gather.__signature__ = _as_text(work)  # type: ignore[attr-defined]
    gather.__doc__ = work.__doc__
    gather.__name__ = work.__name__
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stderr(spoken), contextlib.redirect_stdout(spoken):
            fire.Fire(SetParseFn(str)(gather), list(argv), name=name)
    except FireExit as exit_:
        if not exit_.code:
            print(_help(spoken.getvalue(), name))
            return None
        raise TfpruneError(f"cannot read the command line {' '.join(argv)}") from None
    hints = typing.get_type_hints(work)
    return {flag: convert(flag, value, hints[flag]) for flag, value in given.items()}


def _as_text(work: Callable[..., Any]) -> inspect.Signature:
    """The signature with every parameter's type a text, as it was typed."""
    signature = inspect.signature(work)
    return signature.replace(
        parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
        return_annotation=signature.empty,
    )


def _complaint(word: str, work: Callable[..., Any]) -> str:
    flags = [f"--{flag}" for flag in inspect.signature(work).parameters]
    if not word.startswith("--") or word == "--":
        return f"stray word {word!r}; expected flags: {', '.join(flags)}"
    near = difflib.get_close_matches(word.split("=", maxsplit=1)[0], flags, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(flags)}"
    return f"unknown flag {word}{hint}"


def _check_words(work: Callable[..., Any], argv: Sequence[str]) -> None:
    """Refuses what fire would take for something else: shorthands, separators, members.

    Raises
    ------
    TfpruneError
        If a word is not a flag or its value, a flag is given twice, or a value is missing.
    """
    hints = typing.get_type_hints(work)
    words = list(argv)
    seen = set()
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        flag = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or flag not in hints or flag == "return":
            raise TfpruneError(_complaint(word, work))
        if flag in seen:
            raise TfpruneError(f"--{flag}: given twice")
        seen.add(flag)
        switch = hints[flag] is bool
        if not equals and words and (not switch or words[0].lower() in ("true", "false")):
            value = words.pop(0) if not words[0].startswith("--") else ""
        if not value and not (switch and not equals):
            raise TfpruneError(f"--{flag}: expected a value, received none")


def _help(spoken: str, name: str) -> str:
    """Fire's help without what it says of its own workings."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", spoken)
    text = text[max(text.find("NAME"), 0) :].split("\nGROUPS")[0]
    # Short forms are refused, so they are not offered.
    text = re.sub(r"(?m)^( +)-\w, (?=--)", r"\1", text)
    text = re.sub(r"(?m)^ +Type: Optional\[\]\n", "", text)
    return text.replace(f"{name} GROUP |", f"python -m {name}").rstrip()


def convert(flag: str, value: str, kind: Any) -> Any:
    """A flag's text as its type.

    Raises
    ------
    TfpruneError
        If it is not one.
    """
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    wanted = next(option for option in options if option is not types.NoneType)
    if typing.get_origin(wanted) is tuple:
        names = tuple(word.strip() for word in value.split(",") if word.strip())
        if not names:
            raise TfpruneError(f"--{flag}: expected names, such as A,B, received {value!r}")
        return names
    if wanted is bool:
        if value.lower() not in ("true", "false"):
            raise TfpruneError(f"--{flag}: expected true or false, received {value!r}")
        return value.lower() == "true"
    if wanted is str:
        return value
    try:
        return wanted(value)
    except ValueError:
        name = {int: "a whole number", float: "a number"}.get(wanted, wanted.__name__)
        raise TfpruneError(f"--{flag}: expected {name}, received {value!r}") from None
