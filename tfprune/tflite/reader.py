"""Reads what a ``.tflite`` file is made of from its flatbuffer; standard library only.

Field numbers are those of the TFLite schema (version 3). A flatbuffer table starts with the
distance back to its vtable; the vtable holds, for each field, the distance from the table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.utils.untrusted import read_bytes

# Flatbuffers have offsets of 32 bits.
LARGEST_FILE = 2**32
# Bytes that are read of a file, as a multiple of its own, and what a table counts for: a whole
# file takes about three times its size.
READ_AT_MOST = 16
TABLE = 8

# Names of the builtin operators, by their code.
OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6
RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL
CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST
PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN
TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW
ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK
REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS
WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG
REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL
BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT
""".split()  # noqa: SIM905  (a hundred and sixty quoted strings would be harder to read)


@dataclass(frozen=True)
class Share:
    """Bytes of a file that serve one purpose.

    Attributes
    ----------
    kind : str
        ``weights``, ``quantisation`` (scales and zero points), ``names``, ``metadata`` or
        ``structure`` (tables, offsets and padding).
    name : str
        The tensor, or empty.
    operator : str
        The operator that reads the tensor, or empty.
    bytes : int
    """

    kind: str
    name: str
    operator: str
    bytes: int


class _File:
    """A flatbuffer's bytes, and how many more of them may be read.

    Vectors may name one table over and over, so that a few kilobytes describe billions of
    tensors. What is read is counted, and a file whose reading takes many times its size is refused.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = READ_AT_MOST * len(data) + 2**16

    def count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _BombError

    def root(self) -> _Table:
        return _Table(self, _unpack("<I", self.data, 0))


class _Table:
    """A flatbuffer table; every access is checked against the end of the file."""

    def __init__(self, file: _File, at: int) -> None:
        file.count(TABLE)
        self._file, self._data, self._at = file, file.data, at
        self._vtable = at - _unpack("<i", self._data, at)
        self._size = _unpack("<H", self._data, self._vtable)

    def _field(self, number: int) -> int:
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return 0
        distance = _unpack("<H", self._data, self._vtable + slot)
        return self._at + distance if distance else 0

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        at = self._field(number)
        return _unpack(form, self._data, at) if at else default

    def _vector(self, number: int, width: int) -> tuple[int, int]:
        """Where a vector's elements start, and how many there are."""
        at = self._field(number)
        if not at:
            return 0, 0
        at += _unpack("<I", self._data, at)
        start, count = at + 4, _unpack("<I", self._data, at)
        if start + count * width > len(self._data):
            raise _BrokenError
        return start, count

    def place(self, number: int) -> int:
        """The position of a vector; tables may share one."""
        return self._vector(number, 0)[0]

    def size_of(self, number: int, width: int = 1) -> int:
        """The bytes of a vector's elements, which are not read."""
        return self._vector(number, width)[1] * width

    def bytes_of(self, number: int, width: int = 1) -> bytes:
        start, count = self._vector(number, width)
        self._file.count(count * width)
        return self._data[start : start + count * width]

    def text(self, number: int) -> str:
        return self.bytes_of(number).decode(errors="replace")

    def ints(self, number: int) -> tuple[int, ...]:
        values = self.bytes_of(number, 4)
        return struct.unpack(f"<{len(values) // 4}i", values)

    def table(self, number: int) -> _Table | None:
        at = self._field(number)
        return _Table(self._file, at + _unpack("<I", self._data, at)) if at else None

    def tables(self, number: int) -> list[_Table]:
        start, count = self._vector(number, 4)
        places = range(start, start + 4 * count, 4)
        return [_Table(self._file, at + _unpack("<I", self._data, at)) for at in places]


class _BrokenError(Exception):
    """Something points outside the file."""


class _BombError(_BrokenError):
    """The file names the same things over and over."""


def _unpack(form: str, data: bytes, at: int) -> int:
    if at < 0:
        raise _BrokenError
    try:
        return int(struct.unpack_from(form, data, at)[0])
    except struct.error:
        raise _BrokenError from None


def shares(path: Path) -> list[Share]:
    """Where the bytes of a file are; they add up to its size.

    Raises
    ------
    TfpruneError
        If it is not a TFLite file, or a truncated one.
    """
    data = read(path)
    try:
        parts = list(_shares(data))
    except _BombError:
        raise TfpruneError(
            f"{path}: expected a TFLite file as converters write it, received one that names the "
            "same tables over and over"
        ) from None
    except _BrokenError:
        raise TfpruneError(
            f"{path}: expected a whole TFLite file, something in it points past its end; "
            "is it truncated?"
        ) from None
    rest = len(data) - sum(share.bytes for share in parts)
    return [*parts, Share("structure, padding", "", "", rest)]


def weight_bytes(path: Path) -> int:
    """Bytes of a file that are weights; the rest is overhead of the format.

    Raises
    ------
    TfpruneError
        As :func:`shares`.
    """
    return sum(share.bytes for share in shares(path) if share.kind == "weights")


def operator_versions(data: bytes) -> dict[str, int]:
    """The operators of a file, by name, each with the highest version used.

    Raises
    ------
    TfpruneError
        If something in the file points past its end.
    """
    versions: dict[str, int] = {}
    try:
        for code in _File(data).root().tables(1):
            name = _operator(code)
            versions[name] = max(code.scalar(2, "<i", 1), versions.get(name, 0))
    except _BrokenError:
        raise TfpruneError("expected a whole TFLite file, received a broken one") from None
    return versions


