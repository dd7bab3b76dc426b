"""The kinds of .tflite files that a model can become, and whether they can be had here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tfprune.errors import TfpruneError

SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")


DEFAULT_SCHEMES = SCHEMES[:4]


MOST_BATCH = 4096


# Why files of a scheme are not given to TensorFlow Lite Micro.
NOT_MICRO = {
    "float32": "it takes four times the memory of int8",
    "float16": "TensorFlow Lite Micro has no floats of 16 bits",
    "dynamic": "TensorFlow Lite Micro does not multiply floats with integer weights",
    "int16x8": "it takes twice the arena of int8",
    "int4": "TensorFlow Lite Micro refuses weights of 4 bits with their activations",
}


def check_batch(batch: object, what: str = "batch") -> int | None:
    """Returns a file's batch size; None leaves it open.

    Raises
    ------
    TfpruneError
        If it is neither None nor a whole number from 1.
    """
    if batch is None:
        return None
    if type(batch) is not int or not 1 <= batch <= MOST_BATCH:
        raise TfpruneError(
            f"{what}: expected a whole number from 1 to {MOST_BATCH} or None, received {batch!r}"
        )
    return batch


def check_schemes(schemes: Sequence[str]) -> tuple[str, ...]:
    """Returns the schemes, each once.

    Raises
    ------
    TfpruneError
        If there is none, or an unknown one, or one that needs a package that is not there.
    """
    if isinstance(schemes, str):
        schemes = schemes.split(",")
    for scheme in schemes or ("",):
        if scheme not in SCHEMES:
            raise TfpruneError(
                f"schemes: expected some of {', '.join(SCHEMES)}, received {scheme!r}"
            )
    if "int4" in schemes and find_spec("ai_edge_quantizer") is None:
        raise TfpruneError(
            "schemes: int4 needs ai-edge-quantizer, which is not installed; "
            "pip install -r requirements-int4.txt"
        )
    return tuple(dict.fromkeys(schemes))


def check_micro(flag: str, schemes: Sequence[str], batch: int | None) -> None:
    """Refuses what needs int8 files and TensorFlow Lite Micro where that is not to be had.

    Raises
    ------
    TfpruneError
    """
    if "int8" not in schemes:
        why = "; ".join(f"{scheme}: {NOT_MICRO[scheme]}" for scheme in schemes)
        raise TfpruneError(f"{flag}: it is for int8 files, and --schemes has none ({why})")
    if batch is None:
        raise TfpruneError(
            f"{flag}: TensorFlow Lite Micro plans memory for one size; leave --batch dynamic out"
        )
    if find_spec("tflite_micro") is None:
        raise TfpruneError(
            f"{flag}: the memory that files need is measured by tflite-micro, which is not "
            "installed; pip install -r requirements-tflm.txt (Linux on x86-64)"
        )
