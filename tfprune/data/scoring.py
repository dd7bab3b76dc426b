"""Scores models on data that they were neither trained, calibrated nor chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.core.metrics import disagreement
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.outputs.decisions import Rule, rule_of
from tfprune.utils.arrays import Array

# An output of as many numbers as the input, and of at least so many, is taken for its copy.
LEAST_RECONSTRUCTION = 16


@dataclass(frozen=True)
class Scorer:
    """What outputs are compared with: labels, and the reference's outputs.

    Attributes
    ----------
    reference : sequence of arrays of shape (samples, ...)
        The unpruned float model's outputs.
    rules : sequence of Rule
        How each output decides.
    metric : {"accuracy", "mse"} or None
        None without labels.
    output : int
        Which output the labels belong to.
    target : array or None
        Classes for ``accuracy``, values of the output's shape for ``mse``.
    labels : {"classes", "one-hot", "yes or no", "values", "input"} or None
        What the labels are: numbers of classes, rows of one 1, a 0 or 1 for each unit, values, or
        the model's own input.
    """

    reference: Sequence[Array]
    rules: Sequence[Rule]
    metric: str | None = None
    output: int = 0
    target: Array | None = None
    labels: str | None = None

    @property
    def classifies(self) -> bool:
        """Whether the only output chooses one of several classes."""
        return self.metric == "accuracy" and len(self.reference) == 1 and not self.rules[0].alone

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Which scores say whether outputs are as good: accuracy, agreement, output error.

        Labels speak of one output alone. Where nothing says whether an output decides or is a
        value, both are looked at.
        """
        if self.metric == "accuracy":
            return ("accuracy",) if len(self.reference) == 1 else ("accuracy", "agreement")
        values = self.metric == "mse"
        names = []
        if not values and not all(rule.values for rule in self.rules):
            names.append("agreement")
        if values or any(rule.values or rule.guessed for rule in self.rules):
            names.append("output_error")
        return tuple(names)

    @property
    def notes(self) -> list[str]:
        """What a user should know of how outputs decide, in words."""
        if self.metric is not None:
            places = [self.output] if self.metric == "accuracy" else []
        else:
            places = [n for n, rule in enumerate(self.rules) if not rule.values]
        notes = []
        for place in places:
            rule = self.rules[place]
            who = f"output {place + 1}" if len(self.rules) > 1 else "the output"
            why = f"above {rule.threshold:g}, as {rule.reason}"
            if rule.alone and _units(self.reference[place]) > 1:
                binary = "as Keras' binary_accuracy has it"
                notes.append(f"each unit of {who} decides alone, {binary}: {why}")
            elif rule.alone:
                notes.append(f"{who} decides for class 1 {why}")
        return notes

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain data, for the manifest."""
        return {
            "metric": self.metric,
            "output": self.output,
            "labels": self.labels,
            "thresholds": [rule.threshold if rule.alone else None for rule in self.rules],
        }

    def like(self, reference: Sequence[Array], part: Split) -> Scorer:
        """The same scorer for other samples, whose labels mean the same.

        Parameters
        ----------
        reference : sequence of arrays of shape (samples, ...)
            The unpruned float model's outputs for them.
        part : Split
        """
        target = None
        if self.labels == "input":
            target = np.asarray(part.arrays[0]).reshape(reference[self.output].shape)
        elif self.labels is not None and part.y is not None:
            target = _target(self.labels, reference[self.output], part.y)
        return replace(self, reference=reference, target=target)

    def some(self, index: Any) -> Scorer:
        """The same scorer for some of its samples."""
        target = None if self.target is None else self.target[index]
        return replace(self, reference=[out[index] for out in self.reference], target=target)

    def right(self, outputs: Sequence[Array]) -> Array:
        """Which decisions agree with the labels: booleans of the target's shape."""
        return self.rules[self.output].decisions(outputs[self.output]) == self.target

    def scores(self, outputs: Sequence[Array]) -> dict[str, float]:
        """Scores outputs for the same samples.

        Returns
        -------
        dict
            ``accuracy`` (0 to 1) or ``mse`` where there are labels; ``output_error``, the root
            mean square difference to the reference relative to its spread; ``agreement``, the
            share of decisions (of every sample; of every pixel or position where there are
            several) that are the reference's, or, with ``mse`` and of an output of values, the
            share of the reference's variance that is there (1 - output_error^2, at least 0); of
            several outputs the least.
        """
        scores: dict[str, float] = {}
        if self.metric == "accuracy":
            scores["accuracy"] = float(np.mean(self.right(outputs)))
        elif self.metric == "mse":
            difference = outputs[self.output].astype(float) - self.target
            scores["mse"] = float(np.mean(difference**2))
        errors = [
            disagreement(ours, theirs) for ours, theirs in zip(outputs, self.reference, strict=True)
        ]
        shares = zip(self.rules, errors, outputs, self.reference, strict=True)
        scores["agreement"] = min(
            max(0.0, 1 - error**2)
            if self.metric == "mse" or (rule.values and not (self.metric and place == self.output))
            else float(np.mean(rule.decisions(ours) == rule.decisions(theirs)))
            for place, (rule, error, ours, theirs) in enumerate(shares)
        )
        scores["output_error"] = max(errors)
        return scores


