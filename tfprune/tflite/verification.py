"""Compares TFLite files with what Keras computes, before they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfprune.core.metrics import disagreement
from tfprune.errors import TfpruneError
from tfprune.tflite.conversion_process import run_file, work_folder
from tfprune.tflite.schemes import SCHEMES
from tfprune.utils.arrays import Array
from tfprune.utils.child_process import ChildError

# How far LiteRT's own kernels may be from XNNPACK's, beside a step of the output.
BETWEEN_KERNELS = 0.05


def verify(
    data: bytes,
    scheme: str,
    x: Sequence[Array],
    expected: Sequence[Array],
    names: Sequence[str] = (),
) -> None:
    """Runs a file and compares it with what Keras computes.

    Some converter routes make files without weights and report no error. A file of 4 bits has to
    compute the same without XNNPACK too: kernels of 4 bits are new, and some were wrong.

    Parameters
    ----------
    data : bytes
    scheme : str
    x : sequence of arrays of shape (samples, ...)
        One for each input.
    expected : sequence of arrays
        Keras' outputs for ``x``.
    names : sequence of str
        See :class:`tfprune.tflite.interpreter.LiteModel`.

    Raises
    ------
    TfpruneError
        If it cannot run, or its outputs are not Keras'.
    """
    with work_folder(x) as folder:
        compare(folder, data, scheme, expected, names)


def compare(
    folder: Path, data: bytes, scheme: str, expected: Sequence[Array], names: Sequence[str]
) -> float:
    """As :func:`verify`, on the samples of a work folder.

    Returns
    -------
    float
        How far the output that is farthest from Keras' is from it, as a share of its spread.
    """

    def run(delegate: bool) -> tuple[list[Array], list[float]]:
        try:
            return run_file(folder, data, names, delegate)
        except ChildError as error:
            raise TfpruneError(f"the {scheme} file {error}") from None

    received, steps = run(delegate=True)
    if [ours.shape for ours in received] != [theirs.shape for theirs in expected]:
        raise TfpruneError(f"the {scheme} file disagrees with Keras: its outputs have other shapes")
    tolerance, farthest = SCHEMES[scheme].tolerance, 0.0
    for out, (ours, keras_out) in enumerate(zip(received, expected, strict=True)):
        off = disagreement(ours, keras_out, steps[out])
        if not off <= tolerance:
            raise TfpruneError(
                f"the {scheme} file disagrees with Keras: output {out} is off by {off:.1%} of "
                f"its spread, at most {tolerance:.1%} is accepted"
            )
        farthest = max(farthest, disagreement(ours, keras_out))
    if SCHEMES[scheme].both_kernels:
        _verify_kernels(scheme, received, *run(delegate=False))
    return farthest


def _verify_kernels(
    scheme: str, expected: Sequence[Array], received: Sequence[Array], steps: Sequence[float]
) -> None:
    for out, (ours, theirs, step) in enumerate(zip(received, expected, steps, strict=True)):
        off = disagreement(ours, theirs, step)
        if not off <= BETWEEN_KERNELS:
            raise TfpruneError(
                f"the {scheme} file computes something else without XNNPACK: output {out} is off "
                f"by {off:.1%} of its spread, at most {BETWEEN_KERNELS:.1%} is accepted"
            )
