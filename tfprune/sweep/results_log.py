"""A log of a sweep's results, a line of JSON each, that survives an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

from tfprune.errors import TfpruneError
from tfprune.sweep.grid import Point
from tfprune.utils.files import write_whole
from tfprune.utils.untrusted import parse_json, read_text

# Of the file of rows.
LARGEST_JOURNAL = 256 * 2**20


@dataclass(frozen=True)
class Row:
    """One file of a sweep, or why there is none.

    Attributes
    ----------
    key : str
        Of all that the figures depend on, see :func:`tfprune.sweep.grid.key`.
    select, amount, unit, fold, refit, heal, augment, round_to
        See :class:`tfprune.sweep.grid.Point`.
    scheme : str
    metric : {"accuracy", "mse", "agreement"}
    validation, test : float or None
        The metric on the part that choices are made on, and on the part that is reported.
    bytes, weights_bytes, parameters, units, units_before : int or None
        Of the file, of its weights; numbers in the model; hidden units of the layers asked for.
    agreement, output_error : float or None
        With the unpruned float model, on the test part.
    weights : str
        Digest of the Keras model's weights: equal ones make equal files.
    sha256 : str
        Of the file.
    reason : str
        Why there is no file, else empty.
    """

    key: str
    select: str
    amount: float | None
    unit: str
    fold: str
    refit: int
    heal: int | str
    scheme: str
    metric: str
    validation: float | None = None
    test: float | None = None
    bytes: int | None = None
    weights_bytes: int | None = None
    parameters: int | None = None
    units: int | None = None
    units_before: int | None = None
    agreement: float | None = None
    output_error: float | None = None
    weights: str = ""
    sha256: str = ""
    reason: str = ""
    augment: bool = False
    round_to: int | None = None

    @property
    def point(self) -> Point:
        """How the model was pruned."""
        return Point(**{field.name: getattr(self, field.name) for field in fields(Point)})

    @property
    def size(self) -> int:
        """The bytes of a row with a file."""
        return self.bytes or 0

    def loss(self, part: str) -> float:
        """The quantity to minimise, on ``validation`` or ``test``; only for rows with a file."""
        value = getattr(self, part)
        return float(value if self.metric == "mse" else 1 - value)


class HasKey(Protocol):
    """A dataclass with a key."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=HasKey)


class JsonLines(Generic[R]):
    """The rows of a file, and the file to add rows to.

    Parameters
    ----------
    path : Path
        Its folder is made for the first row. A last line that was cut off is taken away.
    kind : type
        Of the rows.
    command : str
        Whose rows they are.

    Attributes
    ----------
    rows : dict of str to row
        By their keys.

    Raises
    ------
    TfpruneError
        If it cannot be read or written, or holds something else; names the line.
    """

    def __init__(self, path: Path, kind: type[R], command: str) -> None:
        self._path, self._kind, self._command = path, kind, command
        folder = next(place for place in path.parents if place.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise TfpruneError(f"--output {path.parent}: expected a folder that can be written")
        try:
            text = read_text(path, str(path), LARGEST_JOURNAL) if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                write_whole(path, whole.encode())
        except OSError as error:
            raise TfpruneError(f"{path}: cannot be written ({error.strerror})") from None
        self.rows = {row.key: row for row in self._read(whole)}

    def _read(self, text: str) -> Iterator[R]:
        hints = get_type_hints(self._kind)
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = self._kind(**parse_json(line, f"{self._path}, line {number}"))
                if not all(_fits(getattr(row, key), hint) for key, hint in hints.items()):
                    raise TypeError
                yield row
            except (TfpruneError, TypeError):
                raise TfpruneError(
                    f"{self._path}, line {number}: expected a row of {self._command}; take the "
                    "line out, or choose another --output"
                ) from None

    def append(self, row: R) -> None:
        """Adds a row, at once."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
        self.rows[row.key] = row


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is a string, number, list, dict or None as its hint says, without looking
    into lists and dicts; True for other hints."""
    if get_origin(hint) in (list, dict):
        return isinstance(value, get_origin(hint))
    hints = get_args(hint) or (hint,)
    if not set(hints) <= {str, int, float, bool, NoneType}:
        return True
    if type(value) is int and float in hints:
        return True
    return type(value) in hints


class ResultsLog(JsonLines[Row]):
    """The rows of a sweep."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Row, "tools.sweep")
