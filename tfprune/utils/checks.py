"""What a user can ask for, checked; needs no TensorFlow, so that mistakes are told at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from tfprune.errors import TfpruneError

# What kinds of layers a word for --layers means.
KINDS = {"dense": {"dense"}, "conv": {"conv"}, "all": {"dense", "conv"}}
FARTHEST_CENTRE = 1e6
# The keys of fold.FOLDS, whose room needs numpy.
FOLD_NAMES = ("least-squares", "scaled", "outgoing", "incoming", "drop")
# By which units are chosen, the default first: with a threshold, and with a share.
SELECTIONS = ("angle", "span")
SHARE_SELECTIONS = ("effect", "span", "angle", "magnitude", "random")
CENTRES = ("auto", "mean", "activation", "none")
SCHEMES = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
DEFAULT_SCHEMES = SCHEMES[:4]
MOST_BATCH = 4096
DEGREES = 30.0
# Why files of a scheme are not given to TensorFlow Lite Micro.
NOT_MICRO = {
    "float32": "it takes four times the memory of int8",
    "float16": "TensorFlow Lite Micro has no floats of 16 bits",
    "dynamic": "TensorFlow Lite Micro does not multiply floats with integer weights",
    "int16x8": "it takes twice the arena of int8",
    "int4": "TensorFlow Lite Micro refuses weights of 4 bits with their activations",
}
# What readers can get where units are not chosen in pairs.
SHARE_FOLDS = ("least-squares", "drop")
# Steps of least squares where survivors are refitted: for each group, and for all together.
REFIT = 100
REFIT_IN_ALL = 1000


def _number(value: object) -> float:
    """A value as a float, NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def check_threshold(threshold: object) -> float:
    """Returns a threshold as a float.

    Raises
    ------
    TfpruneError
        If it is not a number of degrees in the open interval (0, 90).
    """
    degrees = _number(threshold)
    if not 0 < degrees < 90:
        raise TfpruneError(
            f"threshold: expected a number of degrees between 0 and 90, received {threshold!r}"
        )
    return degrees


def check_share(share: object, what: str = "remove") -> float:
    """Returns a share as a float.

    Raises
    ------
    TfpruneError
        If it is neither a number in the open interval (0, 1), ``0.5``, nor a percentage as text
        between 0 and 100, ``50%``.
    """
    text = str(share).strip()
    value = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise TfpruneError(
            f"{what}: expected a share between 0 and 1, such as 0.5 or 50%, received {share!r}"
        )
    return value


def check_points(points: object, what: str) -> float:
    """Returns percent points as a float.

    Raises
    ------
    TfpruneError
        If it is not a number in the half-open interval [0, 100).
    """
    value = _number(points)
    if not 0 <= value < 100:
        raise TfpruneError(
            f"{what}: expected percent points from 0 to 100, such as 0.1, received {points!r}"
        )
    return value


def check_target(amount: object, what: str) -> float:
    """Returns a budget as a share in (0, 1), or as a whole number from 1.

    Raises
    ------
    TfpruneError
        If it is neither a percentage as text, ``50%``, a share, ``0.5``, nor a whole number.
    """
    text = str(amount).strip().replace("_", "").replace(",", "")
    value = _number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    whole = not text.endswith("%") and 1 <= value < math.inf and value == int(value)
    if not (0 < value < 1 or whole):
        raise TfpruneError(
            f"{what}: expected a share such as 50%, or a whole number from 1, received {amount!r}"
        )
    return value


def check_select(select: str | None, with_share: bool) -> str:
    """Returns a way to choose units, the default where nothing was said.

    Raises
    ------
    TfpruneError
        If it is not known, or needs a share in place of a threshold.
    """
    known = SHARE_SELECTIONS if with_share else SELECTIONS
    if select in set(SHARE_SELECTIONS) - set(known):
        raise TfpruneError(f"select {select}: needs a share to remove, in place of degrees")
    return known[0] if select is None else check_choice("select", select, known)


def check_refit(steps: object, wanted: bool, groups: int) -> int:
    """Returns how many steps to refit each group, the default if wanted where nothing was said.

    Raises
    ------
    TfpruneError
        If it is not a whole number from 0.
    """
    if steps is None:
        return min(REFIT, REFIT_IN_ALL // max(groups, 1)) if wanted else 0
    if type(steps) is not int or steps < 0:
        raise TfpruneError(f"refit: expected a whole number from 0, received {steps!r}")
    return steps


def check_count(what: str, count: object) -> int:
    """Returns a number of things, at least one.

    Raises
    ------
    TfpruneError
        If it is not a whole number from 1.
    """
    value = _number(count)
    if not (1 <= value < math.inf and value == int(value)):
        raise TfpruneError(f"{what}: expected a whole number from 1, received {count!r}")
    return int(value)


def check_rate(rate: object) -> float:
    """Returns a learning rate as a float.

    Raises
    ------
    TfpruneError
        If it is not a number in the half-open interval (0, 1].
    """
    value = _number(rate)
    if not 0 < value <= 1:
        raise TfpruneError(f"learning_rate: expected a number in (0, 1], received {rate!r}")
    return value


def check_choice(what: str, choice: str, known: Iterable[str]) -> str:
    """Returns a choice that is among the known ones, else raises :class:`TfpruneError`."""
    if choice not in list(known):
        raise TfpruneError(f"{what}: expected one of {', '.join(known)}, received {choice!r}")
    return choice


def check_centre(centre: object) -> str | float:
    """Returns a centre as its name or a float.

    Raises
    ------
    TfpruneError
        If it is none of ``auto``, ``mean``, ``activation``, ``none``, nor a finite number.
    """
    if isinstance(centre, str) and centre in CENTRES:
        return centre
    value = _number(centre)
    if not abs(value) <= FARTHEST_CENTRE:
        raise TfpruneError(
            f"centre: expected {', '.join(CENTRES)} or a number, received {centre!r}"
        )
    return value


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
