"""Searches for the smallest model within a drop in accuracy, on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

import keras
import numpy as np

from tfprune.data.scoring import Scorer
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.halving import TRIES, Halving, Measured, Try, halve
from tfprune.job.records import Tried
from tfprune.job.retraining import Trial
from tfprune.job.variants import Variant, VariantBuilder
from tfprune.options import Target
from tfprune.tflite.interpreter import LiteModel
from tfprune.training.learning_rates import CYCLES
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter

# Of the drop that is asked for, what a model that is being healed may have to be good enough: its
# file may be worse.
ENOUGH = 1 / 2
# So many times the drop that is asked for, or so many points where that is less than one, no model
# wins back in haste after an epoch of healing.
HOPELESS = 8
# Samples that a try is refitted on, and one that is healed after that.
REFITTED, REFITTED_BEFORE = 1024, 512
# A try is healed for one of so many parts of the epochs that are asked for.
PARTS = 3
# Where a model that was made in haste is down by more than asked for, but not by this factor more,
# it is made in full: it may still fit. The other factor is that where models are healed.
HOPEFUL, HEALED = 1.5, 2.5
# Where models are made in haste, the search ends when what it halves is no wider than this ratio.
CLOSE, CLOSE_HEALED = 1.05, 1.1
# Where one answer is more than this part of the drop that is asked for, that is said.
COARSE = 3


class Helpers(Protocol):
    """Others who make the tries of a search, several at once."""

    def measured(self, state: Halving, asked: Try, say: Callable[[str], None]) -> Measured:
        """What came of the try that a search asks for; what it has to say is told."""

    def stop(self) -> None:
        """Ends them: the search is over."""


class Trials:
    """Makes the models of a search and measures the files of the first scheme.

    Whoever makes a model makes the same one, whatever was made before.

    Parameters
    ----------
    builder : VariantBuilder
        Its options have a ``max_drop``, in place of which a target is set here.
    """

    def __init__(self, builder: VariantBuilder) -> None:
        points = builder.config.options.max_drop
        assert points is not None, "it was asked for"
        self.builder, self.points = builder, points
        self.scheme = builder.config.schemes[0]
        part = builder.data.validation
        self.samples = len(part)
        self._x = check_inputs(builder.model, part.x)
        self._measure = builder.measure.like(outputs_of(builder.original, self._x), part)
        self._before = self._accuracy(self._measure.reference)

    def made(self, asked: Try) -> tuple[Variant, Measured]:
        """The model, with the file that was measured.

        Made in haste where that is shorter and leaves no doubt whether the model fits.

        Raises
        ------
        TfpruneError
            If there is no such model, or its file cannot be made.
        """
        variant, one = self._made(asked, self.brief)
        most = (HEALED if self.builder.config.heal else HOPEFUL) * self.points
        if not one.brief or not self.points < one.tried.drop <= most:
            return variant, one
        self.builder.say(
            f"max-drop: {one.tried.parameters:,} parameters, {_points(one.tried)} in haste; "
            "made in full"
        )
        return self.in_full(asked, variant, one)

    def in_full(self, asked: Try, variant: Variant, one: Measured) -> tuple[Variant, Measured]:
        """A model of the same widths, refitted in all steps and healed for all epochs.

        What was healed, and is not trained in other ways after that, is healed on.

        Parameters
        ----------
        asked : Try
        variant : Variant
            What was made in haste.
        one : Measured
            What came of it.
        """
        heal, start = self.builder.config.heal, brief_epochs(self.builder.config.heal)
        if self.builder.can_heal_on and heal != start:
            left = heal if heal == "auto" else int(heal or 0) - int(start or 0)
            variant = self.builder.healed_on(
                variant, Trial(left, augment=self.builder.config.augment)
            )
            return self._tried(variant, brief=False)
        return self._made(Try(asked.limit, one.blend), False)

    @property
    def brief(self) -> bool:
        """Whether tries are made in haste: healed for fewer epochs, or refitted in fewer steps."""
        config, options = self.builder.config, self.builder.config.options
        refitted = options.refit is None and options.fold == "least-squares"
        return refitted or brief_epochs(config.heal) != config.heal

    def _made(self, asked: Try, brief: bool) -> tuple[Variant, Measured]:
        builder = self.builder
        epochs = brief_epochs(builder.config.heal) if brief else builder.config.heal

        def is_clear(model: keras.Model) -> bool:
            drop = self._drop(outputs_of(model, self._x))
            return brief and not ENOUGH * self.points < drop <= HOPELESS * max(self.points, 1.0)

        keras.utils.set_random_seed(builder.config.seed)
        few = REFITTED_BEFORE if epochs else REFITTED
        target = Target("params", asked.limit, blend=asked.blend, searched=few if brief else None)
        options = replace(builder.config.options, max_drop=None, target=target)
        # In front of samples that change each time the original answers anew for every step.
        trial = Trial(epochs or 0, is_clear, builder.config.augment and not brief)
        return self._tried(builder.make(options, trial), brief)

    def _tried(self, variant: Variant, brief: bool) -> tuple[Variant, Measured]:
        """A variant with the file that is measured."""
        builder = self.builder
        variant, content = builder.with_file(variant, self.scheme, "--max-drop")
        outputs = LiteModel(content, builder.names).predict(self._x)
        drop = self._drop(outputs)
        reached = variant.result.reached
        assert reached is not None, "a target was asked for"
        tried = Tried(
            variant.models["pruned"].count_params(), len(content), round(drop, 4),
            drop <= self.points + 1e-9, reached.larger, round(self._margin(outputs), 4),
        )  # fmt: skip
        digest = sha256(content).hexdigest()
        return variant, Measured(tried, reached.blend, digest, brief)

    def _drop(self, outputs: Sequence[Array]) -> float:
        """Points of accuracy below the original model's."""
        return 100 * (self._before - self._accuracy(outputs))

    def _margin(self, outputs: Sequence[Array]) -> float:
        """Two standard errors of that, in points, of the answers whose rightness changed."""
        measure = self._measure
        before, after = (measure.right(one) for one in (measure.reference, outputs))
        lost = before.astype(float) - after
        # Where no answer changed, one more sample might.
        return 200 * max(float(np.std(lost)) / lost.size**0.5, 1 / lost.size)

    def _accuracy(self, outputs: Sequence[Array]) -> float:
        return self._measure.scores(outputs)["accuracy"]


