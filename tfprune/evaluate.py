"""What a model is worth on data that it was neither trained, calibrated nor chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.convert import disagreement
from tfprune.errors import TfpruneError
from tfprune.parts import Part

Array = npt.NDArray[Any]

# An output of as many numbers as the input, and of at least so many, is taken for its copy.
LEAST_RECONSTRUCTION = 16


@dataclass(frozen=True)
class Yardstick:
    """What outputs are held against.

    Attributes
    ----------
    reference : sequence of arrays of shape (samples, ...)
        The unpruned float model's outputs.
    metric : {"accuracy", "mse"} or None
        None without labels.
    output : int
        Which output the labels belong to.
    target : array or None
        Classes for ``accuracy``, values of the output's shape for ``mse``.
    """

    reference: Sequence[Array]
    metric: str | None = None
    output: int = 0
    target: Array | None = None

    @property
    def classifies(self) -> bool:
        """Whether the only output decides between classes; labels say no more of it."""
        return self.metric == "accuracy" and len(self.reference) == 1

    def scores(self, outputs: Sequence[Array]) -> dict[str, float]:
        """Scores outputs for the same samples.

        Returns
        -------
        dict
            ``accuracy`` (0 to 1) or ``mse`` where there are labels; ``output_error``, the root
            mean square difference to the reference relative to its spread; ``agreement``, the
            share of samples whose classes are the reference's in every output, or, with ``mse``,
            the share of the reference's variance that is there (1 - output_error^2, at least 0).
        """
        made: dict[str, float] = {}
        if self.metric == "accuracy":
            reference = self.reference[self.output]
            decided = decisions(outputs[self.output], reference)
            made["accuracy"] = float(np.mean(decided == self.target))
        elif self.metric == "mse":
            difference = outputs[self.output].astype(float) - self.target
            made["mse"] = float(np.mean(difference**2))
        error = max(
            disagreement(ours, theirs) for ours, theirs in zip(outputs, self.reference, strict=True)
        )
        if self.metric == "mse":
            made["agreement"] = max(0.0, 1 - error**2)
        else:
            same = [
                (decisions(ours, theirs) == decisions(theirs, theirs))
                .reshape(len(ours), -1)
                .all(axis=1)
                for ours, theirs in zip(outputs, self.reference, strict=True)
            ]
            made["agreement"] = float(np.mean(np.logical_and.reduce(same)))
        made["output_error"] = error
        return made


def yardstick(reference: Sequence[Array], test: Part) -> Yardstick:
    """Finds out from the shapes what the labels mean.

    Whole numbers, floats too, are classes of the output that has room for them, rather of as many
    units as there are classes (a single output unit decides between two), rows of one 1 likewise;
    other labels are values, scored by mean squared error.
    An output as large as the only input, and no probabilities, reconstructs it.

    Parameters
    ----------
    reference : sequence of arrays of shape (samples, ...)
        The unpruned float model's outputs on the test data.
    test : Part

    Raises
    ------
    TfpruneError
        If the labels fit no output.
    """
    x = test.arrays
    copies = [n for n, out in enumerate(reference) if len(x) == 1 and _reconstructs(out, x[0])]
    if copies and (test.y is None or test.y.ndim == 1 or test.y.shape[1:] == (1,)):
        return Yardstick(reference, "mse", copies[0], x[0].reshape(reference[copies[0]].shape))
    if test.y is None:
        return Yardstick(reference)
    found = [(n, goal) for n, out in enumerate(reference) if (goal := _goal(out, test.y))]
    if found:
        # Classes of several units first, and best of as many as there are; else the first output.
        most = int(test.y.max()) + 1
        sizes = [reference[n].shape[-1] for n, _ in found]
        fit = [
            (goal[0] == "accuracy", size > 1, size == most)
            for (_, goal), size in zip(found, sizes, strict=True)
        ]
        position, (metric, target) = found[fit.index(max(fit))]
        return Yardstick(reference, metric, position, target)
    shapes = ", ".join(str(output.shape[1:]) for output in reference)
    raise TfpruneError(
        f"data: labels of shape {test.y.shape[1:]} and values from {test.y.min()} to "
        f"{test.y.max()} fit no output of the model (shapes {shapes})"
    )


def _goal(output: Array, y: Array) -> tuple[str, Array] | None:
    """What labels are to an output: the metric and the target; None if they do not fit."""
    if y.shape[1:] == (1,) and y.shape != output.shape:
        y = y[:, 0]
    whole = y.dtype.kind in "iub" or bool((y == np.round(y)).all())
    several = output.shape[-1] > 1
    if y.shape == output.shape[:-1]:
        if whole and y.min() >= 0 and y.max() < max(output.shape[-1], 2):
            return "accuracy", y
        return None if several else ("mse", y[..., None])
    if y.shape != output.shape:
        return None
    if several and ((y == 0) | (y == 1)).all() and (y.sum(axis=-1) == 1).all():
        return "accuracy", y.argmax(axis=-1)
    if not several and whole and y.min() >= 0 and y.max() <= 1:
        return "accuracy", y[..., 0]
    return "mse", y


def _reconstructs(output: Array, x: Array) -> bool:
    """Whether an output is the input again; small ones and probabilities are something else."""
    flat = output.reshape(len(output), -1)
    probabilities = flat.min() >= 0 and np.allclose(flat.sum(axis=1), 1, atol=1e-3)
    return flat.shape[1] == x[0].size >= LEAST_RECONSTRUCTION and not probabilities


def decisions(output: Array, reference: Array) -> Array:
    """The classes that outputs decide for, shape (samples, ...) without the last axis.

    The largest of several; a single one decides at 0.5 if the reference is a probability, else
    at 0.
    """
    if output.ndim < 2:
        output = output[:, None]
    if output.shape[-1] > 1:
        return output.argmax(axis=-1)
    return (output[..., 0] > limit(reference)).astype(np.intp)


def limit(reference: Array) -> float:
    """Above what a single output decides for a class: 0.5 for probabilities, else 0."""
    probability = reference.min() >= 0 and reference.max() <= 1
    return 0.5 if probability else 0.0
