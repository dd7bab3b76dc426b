"""Reads text, JSON and TOML that a stranger may have written; standard library only.

Everything that can go wrong raises :class:`TfpruneError`: no file makes a reader wait, run out of
memory or fail in another way.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from tfprune.errors import TfpruneError

# Manifests and configurations have kilobytes.
LARGEST = 16 * 2**20
# Tables and lists within each other.
DEEPEST = 64
# The largest integer that 64 bits hold: no size, count or seed is larger.
LARGEST_INTEGER = 2**63 - 1

# Windows has no O_NONBLOCK, and takes files for text without O_BINARY.
READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_bytes(path: Path, called: str, largest: int = LARGEST) -> bytes:
    """A regular file's content.

    Parameters
    ----------
    path : Path
    called : str
        How messages begin, such as ``--config sizes.toml``.
    largest : int
        Bytes that it may have.

    Raises
    ------
    TfpruneError
        If it is missing, no regular file (a pipe would be waited for), or larger.
    """
    try:
        # Without waiting for a writer, should it be a pipe.
        descriptor = os.open(path, READING)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = b"" if not regular else _content(descriptor, largest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise TfpruneError(f"{called}: cannot be read ({error.strerror})") from None
    except ValueError:  # A NUL character in its name.
        raise TfpruneError(f"{called}: expected the name of a file") from None
    if not regular:
        raise TfpruneError(f"{called}: expected a regular file, received something else")
    if len(content) > largest:
        raise TfpruneError(f"{called}: expected at most {largest:,} bytes, received more")
    return content


def _content(descriptor: int, most: int) -> bytes:
    parts, left = [], most
    while left and (part := os.read(descriptor, min(left, 2**20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_text(path: Path, called: str, largest: int = LARGEST) -> str:
    """A regular file's content as UTF-8; parameters and errors as of :func:`read_bytes`."""
    try:
        return read_bytes(path, called, largest).decode()
    except UnicodeDecodeError as error:
        raise TfpruneError(f"{called}: expected UTF-8, received other bytes ({error})") from None


def read_json(path: Path, called: str, largest: int = LARGEST) -> Any:
    """What a file of JSON says; errors of :func:`read_text` and :func:`parse_json`."""
    return parse_json(read_text(path, called, largest), called)


def parse_json(text: str, called: str) -> Any:
    """What JSON says.

    Raises
    ------
    TfpruneError
        If it is none, holds NaN, infinity, an integer over 64 bits or a key twice, or is nested
        deeper than 64.
    """

    def fail(reason: str) -> NoReturn:
        raise TfpruneError(f"{called}: expected JSON, {reason}")

    def constant(name: str) -> NoReturn:
        fail(f"received {name}, which JSON does not have")

    def integer(digits: str) -> int:
        if len(digits) > 20 or abs(int(digits)) > LARGEST_INTEGER:
            fail(f"received an integer of {len(digits)} digits")
        return int(digits)

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            fail("received a number that is too large")
        return value

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            fail("received a key twice")
        return made

    try:
        value = json.loads(
            text, parse_constant=constant, parse_int=integer, parse_float=number,
            object_pairs_hook=table,
        )  # fmt: skip
    except TfpruneError:
        raise
    except RecursionError:
        fail(f"received one nested deeper than {DEEPEST}")
    except ValueError as error:
        fail(f"cannot read it ({error})")
    if _depth(value) > DEEPEST:
        fail(f"received one nested deeper than {DEEPEST}")
    return value


def read_toml(path: Path, called: str) -> tuple[dict[str, Any], str]:
    """What a file of TOML says, and its text.

    Raises
    ------
    TfpruneError
        As :func:`read_text`; if it is none, holds NaN, infinity or an integer over 64 bits, or is
        nested deeper than 64.
    """
    text = read_text(path, called)

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise TfpruneError(f"{called}: expected finite numbers, received {digits[:20]}")
        return value

    try:
        tables = tomllib.loads(text, parse_float=number)
    except TfpruneError:
        raise
    except RecursionError:
        raise TfpruneError(f"{called}: expected TOML, received one nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits.
        raise TfpruneError(f"{called}: expected a TOML file ({error})") from None
    if _depth(tables) > DEEPEST:
        raise TfpruneError(f"{called}: expected TOML, received one nested deeper than {DEEPEST}")
    if not _integers_fit(tables):
        raise TfpruneError(f"{called}: expected integers of at most 64 bits, received a larger one")
    return tables, text


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _depth(value: Any) -> int:
    """How many tables and lists lie within each other; without recursion."""
    depth, level = 0, [value]
    while level:
        level = [child for item in level for child in _children(item)]
        depth += 1
    return depth


def _integers_fit(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, int) and abs(item) > LARGEST_INTEGER:
            return False
        waiting += _children(item)
    return True


def plain_name(name: str, suffix: str = "") -> bool:
    """Whether a manifest's name of a file stays within the manifest's folder.

    Parameters
    ----------
    name : str
        A path with forward slashes.
    suffix : str
        How it has to end.
    """
    parts = name.split("/")
    return (
        name.endswith(suffix)
        and "\\" not in name
        and "\0" not in name
        and ":" not in parts[0][1:2]  # A drive of Windows.
        and not any(part in ("", ".", "..") for part in parts)
        and len(name) <= 4096
        # What file systems allow for a name.
        and all(len(part.encode(errors="replace")) <= 255 for part in parts)
    )


def inside(path: Path, folder: Path) -> bool:
    """Whether a path stays within a folder once all symbolic links are followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # Links in a circle; a NUL in the name.
        return False
