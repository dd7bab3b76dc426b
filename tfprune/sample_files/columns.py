"""Reads samples from the columns of ``.csv`` and ``.parquet`` files, a row each."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.archives import ALWAYS, RATIO
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import Held, Scratch

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
# Between the columns of a .csv, if there is no comma in its first line.
SEPARATORS = (";", "\t")
DECIMAL_COMMA = re.compile(r"'[+-]?\d+,\d+'")
# Columns and classes that are named in a message or note.
NAMED = 10
# Bytes of a number in a table, and those of the rows that are read at once.
NUMBER, PART = 8, 2**25


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
    counts : tuple of int
        Rows of each file.
    """

    x: Array
    y: Array | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    counts: tuple[int, ...]


def read_tables(paths: Sequence[Path], label: str | None, stream: bool = False) -> Table:
    """Reads the rows of one file, or of several with the same columns.

    Parameters
    ----------
    paths : sequence of Path
    label : str or None
        The column that holds labels, by its name or, counted from 0, by its number.
    stream : bool
        Whether rows are read a part at a time, and their numbers left in a scratch file; labels are
        held.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or a value is no number.
    """
    notes, names, place = list[str](), list[str](), None
    kept: Held | Scratch = Scratch(paths[0]) if stream else Held()
    labels = list[Array | None]()
    texts: list[pd.Series[Any]] = []
    counts = list[int]()
    for path in paths:
        start = 0
        for frame, named, said in _frames(path, stream):
            columns = [str(column) for column in frame.columns]
            if names and columns != names:
                raise TfpruneError(
                    f"{path}: expected the columns of {paths[0]} ({listed(names)}), received "
                    f"{listed(columns)}"
                )
            names = columns
            place = None if label is None else _place(path, names, named, label)
            kept.add(_numbers(path, frame, place, start))
            if place is not None:
                column = _checked_label(path, frame.iloc[:, place], start)
                labels.append(column.to_numpy() if _numeric(column) else None)
                texts += [] if stream else [column]
            start += len(frame)
            notes += [note for note in said if note not in notes]
        counts.append(start)
    y, classes = None, tuple[str, ...]()
    if place is not None:
        numbers = [one for one in labels if one is not None]
        if len(numbers) == len(labels):
            y = np.concatenate(numbers)
        else:
            y, classes = _classes(_label_texts(paths, place) if stream else texts)
        notes.append(f"labels: column {names[place]!r}")
        if classes:
            shown = ", ".join(f"{n} {name!r}" for n, name in enumerate(classes[:NAMED]))
            more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
            notes.append(f"labels are text, sorted into {len(classes)} classes: {shown}{more}")
    return Table(kept.rows(), y, classes, tuple(notes), tuple(counts))


def contents(path: Path, label: str) -> tuple[tuple[str, ...], int, np.dtype[Any], bool]:
    """What the columns of a file hold, without those that are read where nobody needs to.

    Parameters
    ----------
    path : Path
    label : str
        The name of a column of labels, where there is one.

    Returns
    -------
    columns : tuple of str
        The names of all.
    rows : int
    dtype : numpy dtype
        That the numbers of all rows fit in, but for labels.
    labelled : bool
        Whether there is a column of labels.

    Raises
    ------
    TfpruneError
        If the file cannot be read.
    """
    frame, *_ = next(_frames(path, True))
    names = tuple(str(column) for column in frame.columns)
    labelled = label in names
    if path.suffix.lower() != ".parquet":
        x = read_tables([path], label if labelled else None, True).x
        return names, len(x), x.dtype, labelled
    from pyarrow import parquet

    whole = all(frame[name].dtype.kind in "iub" for name in names if name != label)
    rows = parquet.read_metadata(path).num_rows
    return names, rows, np.dtype(np.int64 if whole else np.float32), labelled


def held_bytes(path: Path) -> int:
    """Bytes that the rows of a file take in memory, about; 0 if it is no such file."""
    try:
        if path.suffix.lower() != ".parquet":
            return path.stat().st_size
        from pyarrow import parquet

        about = parquet.read_metadata(path)
        return int(NUMBER * about.num_rows * about.num_columns)
    except Exception:  # What is wrong with it is told by what reads it.
        return 0


def _frames(
    path: Path, stream: bool, only: int | None = None
) -> Iterator[tuple[pd.DataFrame, bool, list[str]]]:
    """The table of a file, whether its columns have names, and what is to be said.

    With ``stream`` it comes in parts of some rows each. With ``only`` it is that column as text.
    """
    if not path.exists():
        raise TfpruneError(f"{path}: no such file")
    if not path.is_file():
        raise TfpruneError(f"{path}: expected a readable file, received a folder or a pipe")
    empty = True
    try:
        reader = _parquet if path.suffix.lower() == ".parquet" else _csv
        for frame, named, notes in reader(path, stream, only):
            if len(frame) and len(frame.columns):
                empty = False
                yield frame, named, notes
    except (TfpruneError, GeneratorExit):
        raise
    except ImportError as error:
        raise TfpruneError(f"{path}: needs {error.name}: pip install pandas pyarrow") from None
    except Exception as error:  # Damaged and foreign files fail in pandas or pyarrow, anyhow.
        said = " ".join(str(error).split())[:200] or type(error).__name__
        kind = path.suffix.lower()
        raise TfpruneError(f"{path}: expected a readable {kind} file ({said})") from None
    if empty:
        raise TfpruneError(f"{path}: expected at least one sample, received none")


