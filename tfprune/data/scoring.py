"""Scores models on data that they were neither trained, calibrated nor chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.core.metrics import disagreement
from tfprune.data.label_forms import matching_output, reconstructs, target_of, units_of
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.outputs.decisions import Rule, commonest, rule_of
from tfprune.utils.arrays import Array

# From which share of the samples on one answer is nearly the only one.
ONE_SIDED = 0.95


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
    name : str
        The name of the output whose labels these are; empty where labels are one array.
    others : tuple of Scorer
        Of further outputs that have labels of their own; accuracy and mse are the mean of those
        that have it.
    names : tuple of str
        Of all outputs.
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
    name: str = ""
    others: tuple[Scorer, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def each(self) -> list[Scorer]:
        """A scorer for each of the outputs that have labels."""
        return [replace(self, others=()), *self.others] if self.metric is not None else []

    @property
    def held_against(self) -> str:
        """Which of several outputs the labels belong to, in words; empty where there is one."""
        if self.metric is None or len(self.reference) == 1:
            return ""
        if not self.others:
            who = self.name or f"{self.output + 1} of the model's {len(self.reference)}"
            return f"labels are held against output {who}"
        accuracies = [one.name for one in self.each if one.metric == "accuracy"]
        mean = f"; accuracy is the mean of {' and '.join(accuracies)}" * (len(accuracies) > 1)
        return f"labels are held against outputs {', '.join(one.name for one in self.each)}{mean}"

    @property
    def classifies(self) -> bool:
        """Whether the only output chooses one of several classes."""
        return self.metric == "accuracy" and len(self.reference) == 1 and not self.rules[0].alone

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Which scores say whether outputs are as good: accuracy, agreement, output error.

        Labels speak of their outputs alone, so of several outputs each of the others is looked at
        by itself: ``agreement_NAME`` or ``output_error_NAME``. Where nothing says whether an output
        decides or is a value, both are looked at.
        """
        return (*["accuracy"] * (self.metric == "accuracy"), *self._by_themselves)

    @property
    def _by_themselves(self) -> dict[str, int]:
        """Scores of the outputs of which no accuracy speaks, and the outputs' places."""
        metrics = {one.output: one.metric for one in self.each}
        places: dict[str, int] = {}
        for place, rule in enumerate(self.rules):
            if metrics.get(place) == "accuracy":
                continue
            name = f"_{self.names[place]}" if len(self.rules) > 1 else ""
            decides = not (rule.values or self.one_sided or metrics.get(place) == "mse")
            if decides:
                places[f"agreement{name}"] = place
            if not decides or rule.guessed:
                places[f"output_error{name}"] = place
        return places

    @property
    def one_sided(self) -> float | None:
        """The share of samples with the commonest answer, where that is nearly all of them.

        Without labels alone: agreement with such answers says next to nothing.
        """
        if self.metric is not None:
            return None
        shares = [
            commonest(rule.decisions(output), each=rule.alone and output.shape[-1] > 1)
            for rule, output in zip(self.rules, self.reference, strict=True)
            if not rule.values
        ]
        return min(shares) if shares and min(shares) >= ONE_SIDED else None

    @property
    def notes(self) -> list[str]:
        """What a user should know of how outputs decide, in words."""
        if self.metric is not None:
            places = [one.output for one in self.each if one.metric == "accuracy"]
        else:
            places = [n for n, rule in enumerate(self.rules) if not rule.values]
        notes = []
        for place in places:
            rule = self.rules[place]
            who = f"output {place + 1}" if len(self.rules) > 1 else "the output"
            why = f"above {rule.threshold:g}, as {rule.reason}"
            if rule.alone and units_of(self.reference[place]) > 1:
                binary = "as Keras' binary_accuracy has it"
                notes.append(f"each unit of {who} decides alone, {binary}: {why}")
            elif rule.alone:
                notes.append(f"{who} decides for class 1 {why}")
        if self.one_sided:
            notes.append(
                f"the model gives one answer for {100 * self.one_sided:.1f} % of the samples, so "
                "that agreement says next to nothing; look at the output error, or take data with "
                "more of the other answers"
            )
        return notes

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain data, for the manifest."""
        return {
            "metric": self.metric,
            "output": self.output,
            "labels": self.labels,
            "thresholds": [rule.threshold if rule.alone else None for rule in self.rules],
        } | self._outputs

    @property
    def _outputs(self) -> dict[str, Any]:
        """What each of several labelled outputs is scored by."""
        if not self.others:
            return {}
        return {
            "outputs": [
                {"name": o.name, "output": o.output, "metric": o.metric, "labels": o.labels}
                for o in self.each
            ]
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
        else:
            y = part.ys.get(self.name, part.y)
            if self.labels is not None and y is not None:
                target = target_of(self.labels, reference[self.output], y)
        others = tuple(other.like(reference, part) for other in self.others)
        return replace(self, reference=reference, target=target, others=others)

    def some(self, index: Any) -> Scorer:
        """The same scorer for some of its samples."""
        target = None if self.target is None else self.target[index]
        reference = [out[index] for out in self.reference]
        others = tuple(other.some(index) for other in self.others)
        return replace(self, reference=reference, target=target, others=others)

    def of(self, reference: Sequence[Array]) -> Scorer:
        """The same scorer with other outputs to compare with, of the same samples."""
        others = tuple(other.of(reference) for other in self.others)
        return replace(self, reference=reference, others=others)

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
            several outputs the least. Where several outputs have labels also ``accuracy_NAME`` or
            ``mse_NAME`` of each, of which ``accuracy`` and ``mse`` are the means; where there are
            several outputs also what :attr:`judged_by` names.
        """
        scores: dict[str, float] = {}
        alone = {one.name: (one.metric, one._score(outputs)) for one in self.each}
        for metric in ("accuracy", "mse"):
            values = [value for kind, value in alone.values() if kind == metric]
            scores |= {metric: float(np.mean(values))} if values else {}
        if self.others:
            scores |= {f"{kind}_{name}": value for name, (kind, value) in alone.items()}
        decided = {one.output for one in self.each if one.metric == "accuracy"}
        errors = [
            disagreement(ours, theirs) for ours, theirs in zip(outputs, self.reference, strict=True)
        ]
        same = [
            float(np.mean(rule.decisions(ours) == rule.decisions(theirs)))
            for rule, ours, theirs in zip(self.rules, outputs, self.reference, strict=True)
        ]
        scores["agreement"] = min(
            max(0.0, 1 - error**2)
            if self.metric == "mse" or (rule.values and place not in decided)
            else same[place]
            for place, (rule, error) in enumerate(zip(self.rules, errors, strict=True))
        )
        scores["output_error"] = max(errors)
        for name, place in self._by_themselves.items():
            scores[name] = (same if name.startswith("agreement") else errors)[place]
        return scores

    def _score(self, outputs: Sequence[Array]) -> float:
        """Accuracy or mean squared error of this output alone."""
        if self.metric == "accuracy":
            return float(np.mean(self.right(outputs)))
        return float(np.mean((outputs[self.output].astype(float) - self.target) ** 2))


