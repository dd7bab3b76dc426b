"""Writes a file as C source for TensorFlow Lite Micro, which has no file system to load it from.

The names that :func:`c_array` writes all start with the file's name as a C identifier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfprune.errors import TfpruneError
from tfprune.tflite.reader import operator_versions

# Operators that a MicroMutableOpResolver can be given, as of August 2026.
OPERATORS = frozenset(
    """ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE
    DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP
    EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
    SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE""".split()  # noqa: SIM905  (as in tflite)
)
# Its methods are their names in camel case, but for these.
_METHODS = {
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
# Bytes in a line of the array.
LINE = 12


@dataclass(frozen=True)
class Port:
    """An input or output of a file.

    Attributes
    ----------
    kind : str
        Its type, ``int8`` for instance.
    shape : tuple of int
    scale : float
        0 where it is not quantised.
    zero_point : int
    """

    kind: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


def methods(data: bytes, what: str) -> list[str]:
    """The methods of a ``MicroMutableOpResolver`` that add a file's operators.

    Raises
    ------
    TfpruneError
        If it has no operator of some, or the file is broken.
    """
    names = list(operator_versions(data))
    lacking = [name for name in names if name not in OPERATORS]
    if lacking:
        raise TfpruneError(
            f"{what}: TensorFlow Lite Micro has no operator {', '.join(lacking)}; "
            "use other layers or activations"
        )
    return [_METHODS.get(name) or "Add" + name.title().replace("_", "") for name in names]


def identifier(name: str) -> str:
    """A name as a C identifier: letters, digits and single underscores, a letter first."""
    word = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    return word if word[:1].isalpha() else f"model_{word}".rstrip("_")


def c_array(
    data: bytes, name: str, arena: int, inputs: Sequence[Port], outputs: Sequence[Port]
) -> tuple[str, str]:
    """A file as C source; nothing in it allocates memory.

    Parameters
    ----------
    data : bytes
        The file's content.
    name : str
        The file's name without its ending; any text.
    arena : int
        Bytes of memory to work in.
    inputs, outputs : sequence of Port

    Returns
    -------
    header : str
        C99 and C++11: length, arena, scales, zero points and operators as macros.
    source : str
        C++11: the array.

    Raises
    ------
    TfpruneError
        As :func:`methods`.
    """
    called = identifier(name)
    upper = called.upper()
    adders = methods(data, f"{name}.tflite")
    lines = [
        f"/* {called}: a TFLite model of {len(data)} bytes for TensorFlow Lite Micro.",
        "   Made by tfprune's tools.export. */",
        f"#ifndef {upper}_H_",
        f"#define {upper}_H_",
        "",
        f"#define {upper}_LENGTH {len(data)}",
        "",
        "/* Bytes of tensor arena, seen to be enough on a 64-bit PC with the portable kernels.",
        "   Pointers of 32 bits need less; optimised kernels may need more. */",
        f"#define {upper}_ARENA_SIZE {-(-arena // 16) * 16}",
        "",
    ]
    for word, ports in (("INPUT", inputs), ("OUTPUT", outputs)):
        lines.append(f"/* real value = {word}_SCALE * (number - {word}_ZERO_POINT) */")
        for place, port in enumerate(ports):
            stem = f"{upper}_{word}" + (f"_{place}" if len(ports) > 1 else "")
            lines.append(f"/* {word.lower()} {place}: {port.kind} {_shape(port)} */")
            if port.scale:
                lines += [
                    f"#define {stem}_SCALE {_float(port.scale)}",
                    f"#define {stem}_ZERO_POINT ({port.zero_point})",
                ]
        lines.append("")
    calls = " && \\\n   ".join(f"(resolver).{adder}() == kTfLiteOk" for adder in adders)
    lines += [
        f"/* For a tflite::MicroMutableOpResolver<{upper}_OPERATORS>; true if all were added. */",
        f"#define {upper}_OPERATORS {len(adders)}",
        f"#define {upper}_ADD_OPERATORS(resolver) \\",
        f"  ({calls})",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Aligned to 16 bytes. */",
        f"extern const unsigned char {called}_data[{upper}_LENGTH];",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif /* {upper}_H_ */",
        "",
    ]
    return "\n".join(lines), _source(data, called, upper)


def _source(data: bytes, called: str, upper: str) -> str:
    rows = [data[start : start + LINE] for start in range(0, len(data), LINE)]
    return "\n".join(
        [
            f'#include "{called}.h"',
            "",
            f"alignas(16) const unsigned char {called}_data[{upper}_LENGTH] = {{",
            *("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows),
            "};",
            "",
        ]
    )


def _shape(port: Port) -> str:
    return "x".join(map(str, port.shape)) or "scalar"


def _float(value: float) -> str:
    """A float32 as C writes it; nine digits tell every one of them."""
    text = f"{value:.9g}"
    return (text if set(text) & set(".e") else f"{text}.0") + "f"