def _csv(
    path: Path, stream: bool, only: int | None
) -> Iterator[tuple[pd.DataFrame, bool, list[str]]]:
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
        separator = next((s for s in SEPARATORS if "," not in line and s in line), ",")
    how: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig", "compression": None}
    # A file that is opened here is never taken for an address.
    with path.open("rb") as file:
        top = pd.read_csv(file, header=None, nrows=2, dtype=str, keep_default_na=False, **how)
    named = _has_header(top.values.tolist())
    notes = ["no header: columns go by their numbers, from 0"] if not named else []
    unnamed = named and top.iloc[0, 0].strip() == "" and len(top.columns) > 1
    if unnamed:
        notes.append("first column not used: it has no name, as the numbers of rows have none")
    how |= {"header": 0 if named else None, "low_memory": False, "index_col": False}
    if only is not None:
        how |= {"usecols": [only + unnamed], "dtype": str}
    if stream:
        how["chunksize"] = max(PART // (NUMBER * max(len(top.columns), 1)), 1)
    with path.open("rb") as file:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            read = pd.read_csv(file, **how)
            parts = iter(read if stream else [read])
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = next(parts, None)
            if frame is None:
                return
            yield frame.iloc[:, 1:] if unnamed and only is None else frame, named, notes


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


def _parquet(
    path: Path, stream: bool, only: int | None
) -> Iterator[tuple[pd.DataFrame, bool, list[str]]]:
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
        columns = None if only is None else [schema.names[only]]
        if not stream:
            yield file.read(columns).to_pandas(ignore_metadata=True), True, []
            return
        rows = max(PART // (NUMBER * max(about.num_columns, 1)), 1)
        for batch in file.iter_batches(rows, columns=columns):
            frame = batch.to_pandas(ignore_metadata=True)
            yield frame if only is None else frame.astype(str), True, []


def _place(path: Path, names: Sequence[str], named: bool, label: str) -> int:
    """The number of the column that a label option means."""
    if named and label in names:
        return list(names).index(label)
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return int(label)
    known = f"columns 0 to {len(names) - 1}, without names" if not named else listed(names)
    raise TfpruneError(f"--label {label}: {path} has no such column; it has {known}")


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _numbers(path: Path, frame: pd.DataFrame, place: int | None, start: int) -> Array:
    """All columns but that of the labels: whole numbers, or float32; rows count from ``start``."""
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
                f"{path}: row {start + row + 1}, column {str(frame.columns[number])!r}: "
                f"expected a number, received {what}" + _advice(what, place is not None)
            )
        made.append(values.to_numpy())
    whole = all(values.dtype.kind in "iub" for values in made)
    small = whole and all(abs(int(edge)) < 2**31 for v in made for edge in (v.min(), v.max()))
    kind = np.int32 if small else np.int64 if whole else np.float32
    with np.errstate(over="ignore"):
        return np.stack([values.astype(kind) for values in made], axis=1)


def _advice(what: str, labelled: bool) -> str:
    if DECIMAL_COMMA.fullmatch(what):
        return "; write it with a point"
    if what == "nothing":  # pandas takes n/a, NaN, null and the like for an empty cell.
        return "; fill it in or leave the row out (words such as n/a count as nothing)"
    if labelled:
        return "; leave the column out"
    return "; a column of labels is named by --label (in Python it is called label)"


def _numeric(column: pd.Series[Any]) -> bool:
    return getattr(column.dtype, "kind", "O") in "iufb"


def _checked_label(path: Path, column: pd.Series[Any], start: int) -> pd.Series[Any]:
    missing = np.flatnonzero(column.isna().to_numpy())
    if len(missing):
        raise TfpruneError(
            f"{path}: row {start + missing[0] + 1}, column {str(column.name)!r}: expected a label, "
            "received nothing"
        )
    return column


def _label_texts(paths: Sequence[Path], place: int) -> Iterator[pd.Series[Any]]:
    """The labels once more, as the text that they are: some part may have looked like numbers."""
    return (frame.iloc[:, 0] for path in paths for frame, *_ in _frames(path, True, place))


def _classes(columns: Iterable[pd.Series[Any]]) -> tuple[Array, tuple[str, ...]]:
    """Labels that are text as numbers, and what text they were."""
    known, parts = dict[str, int](), list[Array]()
    for column in columns:
        found, inverse = np.unique(column.astype(str).to_numpy(dtype=str), return_inverse=True)
        numbers = [known.setdefault(str(one), len(known)) for one in found]
        parts.append(np.array(numbers, np.int32)[inverse])
    classes = sorted(known)
    order = np.zeros(len(known), np.int64)
    for number, name in enumerate(classes):
        order[known[name]] = number
    return order[np.concatenate(parts)], tuple(classes)