def make_scorer(
    reference: Sequence[Array],
    test: Split,
    rules: Sequence[Rule] | None = None,
    labels: Array | None = None,
    *,
    known: Split | None = None,
    names: Sequence[str] = (),
    only: str | None = None,
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
    known : Split, optional
        The same as ``labels``, with those of several outputs.
    names : sequence of str, optional
        Of the outputs, for labels of several.
    only : str, optional
        The output whose labels count, or to which they belong.

    Raises
    ------
    TfpruneError
        If the labels fit no output, or none, ``only`` say, has labels.
    """
    rules = [rule_of(out) for out in reference] if rules is None else list(rules)
    names = list(names) or [f"output {place + 1}" for place in range(len(reference))]
    places = list(range(len(reference))) if only is None else [_place(names, only)]
    if test.ys:
        made = _of_several(reference, test, rules, known=known or test, names=names, only=only)
    else:
        made = _of_one(reference, test, rules, labels, known=known, places=places)
    others = tuple(replace(other, names=tuple(names)) for other in made.others)
    return replace(made, names=tuple(names), others=others)


def _of_one(
    reference: Sequence[Array],
    test: Split,
    rules: list[Rule],
    labels: Array | None,
    *,
    known: Split | None,
    places: Sequence[int],
) -> Scorer:
    """A scorer with labels of one output, or without any."""
    x = test.arrays
    copies = [n for n in places if len(x) == 1 and reconstructs(reference[n], x[0])]
    if copies and (test.y is None or test.y.ndim == 1 or test.y.shape[1:] == (1,)):
        return Scorer(reference, rules, "mse", copies[0], labels="input").like(reference, test)
    if test.y is None:
        return Scorer(reference, rules)
    if labels is None:
        labels = test.y if known is None or known.y is None else known.y
    place, form = matching_output(reference, rules, labels, places)
    return _scorer(reference, rules, place, form).like(reference, test)


def _place(names: Sequence[str], wanted: str) -> int:
    if wanted not in names:
        raise TfpruneError(
            f"--output-name: expected the name of an output ({', '.join(names)}), "
            f"received {wanted!r}"
        )
    return list(names).index(wanted)


def _of_several(
    reference: Sequence[Array],
    test: Split,
    rules: list[Rule],
    *,
    known: Split,
    names: Sequence[str],
    only: str | None,
) -> Scorer:
    """A scorer for outputs that have labels of their own; those of classes come first."""
    wanted = [name for name in names if name in test.ys] if only is None else [only]
    if only is not None and only not in test.ys:
        raise TfpruneError(f"--output-name {only}: the data has no y_{only}, nor y_train_{only}")
    found = []
    for name in wanted:
        try:
            place, form = matching_output(reference, rules, known.ys[name], [_place(names, name)])
        except TfpruneError as error:
            raise TfpruneError(f"labels of output {name}: {error}") from None
        found.append(replace(_scorer(reference, rules, place, form), name=name))
    for one in found:
        rules[one.output] = one.rules[one.output]
    found.sort(key=lambda one: one.metric != "accuracy")
    first, *others = [replace(one, rules=rules) for one in found]
    return replace(first, others=tuple(others)).like(reference, test)


def _scorer(reference: Sequence[Array], rules: Sequence[Rule], place: int, form: str) -> Scorer:
    if form == "yes or no":
        rules = [replace(r, alone=True) if n == place else r for n, r in enumerate(rules)]
    metric = "mse" if form == "values" else "accuracy"
    return Scorer(reference, rules, metric, place, labels=form)
