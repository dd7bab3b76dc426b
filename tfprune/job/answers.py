"""Counts right answers of each class, and finds test samples whose answer changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.data.scoring import Scorer
from tfprune.utils.arrays import Array

# How many changed samples are named.
SHOWN = 24


@dataclass(frozen=True, eq=False)
class Answers:
    """What files answer for the test data, as far as :meth:`Scorer.scores` does not say it.

    Attributes
    ----------
    measure : Scorer
    right : dict of str to list of int
        By file: of each class (of each unit, where units answer yes or no) how many of its test
        samples are answered right.
    given : dict of str to array of shape (samples,)
        By file: the class of each sample.
    """

    measure: Scorer
    right: dict[str, list[int]] = field(default_factory=dict)
    given: dict[str, Array] = field(default_factory=dict)

    def add(self, file: str, outputs: Sequence[Array]) -> None:
        """Takes note of a file's outputs for all test data."""
        if self._labelled:
            self.right[file] = self._right(outputs)
        given = self._given(outputs)
        if given is not None:
            self.given[file] = given

    @property
    def classes(self) -> dict[str, Any] | None:
        """Right answers by class, for the manifest; None where labels are no classes.

        ``each`` is ``class`` or ``unit``, ``samples`` counts those of each, ``original`` is what
        the unpruned float model answers right, ``right`` the same by file.
        """
        if not self._labelled:
            return None
        return {
            "each": "unit" if self._by_unit else "class",
            "samples": self._counts(np.ones(self._target.shape, bool)),
            "original": self._right(self.measure.reference),
            "right": self.right,
        }

    def changed(self, file: str) -> dict[str, Any] | None:
        """Which samples a file answers otherwise than the unpruned float model, for the manifest.

        ``worse`` were right and are wrong now, ``better`` the other way round; of ``samples``
        there are up to ``SHOWN``, those that became worse first. None where a sample has no single
        class.
        """
        before, now = self._given(self.measure.reference), self.given.get(file)
        if before is None or now is None:
            return None
        label = self._target if self._labelled else None
        worse = better = np.zeros(len(now), bool)
        if label is not None:
            worse, better = ((one == label) & (one != other) for one, other in
                             ((before, now), (now, before)))  # fmt: skip
        index = np.flatnonzero(before != now)
        order = index[np.argsort(~worse[index], kind="stable")][:SHOWN]
        samples = [
            {"index": int(at), "before": int(before[at]), "after": int(now[at])}
            | ({} if label is None else {"label": int(label[at])})
            for at in order
        ]
        labelled = {"worse": int(worse.sum()), "better": int(better.sum())}
        return {
            "file": file,
            "count": len(index),
            **({} if label is None else labelled),
            "samples": samples,
        }

    @property
    def _labelled(self) -> bool:
        # Classes of several outputs are no one table.
        several = bool(self.measure.others)
        return self.measure.metric == "accuracy" and not several and self.measure.target is not None

    @property
    def _target(self) -> Array:
        assert self.measure.target is not None, "asked only with labels"
        return self.measure.target.astype(np.intp)

    @property
    def _by_unit(self) -> bool:
        rule = self.measure.rules[self.measure.output]
        reference = self.measure.reference[self.measure.output]
        return rule.alone and reference.ndim > 1 and reference.shape[-1] > 1

    def _right(self, outputs: Sequence[Array]) -> list[int]:
        return self._counts(self.measure.right(outputs))

    def _counts(self, chosen: Array) -> list[int]:
        """How many decisions are chosen, of each class or unit."""
        if self._by_unit:
            counts = chosen.reshape(-1, chosen.shape[-1]).sum(axis=0)
        else:
            output = self.measure.reference[self.measure.output]
            classes = max(2, output.shape[-1] if output.ndim > 1 else 1)
            counts = np.bincount(self._target[chosen], minlength=classes)
        return [int(count) for count in counts]

    def _given(self, outputs: Sequence[Array]) -> Array | None:
        measure = self.measure
        rule = measure.rules[measure.output]
        if measure.others or measure.metric == "mse" or (measure.metric is None and rule.values):
            return None
        given = rule.decisions(outputs[measure.output])
        return given if given.ndim == 1 else None
