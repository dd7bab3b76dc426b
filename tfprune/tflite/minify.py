"""Rewrites a ``.tflite`` file with as little beside its weights as the format allows.

What goes is what no runtime reads: names of inner tensors, the converter's notes, statistics of
calibration, fields that say nothing. What is equal is there once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfprune.tflite.builder import SharingBuilder

# What the converter notes down; no runtime needs it to compute.
NOTES = (b"min_runtime_version", b"CONVERSION_METADATA")
IDENTIFIER = b"TFL3"
VERSION = 3
# The schema aligns the data of buffers so; delegates and microcontrollers rely on it.
ALIGNMENT = 16
# What a flatbuffer can hold.
LARGEST = 2**31 - 1


def minify(data: bytes) -> bytes:
    """Rewrites a TFLite file without what does not serve computing; its signatures stay.

    Parameters
    ----------
    data : bytes
        A whole file, of a schema not newer than that of ``ai_edge_litert``.

    Returns
    -------
    bytes
        Never more than came, and the same for the same file. Inputs and outputs are named as
        their signature names them. Data behind the flatbuffer moves into it. A file of another
        format or over 2 GB, and one that is compact already come back as they are.
    """
    if data[4:8] != IDENTIFIER or len(data) > LARGEST:
        return data
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data)
    if model.version != VERSION or _has_outside_data(model, len(data)):
        return data
    _take_in(model, data)
    _share_buffers(model, schema.BufferT)
    _share_operator_codes(model)
    for number, graph in enumerate(model.subgraphs):
        ends = {*graph.inputs, *graph.outputs} if number == 0 else set()
        for place, tensor in enumerate(graph.tensors):
            _strip_tensor(tensor, named=place in ends)
        for operator in graph.operators or []:
            _strip_operator(operator)
        graph.name = None
    _name_by_signatures(model)
    model.description = None
    builder = SharingBuilder(ALIGNMENT)
    smaller = builder.finish(model.Pack(builder), IDENTIFIER)
    return smaller if len(smaller) < len(data) else data


def _has_outside_data(model: Any, end: int) -> bool:
    return bool(
        model.externalBuffers
        or model.externalBufferGroups
        or any(buffer.offset + buffer.size > end for buffer in model.buffers)
        or any(operator.largeCustomOptionsOffset for operator in _operators(model))
    )


def _take_in(model: Any, data: bytes) -> None:
    """Moves buffers from behind the flatbuffer (in large files) into it; offset 1 means none."""
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0


def _operators(model: Any) -> list[Any]:
    return [operator for graph in model.subgraphs for operator in graph.operators or []]


def _share_buffers(model: Any, new: Callable[[], Any]) -> None:
    """Stores equal buffers once; buffer 0 stays the empty one."""
    old = [b"" if buffer.data is None else buffer.data.tobytes() for buffer in model.buffers]
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in NOTES] or None
    model.metadataBuffer = None
    places = {b"": 0}
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for reader in [*tensors, *(model.metadata or [])]:
        reader.buffer = places.setdefault(old[reader.buffer], len(places))
    model.buffers = [new() for _ in places]
    for content, place in places.items():
        if content:
            model.buffers[place].data = np.frombuffer(content, np.uint8)


def _share_operator_codes(model: Any) -> None:
    places: dict[tuple[Any, ...], int] = {}
    codes: list[Any] = []
    for operator in _operators(model):
        code = model.operatorCodes[operator.opcodeIndex]
        # Runtimes take the larger of the two, and some tools read the new one alone.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = 0
        key = (code.builtinCode, code.version, code.customCode)
        if key not in places:
            places[key] = len(codes)
            codes.append(code)
        operator.opcodeIndex = places[key]
    model.operatorCodes = codes


def _strip_tensor(tensor: Any, named: bool) -> None:
    tensor.name = tensor.name if named else None
    # Files of before there was this field lack it, so only of scalars it says anything.
    tensor.hasRank = tensor.hasRank and _is_empty(tensor.shape)
    if not _is_empty(tensor.shape) and np.array_equal(tensor.shape, tensor.shapeSignature):
        tensor.shapeSignature = None
    quantisation = tensor.quantization
    if quantisation is None:
        return
    quantisation.min = quantisation.max = None
    if quantisation.details is not None:
        return
    if _is_empty(quantisation.scale):
        tensor.quantization = None
    elif len(quantisation.scale) == 1:
        quantisation.quantizedDimension = 0


def _strip_operator(operator: Any) -> None:
    for field in ("customOptions", "intermediates", "mutatingVariableInputs"):
        if _is_empty(getattr(operator, field)):
            setattr(operator, field, None)


def _is_empty(vector: Any) -> bool:
    return vector is None or len(vector) == 0


def _name_by_signatures(model: Any) -> None:
    """Names inputs and outputs as their signature does, so that each name is stored once."""
    for signature in model.signatureDefs or []:
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        for end in [*(signature.inputs or []), *(signature.outputs or [])]:
            tensors[end.tensorIndex].name = end.name
