"""Scores the unpruned model, and checks that its data fits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment

from tfprune.calibration import check_enough
from tfprune.data.networks import load_model
from tfprune.data.scales import InputScale
from tfprune.data.scoring import Scorer, make_scorer
from tfprune.data.splits import Dataset, Split
from tfprune.errors import TfpruneError
from tfprune.graph.predictions import output_names, outputs_of
from tfprune.job.config import CommonConfig
from tfprune.job.records import Finding
from tfprune.outputs.decisions import losses_of, rules_of
from tfprune.utils.arrays import Array
from tfprune.utils.escapes import plain

# Samples that other ways of scaling are tried on.
TRIED = 300
# Samples, decisions, and reorderings of the labels that say what chance is.
HELD, MOST_DECISIONS, SHUFFLES = 2000, 10**6, 20
# What counts as clearly better than chance: of what is between chance and all right (Cohen's
# kappa), and in standard deviations of chance.
LEAST_KAPPA, DEVIATIONS = 0.1, 2.0
# Fewer samples tell nothing.
FEWEST = 10
# Points of accuracy, or of the share of the variance, by which another way has to be better.
BETTER = 0.05
# Names of classes that a line gives, and letters of each, at most.
NAMED, NAME = 12, 30


def check_samples(data: Dataset) -> None:
    """Raises :class:`TfpruneError` if there are too few samples to measure angles on."""
    whole = sum(len(part) for part in (data.train, data.validation, data.test))
    all_used = len(data.calibration) == len(data.train)
    check_enough(len(data.calibration), whole if all_used else None)


def scorer(
    config: CommonConfig, model: keras.Model, x: Sequence[Array], part: Split, data: Dataset
) -> Scorer:
    """How outputs for some samples are scored.

    Parameters
    ----------
    config : CommonConfig
        Names the file that has the compile settings, where they are needed.
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        The samples as the model takes them.
    part : Split
        The same samples with their labels.
    data : Dataset
        All its labels say what labels are.
    """

    outputs = outputs_of(model, x)
    parts = (data.train, data.validation, data.test)
    known = [one for one in parts if one.labelled]
    try:
        return measure_of(config, model, outputs, part, part.labelled_as(known) if known else part)
    except TfpruneError as error:
        if not data.classes:
            raise
        raise TfpruneError(f"{error}; {_named(data.classes)}") from None


def measure_of(
    config: CommonConfig,
    model: keras.Model,
    outputs: Sequence[Array],
    part: Split,
    known: Split,
) -> Scorer:
    """How outputs for some samples are scored, where all labels are those of ``known``."""

    def losses() -> list[Any]:
        if model.compiled or config.built_in:
            return losses_of(model)
        try:
            return losses_of(
                load_model(Path(config.model), config.unsafe, compiled=True, imports=config.import_)
            )
        except TfpruneError:  # The model itself was read before: it is a loss of the user's own.
            return []

    return make_scorer(
        outputs, part, rules_of(model, outputs, losses), known=known,
        names=output_names(model), only=config.output_name,
    )  # fmt: skip


def doubts(
    config: CommonConfig, model: keras.Model, x: Sequence[Array], measure: Scorer, data: Dataset
) -> list[Finding]:
    """Says that data and model do not seem to fit, in a line or two; nothing where they do.

    They do not where the model is no better than chance. Then likely other ranges, orders of the
    channels and orders of the classes are tried on a few hundred samples, else only the other
    choice of ``--scale``; the way under which the model is best is named if it is clearly better.

    Parameters
    ----------
    config : CommonConfig
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        As the model takes them.
    measure : Scorer
        Of these samples, labels with them.
    data : Dataset
        Says how the samples were scaled.
    """
    lines = []
    for one in measure.each:
        which = f"output {one.name}: " if measure.others else ""
        lines += [which + line for line in _doubts(config, model, x, one, data)]
    return [Finding("data", line) for line in lines]


def _named(classes: Sequence[str]) -> str:
    """The classes of the data, by their names, the first of them."""
    names = ", ".join(plain(name)[:NAME] for name in classes[:NAMED])
    more = ", ..." if len(classes) > NAMED else ""
    return f"the data has {len(classes)} class{'es' * (len(classes) != 1)} ({names}{more})"


def _doubts(
    config: CommonConfig, model: keras.Model, x: Sequence[Array], measure: Scorer, data: Dataset
) -> list[str]:
    if measure.target is None or len(measure.target) < FEWEST:
        return []
    order = np.random.default_rng(0).permutation(len(measure.target))
    chance = by_chance(measure)
    lines = []
    if measure.classifies and len(np.unique(measure.target)) == 1:
        lines.append("all labels are the same; are they what the model answers?")
    classes = measure.reference[measure.output].shape[-1]
    if data.classes and measure.classifies and len(data.classes) != classes:
        lines.append(
            f"{_named(data.classes)}, and the model answers with one of {classes}: label 0 is its "
            "class 0, and so on; are they the classes that it learnt, in that order?"
        )
    if chance:
        score = said(measure, measure.reference)
        lines.append(f"the original scores {score}, no better than chance ({chance})")
        if config.built_in:
            return [f"{lines[-1]}; train it longer with --epochs"]
        lines[-1] = (
            f"data and model do not seem to fit: {lines[-1]}; the model got {_ranges(x, data)}; "
            "check the range that it was trained on (--scale none leaves data as it is), the order "
            "of the channels and that of the classes"
        )
    if config.built_in:
        return []
    some = order[:TRIED]
    now = measure.some(some)
    before = skill(now, now.reference)
    best: tuple[str, str] | None = None
    for words, arrays in _others(
        config, [np.asarray(one[some]) for one in x], data.scales, bool(chance)
    ):
        outputs = outputs_of(model, arrays)
        then = now.like(outputs, Split(arrays[0])) if now.labels == "input" else now
        gain = skill(then, outputs) - before
        noise = DEVIATIONS * float(gain.std()) / len(some) ** 0.5
        # One that comes later has to be clearly better than one that a flag does.
        if gain.mean() > max(BETTER, noise):
            best, before = (words, said(then, outputs)), skill(then, outputs)
    reordered = _other_classes(measure, data.classes) if chance else None
    # Any change of the values may gain something where the classes are mixed up.
    if reordered and (not best or reordered[1] > float(before.mean()) + BETTER):
        lines.append(reordered[0])
    elif best:
        lead = "" if chance else "data and model do not seem to fit: "
        lines.append(
            f"{lead}with {best[0]} the original scores {best[1]}, as it is "
            f"{said(now, now.reference)} (of {len(some)} samples)"
        )
    return lines


def by_chance(measure: Scorer) -> str:
    """What chance scores, in words, if the original is not clearly better; else nothing.

    Nor is anything said without labels, or of a few samples.
    """
    if measure.target is None or len(measure.target) < FEWEST:
        return ""
    order = np.random.default_rng(0).permutation(len(measure.target))
    most = max(MOST_DECISIONS // measure.target[0].size, FEWEST)
    return _chance(measure.some(order[: min(HELD, most)]))


def _chance(measure: Scorer) -> str:
    outputs, target = measure.reference, measure.target
    assert target is not None, "there are labels"
    if measure.metric == "mse":
        spread = float(np.mean((target - target.mean(axis=0)) ** 2))
        poor = spread > 0 and measure.scores(outputs)["mse"] >= spread
        return f"mse {spread:.4g} for always the mean" if poor else ""
    decided = measure.rules[measure.output].decisions(outputs[measure.output])
    counts = np.unique(target, return_counts=True)[1]
    share = counts.max() / counts.sum()
    if len(counts) < 2:
        return ""
    score = float(np.mean(decided == target))
    rng = np.random.default_rng(0)
    luck = [np.mean(decided == target[rng.permutation(len(target))]) for _ in range(SHUFFLES)]
    # The same decisions for the samples in another order.
    expected, deviation = float(np.mean(luck)), float(np.std(luck))
    kappa = (score - expected) / (1 - expected) if expected < 1 else 0.0
    poor = kappa < LEAST_KAPPA or score - expected < DEVIATIONS * deviation
    words = f"{100 * expected:.2f} % with the labels in another order"
    if measure.labels != "yes or no":
        # Below what takes no model at all.
        margin = DEVIATIONS * float(np.sqrt(share * (1 - share) / len(target)))
        poor = poor or score < share - margin
        words = f"{100 * share:.2f} % for always the most frequent class"
    return words if poor else ""


def skill(measure: Scorer, outputs: Sequence[Array]) -> Array:
    """Each sample's accuracy, or 1 less its squared error relative to the target's variance."""
    if measure.metric == "accuracy":
        right = measure.right(outputs)
        return right.reshape(len(right), -1).mean(axis=1)
    target = measure.target
    assert target is not None, "there are labels"
    spread = float(np.mean((target - target.mean(axis=0)) ** 2)) or 1.0
    errors = (outputs[measure.output].astype(float) - target) ** 2
    return 1 - errors.reshape(len(errors), -1).mean(axis=1) / spread


def said(measure: Scorer, outputs: Sequence[Array]) -> str:
    scores = measure.scores(outputs)
    return (
        f"{100 * scores['accuracy']:.2f} %" if "accuracy" in scores else f"mse {scores['mse']:.4g}"
    )


def _ranges(x: Sequence[Array], data: Dataset) -> str:
    """From where to where the values lie that the model got, in words."""
    names = list(data.test.x) if isinstance(data.test.x, dict) else [""]
    ranges = []
    for name, array, scale in zip(names, x, data.scales, strict=True):
        how = "" if scale.unchanged else f", {scale}"
        what = f" for {name}" if name else ""
        mean = f"(mean {array.mean():.4g}{how})"
        ranges.append(f"values from {array.min():.4g} to {array.max():.4g}{what} {mean}")
    return ", ".join(ranges)


def _others(
    config: CommonConfig, x: Sequence[Array], scales: Sequence[InputScale], all_ways: bool
) -> Iterator[tuple[str, list[Array]]]:
    """Other ways of bringing samples to the model: what to do, and the samples then."""
    auto = config.scale == "auto"
    ways = []
    flag_factor = None
    plain = not auto and any(str(one) != str(InputScale(one.dtype, one.auto)) for one in scales)
    pairs = [(one, InputScale(one.dtype, one.auto if plain else 1.0)) for one in scales]
    if any(str(one) != str(other) for one, other in pairs):
        flag = f"--scale {'auto' if plain else 'none'}"
        arrays = [b.scaled(a.raw(one)) for one, (a, b) in zip(x, pairs, strict=True)]
        ways.append((flag, arrays))
        flag_factor = _factor(pairs)
    if not all_ways:
        yield from ways
        return
    floats = [one.dtype.kind == "f" for one in x]
    low = (
        min(float(one.min()) for one, real in zip(x, floats, strict=True) if real)
        if any(floats)
        else 0.0
    )
    high = max((float(one.max()) for one, real in zip(x, floats, strict=True) if real), default=0.0)
    if high > 2:
        changes = [("divided by 255", 1 / 255, 0.0), ("divided by 127.5, less 1", 1 / 127.5, -1.0)]
    elif low >= 0:
        changes = [("times 255", 255.0, 0.0), ("times 2, less 1", 2.0, -1.0)]
    else:
        changes = [("times 127.5, plus 127.5", 127.5, 127.5), ("halved, plus 0.5", 0.5, 0.5)]
    for words, factor, offset in changes if any(floats) else []:
        if offset == 0 and flag_factor is not None and np.isclose(flag_factor, factor):
            continue  # The flag does the same.
        arrays = [
            one * np.float32(factor) + np.float32(offset) if real else one
            for one, real in zip(x, floats, strict=True)
        ]
        ways.append((f"the values that it got {words} (in your file, and --scale none)", arrays))
    yield from ways
    if any(one.shape[-1] == 3 and one.ndim == 4 for one in x):
        for words, arrays in [("", list(x)), *ways]:
            turned = [
                one[..., ::-1] if one.ndim == 4 and one.shape[-1] == 3 else one for one in arrays
            ]
            also = f"{words} and " if words else ""
            yield f"{also}the channels in reverse order (BGR for RGB)", turned


def _factor(pairs: Sequence[tuple[InputScale, InputScale]]) -> float | None:
    """The one number that values in the first scale are multiplied by for the second, if any."""
    factors = set()
    for one, other in pairs:
        if isinstance(one.factor, tuple) or one.offset != 0 or one.reverse:
            return None
        assert isinstance(other.factor, float), "that of --scale auto or none"
        factors.add(other.factor / one.factor)
    return factors.pop() if len(factors) == 1 else None


def _other_classes(measure: Scorer, names: Sequence[str]) -> tuple[str, float] | None:
    """Says so if decisions follow the labels, but under other numbers; and the accuracy then.

    The assignment is made on half of the samples and scored on the other half, as with many
    classes some assignment fits any samples.
    """
    output = measure.reference[measure.output]
    if measure.metric != "accuracy" or measure.rules[measure.output].alone:
        return None
    classes = output.shape[-1]
    decided = measure.rules[measure.output].decisions(output)
    target = np.asarray(measure.target).astype(np.intp)
    half = len(target) // 2
    table = np.zeros((classes, classes), np.intp)
    np.add.at(table, (target[:half].ravel(), decided[:half].ravel()), 1)
    assigned = linear_sum_assignment(-table)[1]
    score = float(np.mean(assigned[target[half:]] == decided[half:]))
    before = float(np.mean(target[half:] == decided[half:]))
    if score < max(before + BETTER, 1 / classes + 0.25):
        return None
    moved = [(label, place) for label, place in enumerate(assigned) if label != place]
    said_as = [f"{label} is its class {place}" for label, place in moved[:4]]
    shown = ", ".join(said_as) + (", ..." if len(moved) > 4 else "")
    how = "is it the order in which the model learnt them?"
    if len(names) == classes:
        label, place = moved[0]
        number = str(place).zfill(len(str(classes - 1)))
        how += (
            f" If it is, put the model's numbers before the names, {number}_{names[label]} say, as "
            "names count in alphabetical order"
        )
    words = (
        f"with the classes in another order (label {shown}) the original scores "
        f"{100 * score:.2f} %: {how}"
    )
    return words, score