def make_scorer(
    reference: Sequence[Array],
    test: Split,
    rules: Sequence[Rule] | None = None,
    labels: Array | None = None,
) -> Scorer:
    """Infers from shapes what the labels mean.

    Whole numbers, floats too, are classes of the output that has room for them, rather of as many
    units as there are classes (a single output unit decides between two), rows of one 1 likewise;
    a 0 or 1 for each unit of an output that answers yes or no are decisions of each unit; other
    labels are values, scored by mean squared error. An axis of length 1 behind the classes is as
    good as none.
    An output as large as the only input, and no probabilities, reconstructs it.

    Parameters
    ----------
    reference : sequence of arrays of shape (samples, ...)
        The unpruned float model's outputs on the test data.
    test : Split
    rules : sequence of Rule, optional
        How each output decides, see :func:`tfprune.outputs.decisions.rules_of`; by default what the
        range of its values says.
    labels : array, optional
        All labels there are, of which the test data has some: they say what labels are.

    Raises
    ------
    TfpruneError
        If the labels fit no output.
    """
    x = test.arrays
    rules = [rule_of(out) for out in reference] if rules is None else rules
    copies = [n for n, out in enumerate(reference) if len(x) == 1 and _reconstructs(out, x[0])]
    if copies and (test.y is None or test.y.ndim == 1 or test.y.shape[1:] == (1,)):
        return Scorer(reference, rules, "mse", copies[0], labels="input").like(reference, test)
    if test.y is None:
        return Scorer(reference, rules)
    y = test.y if labels is None else labels
    matching = [
        (n, form)
        for n, (out, rule) in enumerate(zip(reference, rules, strict=True))
        if (form := _form(out, y, rule))
    ]
    if matching:
        # Classes of several units first, and best of as many as there are; else the first output.
        most = int(y.max()) + 1
        sizes = [_units(reference[n]) for n, _ in matching]
        fit = [
            (form != "values", size > 1, size == most)
            for (_, form), size in zip(matching, sizes, strict=True)
        ]
        position, form = matching[fit.index(max(fit))]
        if form == "yes or no":
            rules = [replace(r, alone=True) if n == position else r for n, r in enumerate(rules)]
        metric = "mse" if form == "values" else "accuracy"
        return Scorer(reference, rules, metric, position, labels=form).like(reference, test)
    shapes = ", ".join(str(output.shape[1:]) for output in reference)
    from_one = y.min() == 1 and any(y.max() == _units(output) for output in reference)
    advice = "; are they numbered from 1? They are expected from 0" if from_one else ""
    what = f"labels of shape {y.shape[1:]}" if y.ndim > 1 else "labels"
    raise TfpruneError(
        f"data: {what} from {y.min():g} to {y.max():g} fit no output of the model (shapes "
        f"{shapes}){advice}; data without labels is compared with what the original answers"
    )


def _units(output: Array) -> int:
    return output.shape[-1] if output.ndim > 1 else 1


def _squeezed(output: Array, y: Array) -> Array:
    """Labels of classes without a last axis of length 1, which Keras takes as well."""
    fits = y.ndim > 1 and y.shape[-1] == 1 and y.shape[1:-1] == output.shape[1:-1]
    return y[..., 0] if fits else y


def _form(output: Array, y: Array, rule: Rule) -> str | None:
    """What labels mean for an output, see :class:`Scorer`; None if they do not fit it."""
    several = _units(output) > 1
    plain = _squeezed(output, y)
    if plain.shape[1:] == output.shape[1:-1]:
        whole = y.dtype.kind in "iub" or bool((y == np.round(y)).all())
        if whole and y.min() >= 0 and y.max() < max(_units(output), 2):
            return "classes"
        return None if several else "values"
    if y.shape[1:] != output.shape[1:]:
        return None
    bits = bool(((y == 0) | (y == 1)).all())
    if bits and (y.sum(axis=-1) == 1).all():
        return "one-hot"
    return "yes or no" if bits and rule.binary else "values"


def _target(form: str, output: Array, y: Array) -> Array:
    """Labels as :meth:`Scorer.scores` compares them."""
    if form == "classes":
        return _squeezed(output, y)
    if form == "one-hot":
        return y.argmax(axis=-1)
    return y if form == "yes or no" else y.reshape(output.shape)


def _reconstructs(output: Array, x: Array) -> bool:
    """Whether an output reconstructs the input; small outputs and probabilities do not."""
    flat = output.reshape(len(output), -1)
    probabilities = flat.min() >= 0 and np.allclose(flat.sum(axis=1), 1, atol=1e-3)
    return flat.shape[1] == x[0].size >= LEAST_RECONSTRUCTION and not probabilities