def within_drop(
    builder: VariantBuilder, helpers: Helpers | None = None
) -> tuple[Variant, list[Tried]]:
    """Finds the smallest model whose file is at most so many points below the original model.

    Halves, on a scale of ratios, what is between the limit of parameters under which the smallest
    model did and the one under which the largest did not. Measured on the validation data, on the
    file of the first scheme.

    The models that are tried are refitted in fewer steps, and healed for a third of the epochs, on
    samples as they are.
    One that is then up to one and a half times as far down as asked for, or two and a half times
    where models are healed, is made in full, and so is the one that is found.

    Parameters
    ----------
    builder : VariantBuilder
        See :class:`Trials`.
    helpers : Helpers, optional
        Make the tries in place of this process, which then makes the best model again.

    Returns
    -------
    variant : Variant
        With the file that was measured.
    tried : list of Tried

    Raises
    ------
    TfpruneError
        If no model was found; says the least drop there was, or that there is no smaller model.
    """
    trials = Trials(builder)
    points, samples = trials.points, trials.samples
    each = 100 / max(samples, 1)
    if each > points / COARSE:
        builder.say(
            f"max-drop: {samples:,} validation samples, so that one answer is {each:.2f} points; "
            "more data makes the search finer"
        )
    search = _Search(trials, helpers)
    with meter("search", TRIES, unit="model") as bar:
        best = search.best(bar.update)
    tried = search.tried
    if not tried:
        calibration = builder.pruner.calibration
        why = "; ".join(f"{skip.name}: {skip.reason}" for skip in calibration.skipped)
        more = any(one.prunable for one in calibration.others)
        raise TfpruneError(
            f"--max-drop: nothing can go ({why or 'no layer of the kinds asked for'}"
            f"{'; --layers all may reach more' if more else ''})"
        )
    if best is None:
        least = min(tried, key=lambda one: one.drop)
        advice = "more epochs of --heal" if builder.config.heal else "--heal EPOCHS"
        raise TfpruneError(
            f"--max-drop: {points:g} points cannot be held with a smaller {trials.scheme} file; "
            f"the least drop of {len(tried)} tries is {least.drop:.2f} at "
            f"{least.parameters:,} parameters ({advice} may win it back)"
        )
    found = best.models["pruned"].count_params()
    last = next(one for one in reversed(tried) if one.fits and one.parameters == found)
    below = [one.parameters for one in tried if not one.fits and one.parameters < found]
    builder.say(
        f"max-drop: stopped after {len(tried)} tries; the smallest that fits has {found:,} "
        "parameters"
        + (f", the largest that does not {max(below):,}" if below else "")
        + f"; that it is {_points(last)} is known to ± {last.margin or 0:.2f} on {samples:,} "
        "samples (two standard errors)"
    )
    return best, tried


