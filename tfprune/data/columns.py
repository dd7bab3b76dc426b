"""Reads samples from the columns of ``.csv`` and ``.parquet`` files, a row each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.archives import ALWAYS, RATIO
from tfprune.utils.arrays import Array

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
# Between the columns of a .csv, if there is no comma in its first line.
SEPARATORS = (";", "\t")
# Columns and classes that are named in a message or note.
NAMED = 10


@dataclass(frozen=True)
class Table:
    """Samples from the columns of a table.

    Attributes
    ----------
    x : array of shape (rows, columns)
    y : array of shape (rows,) or None
    classes : tuple of str
        What labels were that came as text, in the order of their numbers.
    notes : tuple of str
        What the user should know of how the columns were read.
    """

    x: Array
    y: Array | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_tables(paths: Sequence[Path], label: str | None) -> Table:
    """Reads the rows of one file, or of several with the same columns.

    Parameters
    ----------
    paths : sequence of Path
    label : str or None
        The column that holds labels, by its name or, counted from 0, by its number.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or a value is no number.
    """
    frames: list[pd.DataFrame] = []
    notes, names, place = list[str](), list[str](), None
    for path in paths:
        frame, named, said = _frame(path)
        if frames and [str(c) for c in frame.columns] != names:
            raise TfpruneError(
                f"{path}: expected the columns of {paths[0]} ({_listed(names)}), received "
                f"{_listed(list(map(str, frame.columns)))}"
            )
        names = [str(column) for column in frame.columns]
        place = None if label is None else _place(path, names, named, label)
        frames.append(frame)
        notes += [note for note in said if note not in notes]
    x = np.concatenate([_numbers(p, f, place) for p, f in zip(paths, frames, strict=True)])
    y, classes = None, tuple[str, ...]()
    if place is not None:
        y, classes = _labels(paths, [frame.iloc[:, place] for frame in frames])
        notes.append(f"labels: column {names[place]!r}")
        if classes:
            shown = ", ".join(f"{n} {name!r}" for n, name in enumerate(classes[:NAMED]))
            more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
            notes.append(f"labels are text, sorted into {len(classes)} classes: {shown}{more}")
    return Table(x, y, classes, tuple(notes))


def _frame(path: Path) -> tuple[pd.DataFrame, bool, list[str]]:
    """The table of a file, whether its columns have names, and what is to be said."""
    if not path.exists():
        raise TfpruneError(f"{path}: no such file")
    if not path.is_file():
        raise TfpruneError(f"{path}: expected a readable file, received a folder or a pipe")
    try:
        frame, named, notes = (
            (_parquet(path), True, []) if path.suffix.lower() == ".parquet" else _csv(path)
        )
    except TfpruneError:
        raise
    except ImportError as error:
        raise TfpruneError(f"{path}: needs {error.name}: pip install pandas pyarrow") from None
    except Exception as error:  # Damaged and foreign files fail in pandas or pyarrow, anyhow.
        said = " ".join(str(error).split())[:200] or type(error).__name__
        kind = path.suffix.lower()
        raise TfpruneError(f"{path}: expected a readable {kind} file ({said})") from None
    if not len(frame) or not len(frame.columns):
        raise TfpruneError(f"{path}: expected at least one sample, received none")
    return frame, named, notes


def _csv(path: Path) -> tuple[pd.DataFrame, bool, list[str]]:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        separator = next((s for s in SEPARATORS if "," not in line and s in line), ",")
    how: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig", "compression": None}
    # A file that is opened here is never taken for an address.
    with path.open("rb") as file:
        top = pd.read_csv(file, header=None, nrows=2, dtype=str, keep_default_na=False, **how)
    named = _has_header(top.values.tolist())
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            file, header=0 if named else None, low_memory=False, index_col=False, **how
        )
    notes = ["no header: columns go by their numbers, from 0"] if not named else []
    if named and top.iloc[0, 0].strip() == "" and len(frame.columns) > 1:
        frame = frame.iloc[:, 1:]
        notes.append("first column not used: it has no name, as the numbers of rows have none")
    return frame, named, notes


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: text stands where the next row has a number."""
    first = rows[0]
    numbers = [_is_number(cell) for cell in first]
    if first == [str(n) for n in range(len(first))] and len(first) > 2:
        return True
    if len(rows) < 2 or not any(numbers):
        return not any(numbers)
    below = [_is_number(cell) for cell in rows[1]]
    return any(not up and down for up, down in zip(numbers, below, strict=True))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    size = path.stat().st_size
    with path.open("rb") as handle, parquet.ParquetFile(handle) as file:
        about, schema = file.metadata, file.schema_arrow
        nested = [f.name for f in schema if pa.types.is_nested(f.type)]
        if nested:
            raise TfpruneError(f"{path}: expected numbers, column {nested[0]!r} holds lists")
        groups = [about.row_group(n).total_byte_size for n in range(about.num_row_groups)]
        unpacked = max(sum(groups), 8 * about.num_rows * max(about.num_columns, 1))
        if min(groups, default=0) < 0 or unpacked > max(ALWAYS, RATIO * size):
            raise TfpruneError(f"{path}: {size:,} bytes that unpack to {unpacked:,}, refused")
        return file.read().to_pandas(ignore_metadata=True)


