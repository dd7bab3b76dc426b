"""Measures what pruning changed in a model's outputs, on samples without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfprune.core.metrics import LIMITS, disagreement
from tfprune.graph.predictions import outputs_of
from tfprune.outputs.decisions import Rule, rules_of
from tfprune.utils.arrays import Array

# Differences up to this share of the largest output are rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Change:
    """How far a smaller model's outputs are from the original's.

    Attributes
    ----------
    output_error : float
        Root mean square difference as a share of the outputs' spread; of several outputs the
        largest.
    agreement : float or None
        Share of the decisions that are the same, in [0, 1]; of several outputs the least. None
        where outputs decide nothing.
    samples : int
        On how many samples.
    unsure : bool
        Whether an output may decide or be a value: a linear one without a loss.
    """

    output_error: float
    agreement: float | None
    samples: int
    unsure: bool = False

    @property
    def beyond(self) -> bool:
        """Whether the change is large enough for a warning."""
        classes = self.agreement is not None and 1 - self.agreement > LIMITS["agreement"] + 1e-9
        values = self.agreement is None or self.unsure
        return classes or (values and self.output_error > LIMITS["output_error"])

    def __str__(self) -> str:
        error = f"output error {100 * self.output_error:.1f} %"
        if self.agreement is None:
            return f"{error} on {self.samples:,} samples"
        share = f"{100 * self.agreement:.2f} %"
        if self.unsure:
            same = f"{error}; if they are classes, {share} are the original's"
        else:
            same = f"{share} of the classes are the original's, {error}"
        return f"{same}, on {self.samples:,} samples"


def change_of(model: keras.Model, smaller: keras.Model, x: Sequence[Array]) -> Change:
    """Compares the outputs of a smaller model with those of the original.

    Parameters
    ----------
    model, smaller : keras.Model
    x : sequence of arrays of shape (samples, ...)
        As both take them.
    """
    reference, received = outputs_of(model, x), outputs_of(smaller, x)
    rules = rules_of(model, reference)
    pairs = [
        (_without_rounding(ours, theirs), theirs)
        for ours, theirs in zip(received, reference, strict=True)
    ]
    same = [
        float(np.mean(way.decisions(ours) == way.decisions(theirs)))
        for rule, (ours, theirs) in zip(rules, pairs, strict=True)
        if not rule.values
        # Where units may answer for themselves, both those and the largest have to be the same.
        for way in ([rule, replace(rule, alone=True)] if rule.binary else [rule])
    ]
    return Change(
        output_error=max(disagreement(ours, theirs) for ours, theirs in pairs),
        agreement=min(same, default=None),
        samples=len(x[0]),
        unsure=any(_unsure(rule) for rule in rules),
    )


def _without_rounding(output: Array, reference: Array) -> Array:
    """An output with the reference's values where the two differ by rounding alone.

    Of values that are equal the first decides, which rounding alone would change.
    """
    size = np.max(np.abs(reference), initial=0.0)
    return np.where(np.abs(output - reference) <= ROUNDING * size, reference, output)


def _unsure(rule: Rule) -> bool:
    return rule.values or rule.guessed
