"""Limits on sizes: reads ``sizes.toml`` and amounts such as ``24 KiB`` and ``2%``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.utils.untrusted import LARGEST_INTEGER, read_toml

# Digits of other scripts are none here, and no number is longer than any size.
PERCENT = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\s*")
AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*")
UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}


@dataclass(frozen=True)
class Limits:
    """What a model may become.

    Attributes
    ----------
    max_increase : float
        Percent of the baseline's bytes.
    slack : int
        Bytes; growth fails only beyond both.
    max_drop : float
        Points of accuracy (percent) that may be lost.
    budget : int or None
        Bytes that a file may have at most, whatever the baseline.
    """

    max_increase: float = 2.0
    slack: int = 256
    max_drop: float = 0.2
    budget: int | None = None


@dataclass(frozen=True)
class Rule:
    """One ``[[models]]`` table: limits for the files that a glob matches."""

    match: str
    limits: dict[str, Any]
    line: int | None = None


@dataclass(frozen=True)
class Config:
    """A ``sizes.toml``.

    Attributes
    ----------
    limits : Limits
        For every model that no rule is for.
    rules : tuple of Rule
        The first that matches a model counts.
    allow_removed : bool
    """

    limits: Limits = Limits()
    rules: tuple[Rule, ...] = ()
    allow_removed: bool = False

    def rule_for(self, name: str) -> Rule | None:
        """The rule that counts for a model."""
        return next((rule for rule in self.rules if fnmatchcase(name, rule.match)), None)

    def limits_for(self, name: str) -> Limits:
        """What a model may become."""
        rule = self.rule_for(name)
        return replace(self.limits, **rule.limits) if rule else self.limits

    def dead_rules(self, names: Iterable[str]) -> list[Rule]:
        """Rules that count for none of the models."""
        used = {id(self.rule_for(name)) for name in names}
        return [rule for rule in self.rules if id(rule) not in used]


def percent(text: object) -> float:
    """``2%`` as 2.0; the sign is needed, so that nobody means bytes or a share.

    Raises
    ------
    TfpruneError
    """
    match = PERCENT.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise TfpruneError(f"expected a percentage with its sign, such as 2%, received {text!r}")
    return float(match.group(1))


def amount(value: object) -> int:
    """Bytes of a number or of a text such as ``24 KiB`` (B, KB, MB, KiB, MiB).

    Raises
    ------
    TfpruneError
    """
    if type(value) is int and 0 <= value <= LARGEST_INTEGER:
        return value
    match = AMOUNT.fullmatch(value) if isinstance(value, str) else None
    unit = match.group(2) or "B" if match else ""
    if not match or unit not in UNITS or (unit == "B" and "." in match.group(1)):
        raise TfpruneError(
            f"expected bytes, such as 24000 or '24 KiB' ({', '.join(UNITS)}), received {value!r}"
        )
    return int(float(match.group(1)) * UNITS[unit])


def points(value: object) -> float:
    """Points of accuracy, 0 or more.

    Raises
    ------
    TfpruneError
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 100:
        raise TfpruneError(f"expected points of accuracy from 0 to 100, received {value!r}")
    return number


READERS = {
    "max-increase": percent, "slack": amount, "max-drop": points, "budget": amount,
}  # fmt: skip


def load(path: Path) -> Config:
    """Reads a ``sizes.toml``.

    Raises
    ------
    TfpruneError
        If it cannot be read, or a key or value is not as expected; names line and key.
    """
    tables, text = read_toml(path, f"--config {path}")
    lines = _lines(text)

    def limits(table: dict[str, Any], number: int | None, extra: tuple[str, ...]) -> dict[str, Any]:
        values = {}
        for key, value in table.items():
            where = lines.get((number, key))
            at = f"--config {path}{f', line {where}' if where else ''}: {key}"
            if key in extra:
                continue
            if key not in READERS:
                known = ", ".join([*extra, *READERS])
                raise TfpruneError(f"{at}: unknown key, expected one of {known}")
            try:
                values[key.replace("-", "_")] = READERS[key](value)
            except TfpruneError as error:
                raise TfpruneError(f"{at}: {error}") from None
        return values

    allow = tables.get("allow-removed", False)
    models = tables.get("models", [])
    if not isinstance(allow, bool):
        where = lines.get((None, "allow-removed"))
        raise TfpruneError(
            f"--config {path}, line {where}: allow-removed: expected true or false, "
            f"received {allow!r}"
        )
    if not isinstance(models, list) or not all(isinstance(table, dict) for table in models):
        raise TfpruneError(f"--config {path}: models: expected [[models]] tables")
    rules = []
    for number, table in enumerate(models):
        if not isinstance(table.get("match"), str):
            where = lines.get((number, "[[models]]"))
            raise TfpruneError(
                f"--config {path}, line {where}: match: expected the glob of a [[models]] table"
            )
        line = lines.get((number, "budget")) or lines.get((number, "match"))
        rules.append(Rule(table["match"], limits(table, number, ("match",)), line))
    general = limits(tables, None, ("models", "allow-removed"))
    return Config(Limits(**general), tuple(rules), allow)


def _lines(text: str) -> dict[tuple[int | None, str], int]:
    """The line of every key: (number of its [[models]] table or None, key) -> line from 1."""
    line_numbers: dict[tuple[int | None, str], int] = {}
    table: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*models\s*\]\]", line):
            table = 0 if table is None else table + 1
            line_numbers[table, "[[models]]"] = number
        elif key := re.match(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=", line):
            line_numbers[table, key.group(1)] = number
    return line_numbers


def tightened(text: str, rule_lines: dict[int, int]) -> str:
    """A ``sizes.toml`` with smaller budgets, everything else as it was.

    Parameters
    ----------
    text : str
    rule_lines : dict of int to int
        Line of a ``budget`` -> its new bytes. Its unit is kept, rounded up to hundredths.
    """
    lines = text.splitlines(keepends=True)
    for number, size in rule_lines.items():
        match = re.search(r"(?<==)(\s*)(\"[^\"]*\"|'[^']*'|[0-9_]+)", lines[number - 1])
        if match:
            start, end = match.span(2)
            line = lines[number - 1]
            lines[number - 1] = line[:start] + _same_unit(match.group(2), size) + line[end:]
    return "".join(lines)


def _same_unit(old: str, size: int) -> str:
    quote = old[0] if old[0] in "\"'" else ""
    unit = re.sub(r"[\d._\s\"']", "", old) or "B"
    if unit == "B":
        number = str(size)
    else:
        hundredths = -(-size * 100 // UNITS[unit])
        number = f"{hundredths / 100:g}"
    space = " " if " " in old.strip("\"' ") else ""
    return f"{quote}{number}{space}{unit if quote and unit in old else ''}{quote}"
