"""Compares the sizes of two sets of models with their limits; standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfprune.gate.limits import Config, Limits
from tfprune.gate.sizes import Model, Side

# Floating-point noise of a difference of accuracies, in points.
NOISE = 1e-9


@dataclass(frozen=True)
class Row:
    """One model in both sets.

    Attributes
    ----------
    name : str
    baseline, candidate : int or None
        Bytes; None where the model is not there.
    budget : int or None
        Bytes.
    drop : float or None
        Points of accuracy lost, negative if gained; None where unknown.
    accuracy : float or None
        The candidate's, 0 to 1.
    verdict : str
        ``pass``, ``warn``, ``fail``, ``added`` or ``removed``.
    failed : bool
        Whether it fails the gate.
    reason : str
    """

    name: str
    baseline: int | None
    candidate: int | None
    budget: int | None
    drop: float | None
    accuracy: float | None
    verdict: str
    failed: bool
    reason: str

    @property
    def delta(self) -> int:
        """Bytes gained."""
        return (self.candidate or 0) - (self.baseline or 0)

    @property
    def percent(self) -> float | None:
        """Bytes gained, in percent of the baseline."""
        return 100 * self.delta / self.baseline if self.baseline else None

    @property
    def left(self) -> int | None:
        """Bytes left of the budget, negative if over it."""
        if self.budget is None or self.candidate is None:
            return None
        return self.budget - self.candidate

    @property
    def changed(self) -> bool:
        """Whether there is something to see."""
        return self.verdict != "pass" or self.delta != 0 or bool(self.drop)


@dataclass(frozen=True)
class Comparison:
    """All rows, and what was noticed besides.

    Attributes
    ----------
    rows : tuple of Row
    warnings : tuple of str
    """

    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether the gate is shut."""
        return any(row.failed for row in self.rows)

    @property
    def baseline(self) -> int:
        """Bytes of all models before."""
        return sum(row.baseline or 0 for row in self.rows)

    @property
    def candidate(self) -> int:
        """Bytes of all models now."""
        return sum(row.candidate or 0 for row in self.rows)


def compare(baseline: Side, candidate: Side, config: Config) -> Comparison:
    """Holds the candidate against the baseline and the limits."""
    names = sorted({*baseline.models, *candidate.models})
    rows = [
        _row(name, baseline.models.get(name), candidate.models.get(name), config, candidate.failed)
        for name in names
    ]
    warnings = [*baseline.warnings, *candidate.warnings]
    warnings += [
        f"{name}: could not be made: {reason}"
        for name, reason in candidate.failed.items()
        if name not in names
    ]
    if baseline.tensorflow and candidate.tensorflow and baseline.tensorflow != candidate.tensorflow:
        warnings.append(
            f"the baseline was made with TensorFlow {baseline.tensorflow}, the candidate with "
            f"{candidate.tensorflow}: differences may be the converter's"
        )
    apart = baseline.data and candidate.data and baseline.data != candidate.data
    if apart and any(row.drop for row in rows):
        warnings.append(
            "accuracy was measured on other data than the baseline's, and may differ by that "
            "alone; measure both on the same data"
        )
    for rule in config.dead_rules(names):
        warnings.append(f"the limits for {rule.match!r} (line {rule.line}) match no model")
    return Comparison(tuple(rows), tuple(warnings))


def _row(
    name: str,
    old: Model | None,
    new: Model | None,
    config: Config,
    not_made: Mapping[str, str],
) -> Row:
    limits = config.limits_for(name)
    drop = None
    if old and new and old.accuracy is not None and new.accuracy is not None:
        drop = 100 * (old.accuracy - new.accuracy)
    reasons = _reasons(old, new, drop, limits)
    failed = bool(reasons)
    verdict = "fail" if failed else "pass"
    if new is None and name in not_made:
        failed, verdict, reasons = True, "fail", [f"could not be made: {not_made[name]}"]
    elif new is None:
        failed = not config.allow_removed
        allowed = "removed, and that is not allowed (--allow-removed)"
        verdict, reasons = "removed", [allowed if failed else "removed"]
    elif old is None:
        verdict = "fail" if failed else "added"
        reasons = reasons or ["not in the baseline"]
    elif not failed and old.accuracy is not None and new.accuracy is None:
        verdict, reasons = "warn", ["its accuracy is not known any more"]
    return Row(
        name=name,
        baseline=old.bytes if old else None,
        candidate=new.bytes if new else None,
        budget=limits.budget,
        drop=drop,
        accuracy=new.accuracy if new else None,
        verdict=verdict,
        failed=failed,
        reason="; ".join(reasons),
    )


def _reasons(
    old: Model | None, new: Model | None, drop: float | None, limits: Limits
) -> Sequence[str]:
    """Why a model fails, if it does."""
    if new is None:
        return []
    reasons = []
    if limits.budget is not None and new.bytes > limits.budget:
        reasons.append(f"{new.bytes - limits.budget:,} B over its budget of {limits.budget:,} B")
    if old is not None:
        grown = new.bytes - old.bytes
        if grown > limits.slack and 100 * grown > limits.max_increase * old.bytes:
            reasons.append(
                f"{grown:,} B more, over both {limits.max_increase:g} % and {limits.slack:,} B"
            )
    if drop is not None and drop > limits.max_drop + NOISE:
        reasons.append(f"accuracy {drop:.2f} points lower, over {limits.max_drop:g}")
    return reasons