def _place(path: Path, names: Sequence[str], named: bool, label: str) -> int:
    """The number of the column that a label option means."""
    if named and label in names:
        return list(names).index(label)
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return int(label)
    known = f"columns 0 to {len(names) - 1}, without names" if not named else _listed(names)
    raise TfpruneError(f"--label {label}: {path} has no such column; it has {known}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _numbers(path: Path, frame: pd.DataFrame, place: int | None) -> Array:
    """All columns but that of the labels: whole numbers, or float32."""
    import pandas as pd

    columns = [n for n in range(len(frame.columns)) if n != place]
    if not columns:
        raise TfpruneError(f"{path}: expected columns beside the label, received none")
    made = []
    for number in columns:
        column = frame.iloc[:, number]
        values = pd.to_numeric(column, errors="coerce") if not _numeric(column) else column
        missing = np.flatnonzero(values.isna().to_numpy())
        if len(missing):
            row = int(missing[0])
            cell = column.iloc[row]
            what = "nothing" if pd.isna(cell) else f"{str(cell)[:40]!r}"
            raise TfpruneError(
                f"{path}: row {row + 1}, column {str(frame.columns[number])!r}: expected a number, "
                f"received {what}" + _advice(what)
            )
        made.append(values.to_numpy())
    whole = all(values.dtype.kind in "iub" for values in made)
    small = whole and all(abs(int(edge)) < 2**31 for v in made for edge in (v.min(), v.max()))
    kind = np.int32 if small else np.int64 if whole else np.float32
    with np.errstate(over="ignore"):
        return np.stack([values.astype(kind) for values in made], axis=1)


def _advice(what: str) -> str:
    if what == "nothing":  # pandas takes n/a, NaN, null and the like for an empty cell.
        return "; fill it in or leave the row out (words such as n/a count as nothing)"
    return "; a column of labels is named by --label"


def _numeric(column: pd.Series[Any]) -> bool:
    return getattr(column.dtype, "kind", "O") in "iufb"


def _labels(
    paths: Sequence[Path], columns: Sequence[pd.Series[Any]]
) -> tuple[Array, tuple[str, ...]]:
    """The labels as numbers, and what text they were."""
    import pandas as pd

    for path, column in zip(paths, columns, strict=True):
        missing = np.flatnonzero(column.isna().to_numpy())
        if len(missing):
            raise TfpruneError(
                f"{path}: row {missing[0] + 1}, column {str(column.name)!r}: expected a label, "
                "received nothing"
            )
    whole = pd.concat(list(columns), ignore_index=True)
    if _numeric(whole):
        return whole.to_numpy(), ()
    text = whole.astype(str).to_numpy(dtype=str)
    classes, y = np.unique(text, return_inverse=True)
    return y.astype(np.int64), tuple(map(str, classes))
