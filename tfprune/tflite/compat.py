"""Checks that tflite-runtime 2.14, the last one for 32-bit systems, can run a file."""

from __future__ import annotations

from tfprune.errors import TfpruneError
from tfprune.tflite.reader import operator_types, operator_versions

RUNTIME = "tflite-runtime 2.14"

# Operators by the highest version that it has. Found by offering it files of one operator, from
# version 1 on; tests/tflite/test_compat.py does so again where it can be installed.
_BY_VERSION = {
    1: """ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE CEIL
        COMPLEX_ABS CONV_3D CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE ELU
        EMBEDDING_LOOKUP_SPARSE EXPAND_DIMS FLOOR HARD_SWISH HASHTABLE HASHTABLE_FIND
        HASHTABLE_IMPORT HASHTABLE_LOOKUP HASHTABLE_SIZE IF IMAG L2_POOL_2D
        LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSH_PROJECTION
        MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NEG NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5
        ONE_HOT POW PRELU RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK READ_VARIABLE REAL REDUCE_ALL
        REDUCE_ANY RELU_0_TO_1 RELU_N1_TO_1 RESHAPE REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT ROUND
        SCATTER_ND SEGMENT_SUM SHAPE SIN SKIP_GRAM SQRT SQUARE UNIQUE UNSORTED_SEGMENT_MAX
        UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE WHILE
        ZEROS_LIKE""",
    2: """DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU
        LESS_EQUAL LOG_SOFTMAX RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V
        SQUARED_DIFFERENCE SQUEEZE SUM WHERE""",
    3: """ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN
        BROADCAST_TO EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL LESS LOGISTIC MAX_POOL_2D MEAN
        MIRROR_PAD NOT_EQUAL QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX
        SPARSE_TO_DENSE TANH TILE TOPK_V2 UNIDIRECTIONAL_SEQUENCE_RNN""",
    4: """BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM MINIMUM
        PACK PAD PADV2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT SPACE_TO_BATCH_ND SPLIT SVDF
        TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK""",
    5: "ABS ADD CAST DEQUANTIZE SUB",
    6: "GATHER SLICE TRANSPOSE",
    7: "CONV_2D DEPTHWISE_CONV_2D MUL",
    8: "STRIDED_SLICE",
    10: "FULLY_CONNECTED",
}
# Types of inputs, by TFLite's codes, which the runtime takes and then fails on when it runs.
_INT16, _INT8, _INT4 = 7, 9, 17
REFUSED = {
    ("GELU", _INT16): "GELU of 16 bits",
    ("TILE", _INT16): "TILE of 16 bits",
    ("DIV", _INT8): "DIV of 8 bits",
}
VERSIONS = {name: version for version, names in _BY_VERSION.items() for name in names.split()}


def check_compat(data: bytes, what: str) -> None:
    """Refuses a file that tflite-runtime 2.14 cannot run.

    Parameters
    ----------
    data : bytes
        The file's content.
    what : str
        What to call it.

    Raises
    ------
    TfpruneError
        If it has an operator, a version of one, or a type of numbers that the runtime has not.
    """
    newer = [
        f"{name} of version {version} (it has {VERSIONS.get(name, 'none')})"
        for name, version in operator_versions(data).items()
        if version > VERSIONS.get(name, 0)
    ]
    types = operator_types(data)
    newer += [said for use, said in REFUSED.items() if use in types]
    newer += [f"{name} with weights of 4 bits" for name, kind in sorted(types) if kind == _INT4]
    if newer:
        raise TfpruneError(
            f"--compat: {what} needs what {RUNTIME} has not: {', '.join(newer)}; "
            "choose other --schemes, or leave --compat out"
        )
