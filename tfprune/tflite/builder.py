"""Writes flatbuffers as small as the format allows.

What is equal is written once: vectors, strings, tables. Fields lie in tables by their width, and
small vectors in the gaps before aligned ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_FORMS = {
    "Bool": "?", "Byte": "B", "Int8": "b", "Uint8": "B", "Int16": "h", "Uint16": "H",
    "Int32": "i", "Uint32": "I", "Int64": "q", "Uint64": "Q", "Float32": "f", "Float64": "d",
}  # fmt: skip
_OFFSET = "offset"


@dataclass(frozen=True)
class _Vector:
    """A vector of scalars, or a string, whose closing zero does not count."""

    align: int
    count: int
    content: bytes

    @property
    def size(self) -> int:
        return 4 + len(self.content)


@dataclass(frozen=True)
class _Offsets:
    """A vector of nodes, by their numbers."""

    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Field:
    """A scalar of a :mod:`struct` form, or the number of a node."""

    slot: int
    form: str
    value: Any

    @property
    def width(self) -> int:
        return 4 if self.form == _OFFSET else struct.calcsize(self.form)


@dataclass(frozen=True)
class _Table:
    fields: tuple[_Field, ...]


_Node = _Vector | _Offsets | _Table


class SharingBuilder:
    """Replaces ``flatbuffers.Builder`` in generated ``Pack`` methods; stores equal parts once.

    It keeps what they hand over as nodes, equal ones once, and lays them out at the end.

    Parameters
    ----------
    alignment : int
        Of numpy vectors of bytes.
    """

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._numbers: dict[_Node, int] = {}
        self._fields: list[_Field] = []
        self._align = 1

    def finish(self, root: int, identifier: bytes) -> bytes:
        """The flatbuffer with this root table.

        Parameters
        ----------
        root : int
            What ``Pack`` returned.
        identifier : bytes
            The four that tell the format.
        """
        return _Layout(list(self._numbers), self._alignment).file(root, identifier)

    def _number(self, node: _Node) -> int:
        # From 1, because generated code takes 0 for no offset.
        return self._numbers.setdefault(node, len(self._numbers) + 1)

    # The names that generated code calls.

    def CreateString(self, text: str | bytes) -> int:  # noqa: N802
        content = text.encode() if isinstance(text, str) else text
        return self._number(_Vector(1, len(content), content + b"\0"))

    def CreateNumpyVector(self, values: npt.NDArray[Any]) -> int:  # noqa: N802
        align = self._alignment if values.dtype == np.uint8 else values.itemsize
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        return self._number(_Vector(align, len(values), content))

    def StartVector(self, size: int, count: int, align: int) -> None:  # noqa: N802
        self._fields, self._align = [], align

    def EndVector(self) -> int:  # noqa: N802
        # Builders write from the end to the start, so that is how elements come.
        fields = self._fields[::-1]
        if fields and fields[0].form == _OFFSET:
            return self._number(_Offsets(tuple(field.value for field in fields)))
        content = b"".join(struct.pack(f"<{field.form}", field.value) for field in fields)
        return self._number(_Vector(self._align, len(fields), content))

    def StartObject(self, count: int) -> None:  # noqa: N802
        self._fields = []

    def EndObject(self) -> int:  # noqa: N802
        # The widest first: then none needs padding before it.
        fields = sorted(self._fields, key=lambda field: (-field.width, field.slot))
        return self._number(_Table(tuple(fields)))

    def PrependUOffsetTRelative(self, target: int) -> None:  # noqa: N802
        self._fields.append(_Field(0, _OFFSET, target))

    def PrependUOffsetTRelativeSlot(self, slot: int, target: int, default: int) -> None:  # noqa: N802
        if target != default:
            self._fields.append(_Field(slot, _OFFSET, target))

    def __getattr__(self, name: str) -> Callable[..., None]:
        """``PrependInt32`` for elements, ``PrependInt32Slot`` for fields, and their like."""
        kind = name.removeprefix("Prepend")
        form = _FORMS.get(kind.removesuffix("Slot"))
        if form is None or kind == name:
            raise AttributeError(name)
        if kind.endswith("Slot"):
            return lambda slot, value, default: self._scalar(slot, form, value, default)
        return lambda value: self._fields.append(_Field(0, form, value))

    def _scalar(self, slot: int, form: str, value: Any, default: Any) -> None:
        if value != default:
            self._fields.append(_Field(slot, form, value))


class _Layout:
    """Lays nodes out as bytes: tables first, as offsets point forward, then vectors of scalars."""

    def __init__(self, nodes: Sequence[_Node], alignment: int) -> None:
        self._nodes = nodes
        self._alignment = alignment
        # The offset of the root, and the identifier.
        self._out = bytearray(8)
        self._places: dict[int, int] = {}
        self._offsets: list[tuple[int, int]] = []
        self._vtables: dict[bytes, int] = {}

    def file(self, root: int, identifier: bytes) -> bytes:
        self._offsets.append((0, root))
        vectors = {}
        # Whatever points to a node was made after it.
        for number in range(len(self._nodes), 0, -1):
            node = self._nodes[number - 1]
            if isinstance(node, _Table):
                self._places[number] = self._table(node)
            elif isinstance(node, _Offsets):
                self._places[number] = self._offset_vector(node)
            else:
                vectors[number] = node
        self._vectors(vectors)
        for at, target in self._offsets:
            struct.pack_into("<I", self._out, at, self._places[target] - at)
        self._out[4:8] = identifier
        return bytes(self._out)

    def _pad(self, align: int, ahead: int = 0) -> None:
        """Appends zeros until what follows after so many bytes is aligned."""
        self._out += bytes(-(len(self._out) + ahead) % align)

    def _offset_vector(self, node: _Offsets) -> int:
        self._pad(4)
        at = len(self._out)
        self._out += struct.pack("<I", len(node.targets)) + bytes(4 * len(node.targets))
        self._offsets += [(at + 4 + 4 * n, target) for n, target in enumerate(node.targets)]
        return at

    def _table(self, node: _Table) -> int:
        slots = [0] * max((field.slot + 1 for field in node.fields), default=0)
        # Every table starts with the distance to its vtable.
        end = 4
        for field in node.fields:
            slots[field.slot] = end
            end += field.width
        vtable = self._vtable(struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), end, *slots))
        wide = any(field.width == 8 for field in node.fields)
        self._pad(8 if wide else 4, ahead=4 if wide else 0)
        at = len(self._out)
        self._out += struct.pack("<i", at - vtable) + bytes(end - 4)
        for field in node.fields:
            place = at + slots[field.slot]
            if field.form == _OFFSET:
                self._offsets.append((place, field.value))
            else:
                struct.pack_into(f"<{field.form}", self._out, place, field.value)
        return at

    def _vtable(self, content: bytes) -> int:
        if content not in self._vtables:
            self._pad(2)
            self._vtables[content] = len(self._out)
            self._out += content
        return self._vtables[content]

    def _vectors(self, vectors: dict[int, _Vector]) -> None:
        """Lays out aligned vectors, others in the gaps before them, and the rest at the end."""
        others = {n: node for n, node in vectors.items() if node.align != self._alignment}
        for number, node in vectors.items():
            if node.align == self._alignment:
                while fitting := self._fitting(others):
                    self._vector(fitting, others.pop(fitting))
                self._vector(number, node)
        for number, node in others.items():
            self._vector(number, node)

    def _fitting(self, others: dict[int, _Vector]) -> int | None:
        """The largest vector that fits the gap before the next aligned one."""
        gap = -(len(self._out) + 4) % self._alignment
        costs = {n: self._padding(node) + node.size for n, node in others.items()}
        fitting = [number for number, cost in costs.items() if cost <= gap]
        return max(fitting, key=lambda number: costs[number], default=None)

    def _padding(self, node: _Vector) -> int:
        return -(len(self._out) + 4) % max(node.align, 4)

    def _vector(self, number: int, node: _Vector) -> None:
        self._out += bytes(self._padding(node))
        self._places[number] = len(self._out)
        self._out += struct.pack("<I", node.count) + node.content