def operator_types(data: bytes) -> set[tuple[str, int]]:
    """The operators of a file, by name, with the type codes of their inputs.

    Raises
    ------
    TfpruneError
        As :func:`operator_versions`.
    """
    types: set[tuple[str, int]] = set()
    try:
        model = _File(data).root()
        codes = [_operator(code) for code in model.tables(1)]
        for graph in model.tables(2):
            tensors = graph.tables(0)
            for operator in graph.tables(3):
                name = codes[_checked(operator.scalar(0, "<I"), codes)]
                # Left out inputs are -1.
                inputs = [number for number in operator.ints(1) if number >= 0]
                types |= {(name, tensors[_checked(n, tensors)].scalar(1, "<b")) for n in inputs}
    except _BrokenError:
        raise TfpruneError("expected a whole TFLite file, received a broken one") from None
    return types


def last_operators(data: bytes) -> list[tuple[str, float]]:
    """For each output the operator that computes it, and the scale of what that reads first.

    The scale is 0 where it reads floats, and the name empty where an output is an input.

    Raises
    ------
    TfpruneError
        As :func:`operator_versions`.
    """
    found = []
    try:
        model = _File(data).root()
        codes = [_operator(code) for code in model.tables(1)]
        for graph in model.tables(2)[:1]:
            tensors, operators = graph.tables(0), graph.tables(3)
            for output in graph.ints(2):
                last = next((one for one in operators if output in one.ints(2)), None)
                inputs = () if last is None else last.ints(1)
                scale = 0.0
                if inputs and inputs[0] >= 0:
                    quantised = tensors[_checked(inputs[0], tensors)].table(4)
                    scales = quantised.bytes_of(2, 4) if quantised is not None else b""
                    scale = struct.unpack("<f", scales[:4])[0] if scales else 0.0
                name = "" if last is None else codes[_checked(last.scalar(0, "<I"), codes)]
                found.append((name, scale))
    except _BrokenError:
        raise TfpruneError("expected a whole TFLite file, received a broken one") from None
    return found


def read(path: Path) -> bytes:
    """A file's bytes, if it starts as a TFLite file does.

    Raises
    ------
    TfpruneError
        If it does not, or cannot be read.
    """
    data = read_bytes(path, str(path), LARGEST_FILE)
    if data[4:8] != b"TFL3":
        raise TfpruneError(f"{path}: expected a TFLite file, received something else")
    return data


def _shares(data: bytes) -> Iterator[Share]:
    model = _File(data).root()
    buffers = model.tables(4)
    codes = [_operator(code) for code in model.tables(1)]
    taken: set[int] = set()
    # Where vectors are that were counted: several tensors may share one.
    seen: set[int] = set()
    for graph in model.tables(2):
        readers: dict[int, tuple[str, str]] = {}
        for place, operator in enumerate(graph.tables(3)):
            code = codes[_checked(operator.scalar(0, "<I"), codes)]
            for argument, read_tensor in enumerate(operator.ints(1)):
                readers.setdefault(read_tensor, (code, f"{code} {place}, input {argument}"))
        for number, tensor in enumerate(graph.tables(0)):
            reader, role = readers.get(number, ("", ""))
            # Compact files name inputs and outputs alone.
            name = tensor.text(3) or role
            buffer = tensor.scalar(2, "<I")
            if buffer not in taken:
                taken.add(buffer)
                yield Share("weights", name, reader, _weight(buffers[_checked(buffer, buffers)]))
            quantisation = tensor.table(4)
            if quantisation is not None:
                widths = ((0, 4), (1, 4), (2, 4), (3, 8))
                size = sum(_new_bytes(quantisation, field, width, seen) for field, width in widths)
                yield Share("quantisation", name, reader, size)
            yield Share("names", name, reader, _new_bytes(tensor, 3, 1, seen))
    for entry in model.tables(6):
        buffer = entry.scalar(1, "<I")
        size = entry.size_of(0)
        if buffer not in taken:
            taken.add(buffer)
            size += _weight(buffers[_checked(buffer, buffers)])
        yield Share("metadata", entry.text(0), "", size)
    yield Share("metadata", "description", "", model.size_of(3))


def _new_bytes(table: _Table, field: int, width: int, seen: set[int]) -> int:
    """Bytes of a vector; 0 if it was counted before."""
    if table.place(field) in seen:
        return 0
    seen.add(table.place(field))
    return table.size_of(field, width)


def _weight(buffer: _Table) -> int:
    """Bytes of a buffer, within the flatbuffer or (files over 2 GB) behind it."""
    return buffer.size_of(0) or (buffer.scalar(2, "<Q") if buffer.scalar(1, "<Q") > 1 else 0)


def _checked(index: int, among: list[_Table] | list[str]) -> int:
    if not 0 <= index < len(among):
        raise _BrokenError
    return index


def _operator(code: _Table) -> str:
    number = max(code.scalar(0, "<b"), code.scalar(3, "<i"))
    if 0 <= number < len(OPERATORS) and OPERATORS[number] == "CUSTOM":
        return code.text(1) or "CUSTOM"
    return OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"
