"""Searches for the smallest model within a drop in accuracy, on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

import keras

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
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter

# Of the drop that is asked for, what a model that is being healed may have to be good enough: its
# file may be worse.
ENOUGH = 1 / 2
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
        model, part = builder.model, builder.data.validation
        self.samples = len(part)
        self._x = check_inputs(model, part.x)
        self._measure = builder.measure.like(outputs_of(model, self._x), part)
        self._before = self._accuracy(self._measure.reference)

    def made(self, asked: Try) -> tuple[Variant, Measured]:
        """The model, with the file that was measured.

        Raises
        ------
        TfpruneError
            If there is no such model, or its file cannot be made.
        """
        drops: list[float] = []
        variant, one = self._made(asked, lambda model: self._settled(model, drops))
        good = bool(drops) and drops[-1] <= ENOUGH * self.points
        if good and not one.tried.fits:
            # The file does worse than the model.
            return self._made(asked)
        return variant, replace(one, brief=good)

    def _settled(self, model: keras.Model, drops: list[float]) -> bool:
        """Whether a model that is healed is good enough, or hardly will be; notes its drop."""
        drops.append(self._drop(outputs_of(model, self._x)))
        if drops[-1] <= ENOUGH * self.points:
            return True
        epochs = self.builder.config.heal
        half = isinstance(epochs, int) and 2 * len(drops) >= epochs
        # After the first epoch the second half of them gains hardly more than the first.
        return half and drops[-1] - self.points > drops[0] - drops[-1]

    def healed_to_the_end(self, asked: Try, one: Measured) -> tuple[Variant, Measured]:
        """The model of a try that fits, healed for all epochs, at the rate that it was healed at.

        Parameters
        ----------
        asked : Try
        one : Measured
            What came of it.
        """
        return self._made(replace(asked, rate=one.rate))

    def _made(
        self, asked: Try, enough: Callable[[keras.Model], bool] = lambda model: False
    ) -> tuple[Variant, Measured]:
        builder = self.builder
        keras.utils.set_random_seed(builder.config.seed)
        target = Target("params", asked.limit, blend=asked.blend, searched=True)
        options = replace(builder.config.options, max_drop=None, target=target)
        variant = builder.make(options, Trial(asked.rate, enough))
        variant, content = builder.with_file(variant, self.scheme, "--max-drop")
        drop = self._drop(LiteModel(content, builder.names).predict(self._x))
        reached = variant.result.reached
        assert reached is not None, "a target was asked for"
        tried = Tried(
            variant.models["pruned"].count_params(), len(content), round(drop, 4),
            drop <= self.points + 1e-9, reached.larger,
        )  # fmt: skip
        rate = next((one.learning_rate for one in variant.training if one.how == "heal"), None)
        return variant, Measured(tried, reached.blend, sha256(content).hexdigest(), rate or None)

    def _drop(self, outputs: Sequence[Array]) -> float:
        """Points of accuracy below the original model's."""
        return 100 * (self._before - self._accuracy(outputs))

    def _accuracy(self, outputs: Sequence[Array]) -> float:
        return self._measure.scores(outputs)["accuracy"]


def within_drop(
    builder: VariantBuilder, helpers: Helpers | None = None
) -> tuple[Variant, list[Tried]]:
    """Finds the smallest model whose file is at most so many points below the original model.

    Halves, on a scale of ratios, what is between the limit of parameters under which the smallest
    model did and the one under which the largest did not. Measured on the validation data, on the
    file of the first scheme.

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
    best: Variant | None = None
    asked_for: list[Try] = []
    heals = bool(builder.config.heal)

    def attempt(state: Halving, asked: Try) -> Measured:
        nonlocal best
        asked_for.append(asked)
        if helpers is not None:
            one = helpers.measured(state, asked, builder.say)
        else:
            variant, one = trials.made(asked)
            best = variant if one.tried.fits else best
        builder.say(f"max-drop: {_told(one.tried, trials)}")
        bar.update()
        return one

    with meter("search", TRIES, unit="model") as bar:
        options = builder.config.options
        ends = builder.pruner.parameters(options.round_to, options.fold)
        made = halve(attempt, *ends, heals)
        if helpers is not None:
            helpers.stop()
            best = _made_here(builder, asked_for, made)
    tried = [one.tried for one in made]
    if not made:
        why = "; ".join(f"{skip.name}: {skip.reason}" for skip in builder.pruner.skipped)
        raise TfpruneError(
            f"--max-drop: nothing can go ({why or 'no layer of the kinds asked for'}; --layers all "
            "may reach more)"
        )
    if best is None:
        least = min(tried, key=lambda one: one.drop)
        raise TfpruneError(
            f"--max-drop: {points:g} points cannot be held with a smaller {trials.scheme} file; "
            f"the least drop of {len(tried)} tries is {least.drop:.2f} at "
            f"{least.parameters:,} parameters (--heal EPOCHS may win it back)"
        )
    place = max(n for n, one in enumerate(tried) if one.fits)
    if made[place].brief:
        best = _healed_to_the_end(trials, asked_for[place], best, made[place])
    most = max((one.parameters for one in tried if not one.fits), default=None)
    builder.say(
        f"max-drop: stopped after {len(tried)} tries; the smallest that fits has "
        f"{best.models['pruned'].count_params():,} parameters"
        + ("" if most is None else f", the largest that does not {most:,}")
    )
    return best, tried


def _healed_to_the_end(trials: Trials, asked: Try, best: Variant, one: Measured) -> Variant:
    """The model that was found, healed for all epochs; as it is where that does worse."""
    variant, whole = trials.healed_to_the_end(asked, one)
    before, after = one.tried.drop, whole.tried.drop
    kept = "" if after <= before else ", so the model of the try is kept"
    trials.builder.say(
        f"max-drop: healed for all epochs {after:.2f} points down, {before:.2f} as tried{kept}"
    )
    return best if kept else variant


def _told(tried: Tried, trials: Trials) -> str:
    return (
        f"{tried.parameters:,} parameters, {trials.scheme} {tried.bytes:,} bytes, "
        f"{abs(tried.drop):.2f} points {'down' if tried.drop >= 0 else 'up'} on "
        f"{trials.samples:,} validation samples: " + ("fits" if tried.fits else "too much")
    )


def _made_here(
    builder: VariantBuilder, asked_for: Sequence[Try], made: list[Measured]
) -> Variant | None:
    """The smallest model that fits, made in this process; None if there is none.

    It is the one that was measured, to the byte, where the processors are alike. Where they are
    not, what is measured here counts, and takes its place in the list.
    """
    # What it has to say was said.
    trials = Trials(replace(builder, say=lambda line: None))
    for place in reversed([n for n, one in enumerate(made) if one.tried.fits]):
        variant, one = trials.made(asked_for[place])
        if one != made[place]:
            made[place] = one
            builder.say(
                "max-drop: the file made here is another one than the worker's, whose processor "
                f"rounds otherwise; measured again: {_told(one.tried, trials)}"
            )
        if one.tried.fits:
            return variant
    return None


def check_classes(measure: Scorer) -> None:
    """Raises :class:`TfpruneError` if there are no classes, whose accuracy could drop."""
    if measure.metric != "accuracy":
        raise TfpruneError(
            "--max-drop: expected data with labels of classes, to count points of accuracy; "
            "use another budget"
        )
