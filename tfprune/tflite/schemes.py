"""The kinds of .tflite files that a model can become, and whether they can be had here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple

from tfprune.errors import TfpruneError

MOST_BATCH = 4096
Fill = Literal["full", "left", "right", "bottom", "top", "none"]


# No dataclass: commands import this before Ctrl-C is handled, and dataclasses load slowly.
class Scheme(NamedTuple):
    """A kind of ``.tflite`` file; an entry of :data:`SCHEMES`.

    Attributes
    ----------
    name : str
        As users type it and as it stands in the files' names.
    description : str
        What is of how many bits, for the documentation.
    weight_bytes : float
        Of a weight in a large layer, without its scale.
    tolerance : float
        How far a file's outputs may be from Keras', as a share of their spread over the samples:
        far above what the scheme costs, far below a file that computes something else.
    marker : str
        Of its files in the pictures of an export, as matplotlib names it.
    fill : str
        Of its files' markers in the picture of a sweep, likewise.
    not_micro : str
        Why its files are not given to TensorFlow Lite Micro; empty if they are.
    micro_runs : bool
        Whether TensorFlow Lite Micro could run them.
    not_compat : str
        What tflite-runtime 2.14 lacks to run them; empty if it runs them.
    package, requirements : str
        A package that it needs beyond those of tfprune, and the file that says of which version.
    default : bool
        Whether it is made where nothing was said.
    from_samples : bool
        Whether samples set the scales of activations.
    coarse : bool
        Whether activations have 8 bits, so that it matters what they are spent on.
    both_kernels : bool
        Whether its files are compared without XNNPACK too, as kernels for them are new.

    Examples
    --------
    >>> SCHEMES["int8"].weight_bytes, SCHEMES["int8"].default, SCHEMES["int4"].package
    (1, True, 'ai-edge-quantizer')
    """

    name: str
    description: str
    weight_bytes: float
    tolerance: float
    marker: str
    fill: Fill
    not_micro: str = ""
    micro_runs: bool = False
    not_compat: str = ""
    package: str = ""
    requirements: str = ""
    default: bool = False
    from_samples: bool = False
    coarse: bool = False
    both_kernels: bool = False

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or find_spec(self.package.replace("-", "_")) is not None


# What is to be made of a model for each stands in ``tfprune.tflite.conversion_worker.SETTINGS``.
SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "float32", "weights and activations are floats of 32 bits", 4, 1e-3, "o", "none",
            not_micro="it takes four times the memory of int8", micro_runs=True, default=True,
        ),
        Scheme(
            "float16", "weights are floats of 16 bits, computed with in 32", 2, 0.05, "s", "left",
            not_micro="TensorFlow Lite Micro has no floats of 16 bits", default=True,
        ),
        Scheme(
            "dynamic", "weights are integers of 8 bits, input and output floats", 1, 0.5, "^",
            "bottom", default=True,
            not_micro="TensorFlow Lite Micro does not multiply floats with integer weights",
        ),
        Scheme(
            "int8", "weights, activations, input and output are integers of 8 bits", 1, 0.5, "D",
            "full", micro_runs=True, default=True, from_samples=True,
            coarse=True,
        ),
        Scheme(
            "int16x8", "weights are integers of 8 bits, activations of 16", 1, 0.5, "v", "right",
            not_micro="it takes twice the arena of int8", micro_runs=True, from_samples=True,
        ),
        Scheme(
            "int4", "as int8, but weights of Dense layers are integers of 4 bits", 0.5, 0.5, "P",
            "top", from_samples=True, coarse=True, both_kernels=True,
            not_micro="TensorFlow Lite Micro refuses weights of 4 bits with their activations",
            not_compat="weights of 4 bits",
            package="ai-edge-quantizer", requirements="requirements-int4.txt",
        ),
    )
}  # fmt: skip
DEFAULT_SCHEMES = tuple(name for name, scheme in SCHEMES.items() if scheme.default)


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


def check_schemes(schemes: Sequence[str], what: str = "schemes") -> tuple[str, ...]:
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
                f"{what}: expected some of {', '.join(SCHEMES)}, received {scheme!r}"
            )
    for needed in (SCHEMES[scheme] for scheme in schemes):
        if not needed.installed:
            raise TfpruneError(
                f"{what}: {needed.name} needs {needed.package}, which is not installed; "
                f"pip install -r {needed.requirements}"
            )
    return tuple(dict.fromkeys(schemes))


def check_micro(flag: str, schemes: Sequence[str], batch: int | None) -> None:
    """Refuses what needs int8 files and TensorFlow Lite Micro where that is not to be had.

    Raises
    ------
    TfpruneError
    """
    if "int8" not in schemes:
        why = "; ".join(f"{scheme}: {SCHEMES[scheme].not_micro}" for scheme in schemes)
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
