"""Small files that ask for much work."""

from __future__ import annotations


def bomb(count: int) -> bytes:
    """A model of ``count`` subgraphs of as many tensors and operators, each the same table."""
    import flatbuffers

    builder = flatbuffers.Builder(0)

    def vector(offset: int, times: int) -> int:
        builder.StartVector(4, times, 4)
        for _ in range(times):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def table(fields: dict[int, int]) -> int:
        builder.StartObject(max(fields, default=-1) + 1)
        for slot, offset in fields.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return builder.EndObject()

    name = builder.CreateString("a" * 400)
    tensors, operators = vector(table({3: name}), count), vector(table({}), count)
    graphs = vector(table({0: tensors, 3: operators}), count)
    codes, buffers = vector(table({}), 1), vector(table({}), 1)
    builder.Finish(table({1: codes, 2: graphs, 4: buffers}), b"TFL3")
    return bytes(builder.Output())
