"""Measures a model's groups of units: how alike they are, and what it costs to remove some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from tfprune.calibration import Calibration, GroupStats
from tfprune.core.fold import FOLD_RULES
from tfprune.core.selection import Selection, without
from tfprune.criteria import CRITERIA, elimination, keep_one_per_layer, select_units
from tfprune.data.scoring import Scorer
from tfprune.folding import cuts_of
from tfprune.graph.clone import walk
from tfprune.graph.in_place import InPlace
from tfprune.graph.predictions import outputs_of
from tfprune.graph.shrink import Cut, shrink
from tfprune.inspection.records import DEGREES, SHARES, Redundancy, Sensitivity
from tfprune.inspection.structure import int8_bytes
from tfprune.options import PruneOptions
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter

FOLD = "least-squares"
VARIANCE = "output variance kept"


def redundancy_of(stats: GroupStats) -> Redundancy:
    """How many units of a group never change, or are close to others, by :data:`DEGREES`."""

    def gone(criterion: str, degrees: float) -> int:
        rule = CRITERIA[criterion].degrees
        assert rule is not None, "both take degrees"
        chosen = rule(stats, degrees, FOLD)
        return len(chosen.similar) + len(chosen.complementary) + len(chosen.least)

    size = len(stats.constant)
    dead = stats.constant.copy()
    for view in stats.views:
        dead[view.consumer.units] &= view.moments.mean == 0
    return Redundancy(
        stats.group.name,
        size,
        int(stats.constant.sum()),
        int(dead.sum()),
        tuple(gone("angle", degrees) for degrees in DEGREES),
        tuple(gone("span", degrees) for degrees in DEGREES),
    )


@dataclass(frozen=True)
class Size:
    """What is left of a model: the parameters, and about how many bytes in int8."""

    parameters: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Bench:
    """Prunes a calibrated model on trial, and scores what comes out.

    Attributes
    ----------
    calibration : Calibration
    x : list of arrays of shape (samples, ...)
        The samples that are scored.
    scorer : Scorer
        Of the same samples.
    """

    calibration: Calibration
    x: list[Array]
    scorer: Scorer

    @property
    def score(self) -> str:
        """What scores are, see :attr:`Measurements.score`."""
        if self.scorer.metric == "accuracy":
            return "accuracy"
        return VARIANCE if self.warning else "agreement"

    @cached_property
    def warning(self) -> str:
        """That agreement says nothing, where the model nearly always gives one answer."""
        share = self.scorer.one_sided
        if share is None:
            return ""
        return (
            f"the model gives one answer for {100 * share:.1f} % of the samples, so that "
            "agreement says next to nothing; scores are the share of the outputs' variance that is "
            "kept. Data with more of the other answers, or labels, say more"
        )

    @property
    def original(self) -> float:
        """The score of the model as it is."""
        return self._scored(self.scorer.reference)

    @cached_property
    def _tried(self) -> InPlace:
        calibration = self.calibration
        groups = [stats.group for stats in calibration.groups]
        return InPlace(calibration.model, calibration.trace, groups)

    def scored(self, selections: Sequence[Selection]) -> float:
        """The score without some units, folded and not trained."""
        with self._tried.without(self._cuts(selections)) as model:
            return self.score_of(model)

    def size(self, selections: Sequence[Selection]) -> Size:
        """What is left without some units."""
        smaller = self.built(selections)
        weights = sum(int8_bytes(layer) for layer in dict(walk(smaller)).values())
        return Size(smaller.count_params(), weights)

    def built(self, selections: Sequence[Selection]) -> keras.Model:
        """The smaller model, folded and not trained."""
        return shrink(self.calibration.model, self.calibration.trace, self._cuts(selections))

    def score_of(self, model: keras.Model) -> float:
        """The score of a model made of the one that was measured."""
        return self._scored(outputs_of(model, self.x))

    def _cuts(self, selections: Sequence[Selection]) -> list[Cut]:
        return cuts_of(self.calibration, selections, FOLD_RULES[FOLD])

    def by_share(self, shares: Sequence[float] = SHARES, progress: bool = False) -> list[Trial]:
        """What the model scores with each group alone cut by each of the shares."""
        groups = self.calibration.groups
        trials = []
        with meter("sensitivity", len(groups) * len(shares), progress, "cut") as bar:
            for place, stats in enumerate(groups):
                selections = _by_effect(stats, self.calibration, shares)
                scores = []
                for selection in selections:
                    one = [whole(other) for other in groups]
                    one[place] = selection
                    scores.append(self.scored(one))
                    bar.update()
                left = tuple(len(selection.kept) for selection in selections)
                trials.append(
                    Trial(Sensitivity(stats.group.name, left, tuple(scores)), tuple(selections))
                )
        return trials

    def within(self, degrees: float) -> list[Selection]:
        """The units that go from all groups at a threshold."""
        options = PruneOptions(degrees)
        return [
            keep_one_per_layer(stats.group, select_units(stats, self.calibration, options, place))
            for place, stats in enumerate(self.calibration.groups)
        ]

    def _scored(self, outputs: Sequence[Array]) -> float:
        scores = self.scorer.scores(outputs)
        if self.score == VARIANCE:
            return max(0.0, 1 - scores["output_error"] ** 2)
        return scores[self.score]


@dataclass(frozen=True, eq=False)
class Trial:
    """The sensitivity of a group, and the selections that it was measured with."""

    sensitivity: Sensitivity
    selections: tuple[Selection, ...]


def whole(stats: GroupStats) -> Selection:
    """The selection that keeps all units of a group."""
    return Selection(np.arange(len(stats.constant)))


def _by_effect(
    stats: GroupStats, calibration: Calibration, shares: Sequence[float]
) -> list[Selection]:
    """What ``remove`` takes from a group at each share: one order, cut at several places."""
    size = len(stats.constant)
    counts = [min(round(share * size), size - 1) for share in shares]
    order = elimination(stats, calibration.trace, max(counts)).order
    return [
        keep_one_per_layer(stats.group, without(order[:count], stats.constant)) for count in counts
    ]
