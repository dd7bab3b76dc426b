"""What labels are by their shapes and values: classes, rows of one 1, yes or no, values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.outputs.decisions import Rule
from tfprune.utils.arrays import Array

# An output of as many numbers as the input, and of at least so many, is taken for its copy.
LEAST_RECONSTRUCTION = 16


def matching_output(
    reference: Sequence[Array], rules: Sequence[Rule], y: Array, places: Sequence[int]
) -> tuple[int, str]:
    """Which of the outputs labels fit, and what they are."""
    matching = [(n, form) for n in places if (form := form_of(reference[n], y, rules[n]))]
    if matching:
        # Classes of several units first, and best of as many as there are; else the first output.
        most = int(y.max()) + 1
        sizes = [units_of(reference[n]) for n, _ in matching]
        fit = [
            (form != "values", size > 1, size == most)
            for (_, form), size in zip(matching, sizes, strict=True)
        ]
        return matching[fit.index(max(fit))]
    outputs = [reference[n] for n in places]
    shapes = ", ".join(str(output.shape[1:]) for output in outputs)
    from_one = y.min() == 1 and any(y.max() == units_of(output) for output in outputs)
    advice = "; are they numbered from 1? They are expected from 0" if from_one else ""
    what = f"labels of shape {y.shape[1:]}" if y.ndim > 1 else "labels"
    raise TfpruneError(
        f"data: {what} from {y.min():g} to {y.max():g} fit no output of the model (shapes "
        f"{shapes}){advice}; data without labels is compared with what the original answers"
    )


def units_of(output: Array) -> int:
    """How many units an output has."""
    return output.shape[-1] if output.ndim > 1 else 1


def squeezed(output: Array, y: Array) -> Array:
    """Labels of classes without a last axis of length 1, which Keras takes as well."""
    fits = y.ndim > 1 and y.shape[-1] == 1 and y.shape[1:-1] == output.shape[1:-1]
    return y[..., 0] if fits else y


def form_of(output: Array, y: Array, rule: Rule) -> str | None:
    """What labels mean for an output, as ``Scorer.labels`` says it; None if they do not fit."""
    several = units_of(output) > 1
    plain = squeezed(output, y)
    if plain.shape[1:] == output.shape[1:-1]:
        whole = y.dtype.kind in "iub" or bool((y == np.round(y)).all())
        if whole and y.min() >= 0 and y.max() < max(units_of(output), 2):
            return "classes"
        return None if several else "values"
    if y.shape[1:] != output.shape[1:]:
        return None
    bits = bool(((y == 0) | (y == 1)).all())
    if bits and (y.sum(axis=-1) == 1).all():
        return "one-hot"
    return "yes or no" if bits and rule.binary else "values"


def target_of(form: str, output: Array, y: Array) -> Array:
    """Labels as :meth:`tfprune.data.scoring.Scorer.scores` compares them."""
    if form == "classes":
        return squeezed(output, y)
    if form == "one-hot":
        return y.argmax(axis=-1)
    return y if form == "yes or no" else y.reshape(output.shape)


def reconstructs(output: Array, x: Array) -> bool:
    """Whether an output reconstructs the input; small outputs and probabilities do not."""
    flat = output.reshape(len(output), -1)
    probabilities = flat.min() >= 0 and np.allclose(flat.sum(axis=1), 1, atol=1e-3)
    return flat.shape[1] == x[0].size >= LEAST_RECONSTRUCTION and not probabilities
