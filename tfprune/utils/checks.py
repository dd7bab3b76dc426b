"""Checks of arguments and options; needs no TensorFlow, so that mistakes show at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tfprune.errors import TfpruneError

# A training of so many epochs stops by itself.
AUTO = "auto"


def as_number(value: object) -> float:
    """A value as a float, NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def check_share(share: object, what: str = "remove") -> float:
    """Returns a share as a float.

    Raises
    ------
    TfpruneError
        If it is neither a number in the open interval (0, 1), ``0.5``, nor a percentage as text
        between 0 and 100, ``50%``.
    """
    text = str(share).strip()
    value = as_number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise TfpruneError(
            f"{what}: expected a share between 0 and 1, such as 0.5 or 50%, received {share!r}"
        )
    return value


def check_points(points: object, what: str) -> float:
    """Returns percent points as a float.

    Raises
    ------
    TfpruneError
        If it is not a number in the half-open interval [0, 100).
    """
    value = as_number(points)
    if not 0 <= value < 100:
        raise TfpruneError(
            f"{what}: expected percent points from 0 to 100, such as 0.1, received {points!r}"
        )
    return value


def check_target(amount: object, what: str) -> float:
    """Returns a budget as a share in (0, 1), or as a whole number from 1.

    Raises
    ------
    TfpruneError
        If it is neither a percentage as text, ``50%``, a share, ``0.5``, nor a whole number.
    """
    text = str(amount).strip().replace("_", "").replace(",", "")
    value = as_number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    whole = not text.endswith("%") and 1 <= value < math.inf and value == int(value)
    if not (0 < value < 1 or whole):
        raise TfpruneError(
            f"{what}: expected a share such as 50%, or a whole number from 1, received {amount!r}"
        )
    return value


def check_count(what: str, count: object) -> int:
    """Returns a number of things, at least one.

    Raises
    ------
    TfpruneError
        If it is not a whole number from 1.
    """
    value = as_number(count)
    if not (1 <= value < math.inf and value == int(value)):
        raise TfpruneError(f"{what}: expected a whole number from 1, received {count!r}")
    return int(value)


def check_epochs(what: str, epochs: object) -> int | str:
    """Returns a number of epochs, at least one, or ``auto``.

    Raises
    ------
    TfpruneError
        If it is neither.
    """
    if epochs == AUTO:
        return AUTO
    try:
        return check_count(what, epochs)
    except TfpruneError as error:
        raise TfpruneError(f"{error}; or {AUTO!r}, which stops by itself") from None


def check_rate(rate: object) -> float:
    """Returns a learning rate as a float.

    Raises
    ------
    TfpruneError
        If it is not a number in the half-open interval (0, 1].
    """
    value = as_number(rate)
    if not 0 < value <= 1:
        raise TfpruneError(f"learning_rate: expected a number in (0, 1], received {rate!r}")
    return value


def check_choice(what: str, choice: str, known: Iterable[str]) -> str:
    """Returns a choice that is among the known ones, else raises :class:`TfpruneError`."""
    if choice not in list(known):
        raise TfpruneError(f"{what}: expected one of {', '.join(known)}, received {choice!r}")
    return choice


def text(value: object, what: str) -> str:
    """Returns any text as it is; there is nothing to check."""
    return str(value)


def switch(value: object, what: str) -> bool:
    """Returns ``true`` or ``false`` as a bool.

    Raises
    ------
    TfpruneError
        If it is neither.
    """
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise TfpruneError(f"{what}: expected true or false, received {value!r}")
    return words[str(value).lower()]


def names(value: str | tuple[str, ...], what: str) -> tuple[str, ...]:
    """Returns names, ``A,B``, as a tuple.

    Raises
    ------
    TfpruneError
        If text holds none.
    """
    if not isinstance(value, str):
        return tuple(value)
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    if not words:
        raise TfpruneError(f"{what}: expected names, such as A,B, received {value!r}")
    return words


def whole(least: int, end: int | None = None) -> Callable[[object, str], int]:
    """A check for whole numbers from ``least`` up to, but without, ``end``."""

    def check(value: object, what: str) -> int:
        try:
            number = int(value)  # type: ignore[call-overload]
        except ValueError:
            raise TfpruneError(f"{what}: expected a whole number, received {value!r}") from None
        if number < least or (end is not None and number >= end):
            to = "" if end is None else f" to {end - 1}"
            raise TfpruneError(
                f"{what}: expected a whole number from {least}{to}, received {number}"
            )
        return int(number)

    return check


def choice(known: Iterable[str]) -> Callable[[str, str], str]:
    """A check for one of several words."""
    return lambda value, what: check_choice(what, value, known)