class _Search:
    """A search for the smallest model within a drop.

    Parameters
    ----------
    trials : Trials
    helpers : Helpers or None

    Attributes
    ----------
    tried : list of Tried
        Models that were measured, in their order.
    """

    def __init__(self, trials: Trials, helpers: Helpers | None) -> None:
        self._trials, self._helpers = trials, helpers
        self.tried: list[Tried] = []
        self._asked: list[Try] = []
        # The last one that fits, where it is made in this process.
        self._fitting: Variant | None = None

    def best(self, drawn: Callable[[], Any]) -> Variant | None:
        """The smallest model that fits; None if none was found. ``drawn`` is called at each try."""
        trials, builder = self._trials, self._trials.builder

        def attempt(state: Halving, asked: Try) -> Measured:
            one = self._measured(state, asked)
            self._asked.append(asked)
            self.tried.append(one.tried)
            builder.say(f"max-drop: {_told(one.tried, trials)}")
            drawn()
            return one

        options = builder.config.options
        ends = builder.pruner.parameters(options.round_to, options.fold)
        heals = bool(builder.config.heal)
        close = (CLOSE_HEALED if heals else CLOSE) if trials.brief else 1.0
        made = halve(attempt, *ends, close=close)
        if self._helpers is not None:
            self._helpers.stop()
        # The later one of two that fit is the smaller.
        for place in reversed([n for n, one in enumerate(made) if one.tried.fits]):
            variant, one = self._made_here(place, made[place])
            if one.tried.fits:
                return self._in_full(place, variant, one) if one.brief else variant
        return None

    def _measured(self, state: Halving, asked: Try) -> Measured:
        """What came of a try."""
        if self._helpers is not None:
            return self._helpers.measured(state, asked, self._trials.builder.say)
        variant, one = self._trials.made(asked)
        self._fitting = variant if one.tried.fits else self._fitting
        return one

    def _made_here(self, place: int, one: Measured) -> tuple[Variant, Measured]:
        """The model of a try, made in this process.

        It is the one that was measured, to the byte, where the processors are alike. Where they are
        not, what is measured here counts, and takes its place in the list.
        """
        if self._fitting is not None:
            return self._fitting, one
        # What it has to say was said.
        builder = self._trials.builder
        trials = Trials(replace(builder, say=lambda line: None))
        variant, again = trials.made(self._asked[place])
        if again != one:
            self.tried[place] = again.tried
            builder.say(
                "max-drop: the file made here is another one than the worker's, whose processor "
                f"rounds otherwise; measured again: {_told(again.tried, trials)}"
            )
        return variant, again

    def _in_full(self, place: int, variant: Variant, one: Measured) -> Variant:
        """The model that was found, made in full; as it is where that does worse."""
        other, whole = self._trials.in_full(self._asked[place], variant, one)
        kept = whole.tried.drop > one.tried.drop
        self._trials.builder.say(
            f"max-drop: made in full {_points(whole.tried)}, {_points(one.tried)} in haste"
            + ("; that is kept" if kept else "")
        )
        if kept:
            return variant
        self.tried[place] = whole.tried
        return other


def brief_epochs(epochs: int | str | None) -> int | str | None:
    """The epochs by which a model is healed that is only tried: a third of those asked for.

    Examples
    --------
    >>> brief_epochs(20), brief_epochs(1), brief_epochs("auto"), brief_epochs(None)
    (7, 1, 2, None)
    """
    if epochs == "auto":
        return CYCLES[0]
    return epochs and -(-int(epochs) // PARTS)


def _told(tried: Tried, trials: Trials) -> str:
    return (
        f"{tried.parameters:,} parameters, {trials.scheme} {tried.bytes:,} bytes, "
        f"{_points(tried)} on {trials.samples:,} validation samples: "
        + ("fits" if tried.fits else "too much")
    )


def _points(tried: Tried) -> str:
    return f"{abs(tried.drop):.2f} points {'down' if tried.drop >= 0 else 'up'}"


def check_classes(measure: Scorer) -> None:
    """Raises :class:`TfpruneError` if there are no classes, whose accuracy could drop."""
    if measure.metric != "accuracy":
        raise TfpruneError(
            "--max-drop: expected data with labels of classes, to count points of accuracy; "
            "use another budget"
        )
