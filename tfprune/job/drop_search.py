"""Searches for the smallest model within a drop in accuracy, on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from tfprune.data.scoring import Scorer
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.records import Tried
from tfprune.job.variants import Variant, VariantBuilder
from tfprune.options import PruneOptions, Target
from tfprune.tflite.interpreter import LiteModel
from tfprune.utils.console import meter

# Models that a search makes.
TRIES = 8
# Of the parameters, what the first try has at least: half-way, by ratio, to the least there can be
# is a network that few can be cut down to.
BOLDEST = 1 / 4
# Where one answer is more than this part of the drop that is asked for, that is said.
COARSE = 3


def within_drop(builder: VariantBuilder, options: PruneOptions) -> tuple[Variant, list[Tried]]:
    """Finds the smallest model whose file is at most so many points below the original model.

    Halves, on a scale of ratios, what is between the parameters of the smallest model that did and
    of the largest that did not. Measured on the validation data, on the file of the first scheme.

    Parameters
    ----------
    builder : VariantBuilder
    options : PruneOptions
        With ``max_drop``, in place of which the target is set here.

    Returns
    -------
    variant : Variant
        With the file that was measured.
    tried : list of Tried

    Raises
    ------
    TfpruneError
        If no model was found; says the least drop there was.
    """
    points = options.max_drop
    assert points is not None, "it was asked for"
    scheme = builder.config.schemes[0]
    model, part = builder.model, builder.data.validation
    x = check_inputs(model, part.x)
    measure = builder.measure.like(outputs_of(model, x), part)
    before = measure.scores(measure.reference)["accuracy"]
    each = 100 / max(len(part), 1)
    if each > points / COARSE:
        builder.say(
            f"max-drop: {len(part):,} validation samples, so that one answer is {each:.2f} points; "
            "more data makes the search finer"
        )
    best: Variant | None = None
    blend: float | None = None
    asked = 0

    def attempt(limit: int) -> Tried:
        nonlocal best, blend, asked
        asked += 1
        target = Target("params", limit, blend=blend, searched=True)
        variant = builder.make(replace(options, max_drop=None, target=target))
        variant, content = builder.with_file(variant, scheme, "--max-drop")
        received = LiteModel(content, builder.names).predict(x)
        drop = 100 * (before - measure.scores(received)["accuracy"])
        fits = drop <= points + 1e-9
        reached = variant.result.reached
        assert reached is not None, "a target was asked for"
        if fits:
            best = variant
        if fits or asked > 1:
            # Which widths do best is asked until some fit, or twice, and then taken as known.
            blend = reached.blend
        parameters = variant.models["pruned"].count_params()
        tried = Tried(parameters, len(content), round(drop, 4), fits, reached.larger)
        builder.say(
            f"max-drop: {tried.parameters:,} parameters, {scheme} {tried.bytes:,} bytes, "
            f"{abs(tried.drop):.2f} points {'down' if tried.drop >= 0 else 'up'} on "
            f"{len(part):,} validation samples: " + ("fits" if fits else "too much")
        )
        bar.update()
        return tried

    with meter("search", TRIES, unit="model") as bar:
        tried = halving(attempt, *builder.pruner.parameters(options.round_to))
    if best is None:
        least = min(tried, key=lambda one: one.drop)
        raise TfpruneError(
            f"--max-drop: {points:g} points cannot be held with a smaller {scheme} file; the least "
            f"drop of {len(tried)} tries is {least.drop:.2f} at {least.parameters:,} parameters "
            "(--heal EPOCHS may win it back)"
        )
    most = max((one.parameters for one in tried if not one.fits), default=None)
    builder.say(
        f"max-drop: stopped after {len(tried)} tries; the smallest that fits has "
        f"{best.models['pruned'].count_params():,} parameters"
        + ("" if most is None else f", the largest that does not {most:,}")
    )
    return best, tried


def check_classes(measure: Scorer) -> None:
    """Raises :class:`TfpruneError` if there are no classes, whose accuracy could drop."""
    if measure.metric != "accuracy":
        raise TfpruneError(
            "--max-drop: expected data with labels of classes, to count points of accuracy; "
            "use another budget"
        )


def halving(attempt: Callable[[int], Tried], whole: int, least: int) -> list[Tried]:
    """Searches between two numbers of parameters by bisection.

    Parameters
    ----------
    attempt : callable
        Limit -> what was measured; expected to fit where a smaller one does. Limits between it and
        the next larger model lead to the same one, so they are not tried.
    whole, least : int
        Parameters of the original model, and of the smallest that there can be.
    """
    tried: list[Tried] = []
    large, small = float(whole), float(least)
    while len(tried) < TRIES and large - small >= 1:
        middle = math.sqrt(large * small)
        if not tried:
            middle = max(middle, BOLDEST * large)
        one = attempt(int(middle))
        tried.append(one)
        if one.fits:
            large = min(one.parameters, middle)
        else:
            small = max(middle, one.larger or 0)
    return tried
