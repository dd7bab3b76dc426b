"""Reads the configuration in a model file as bounded data, without building anything."""

from __future__ import annotations

import json
from typing import Any

from tfprune.errors import TfpruneError

# Bytes. A vocabulary of a million words in a configuration takes about 15 MB.
MOST_BYTES = 32 * 2**20
# Keras writes five levels for each model inside another.
MOST_LEVELS = 200
# Larger whole numbers are no size of anything.
LARGEST = 2**63


def parsed(data: bytes | str, what: str) -> Any:
    """JSON as Keras writes it.

    Parameters
    ----------
    data : bytes or str
        UTF-8.
    what : str
        What it is, for messages.

    Returns
    -------
    Any
        Of dict, list, str, float, int, bool and None.

    Raises
    ------
    TfpruneError
        If it is no JSON, too large, nested too deep, names a key twice or has numbers that are no
        sizes.
    """
    if len(data) > MOST_BYTES:
        raise TfpruneError(f"its {what} has {len(data):,} bytes, expected at most {MOST_BYTES:,}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        raise TfpruneError(f"its {what} is not UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise TfpruneError(f"its {what} is nested more than {MOST_LEVELS} levels deep") from None
    except ValueError as error:  # Not JSON, or a whole number of thousands of digits.
        raise TfpruneError(f"its {what} is no JSON that Keras writes: {error}") from None
    check_bounds(value, what)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses JSON objects with a key twice, which readers could understand differently."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one place")
    return value


def check_bounds(value: Any, what: str) -> None:
    """Raises :class:`TfpruneError` if a value is nested too deep or has absurd whole numbers."""
    level, values = 0, [value]
    while values:
        level += 1
        if level > MOST_LEVELS:
            raise TfpruneError(f"its {what} is nested more than {MOST_LEVELS} levels deep")
        inner: list[Any] = []
        for item in values:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and not -LARGEST <= item < LARGEST:
                raise TfpruneError(f"its {what} has a number of {len(str(item))} digits")
        values = inner
