"""What a run has to say beside its figures: what pruning or quantisation cost, what did not shrink.

Every finding has the figures before and after, and what to type instead.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.core.metrics import LIMITS, metric_of
from tfprune.job.config import AMOUNTS, JobConfig
from tfprune.job.records import Artifact, Finding
from tfprune.options import SHARE_FOLDS
from tfprune.results import EVEN, LayerResult
from tfprune.tflite.schemes import SCHEMES
from tfprune.utils.option_table import flag

HEAL, QAT, FINETUNE = 10, 3, 5

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run whose files were measured.

    Attributes
    ----------
    config : JobConfig
    command : sequence of str
        The command line that asked for it.
    layers : sequence of LayerResult
    artifacts : sequence of Artifact
        With their scores on the test data.
    floats : mapping of str to scores
        By variant, those of the model in float32, file or not.
    judged_by : sequence of str
        Which scores say whether a file is as good: some of ``accuracy``, ``agreement``,
        ``output_error``, the last two with ``_NAME`` of one of several outputs.
    samples : int
        Test samples.
    filters : bool
        Whether the model has convolutions.
    quantisable : callable
        Says whether the model can be trained for int8; takes seconds, so it is asked when needed.
    qat_kept : bool
        False where quantisation-aware training was asked for and did worse than none.
    """

    config: JobConfig
    command: Sequence[str]
    layers: Sequence[LayerResult]
    artifacts: Sequence[Artifact]
    floats: Mapping[str, Scores]
    judged_by: Sequence[str]
    samples: int
    filters: bool = False
    quantisable: Callable[[], bool] = lambda: True
    qat_kept: bool = True

    @property
    def limits(self) -> dict[str, float]:
        """How much may be lost of each score; a drop that was asked for is no surprise."""
        limits = {name: LIMITS[metric_of(name)[0]] for name in self.judged_by}
        if "accuracy" in limits and self.config.options.max_drop is not None:
            limits["accuracy"] = max(limits["accuracy"], self.config.options.max_drop / 100)
        return limits

    def of(self, variant: str) -> dict[str, Artifact]:
        """The files of a variant by their schemes."""
        return {one.scheme: one for one in self.artifacts if one.variant == variant}

    def typed(self, *words: str, without: Sequence[str] = ()) -> str:
        """The command with other flags, as it is typed.

        Parameters
        ----------
        words : str
            Flags and their values, which take the place of the same flags.
        without : sequence of str
            Options with a value that are left out.
        """
        gone = {flag(name) for name in without} | {word for word in words if word[:2] == "--"}
        kept: list[str] = []
        value = False
        for word in self.command:
            if value and not word.startswith("--"):
                value = False
                continue
            typed, equals, _ = word.partition("=")
            value = typed in gone and not equals
            if typed not in gone:
                kept.append(word)
        return shlex.join([*kept, *words])


def findings(run: Run) -> list[Finding]:
    """What was lost, most surprising first, and whether pruning made any file smaller."""
    all_findings = [_pruning(run), *(_quantised(run, name) for name in run.floats), _sizes(run)]
    return [one for one in all_findings if one is not None]


def lost(name: str, before: float, after: float) -> float:
    """How much worse a score is than another one.

    Errors of independent causes add up as their squares do, so that an error which was there
    before is taken out as its square.
    """
    if metric_of(name)[0] == "output_error":
        return math.sqrt(max(after**2 - before**2, 0.0))
    return before - after


def _worst(run: Run, before: Scores, after: Scores) -> tuple[float, str] | None:
    """The score that exceeds its limit by most, and by how many times."""
    shares = [
        (lost(name, before[name], after[name]) / limit, name)
        for name, limit in run.limits.items()
        if name in before and name in after
        and lost(name, before[name], after[name]) > limit + 1e-9
    ]  # fmt: skip
    return max(shares, default=None)


def _said(name: str, before: float, after: float, was: str) -> str:
    """A score in words, before and after."""
    name, output = metric_of(name)
    if name == "accuracy":
        points = 100 * (before - after)
        return f"accuracy {100 * after:.2f} %, {points:.2f} points below {100 * before:.2f} % {was}"
    if name == "agreement":
        what = f"the classes of output {output}" if output else "the classes"
        return f"{100 * after:.2f} % of {what} are the original's, {100 * before:.2f} % {was}"
    what = f"error of output {output}" if output else "output error"
    return f"{what} {100 * after:.1f} %, {100 * before:.1f} % {was}"


def _pruning(run: Run) -> Finding | None:
    """What pruning cost: each pruned file beside the original's of the same scheme."""
    original, pruned = run.of("original"), run.of("pruned")
    worse = []
    for scheme, file in pruned.items():
        if scheme not in original:
            continue
        fell = _worst(run, original[scheme].scores, file.scores)
        # Where only the quantised file lost, that is quantisation's finding.
        quantised = scheme != "float32" and not _worst(
            run, run.floats["original"], run.floats["pruned"]
        )
        alone = quantised and _worst(run, run.floats["pruned"], file.scores)
        if fell and not alone:
            worse.append((*fell, scheme))
    if not worse:
        return None
    _, name, scheme = max(worse)
    before, after = original[scheme].scores[name], pruned[scheme].scores[name]
    others = [other for _, _, other in worse if other != scheme]
    also = f"; {', '.join(others)} likewise" if others else ""
    return Finding(
        "pruning",
        f"{pruned[scheme].file} lost by pruning: "
        f"{_said(name, before, after, f'unpruned ({original[scheme].file})')}, "
        f"on {run.samples:,} test samples{also}",
        tuple(_gentler(run, labels="accuracy" in run.judged_by)),
    )


def _gentler(run: Run, labels: bool) -> list[str]:
    """What to type to lose less by pruning."""
    config = run.config
    advice = []
    if not config.heal:
        advice.append(run.typed("--heal", str(HEAL)))
    else:
        if isinstance(config.heal, int):
            advice.append(f"more epochs, --heal {2 * config.heal}")
        if labels and not config.finetune:
            advice.append(f"--finetune {FINETUNE}")
    advice.append(_less(config))
    if not config.options.by_count and config.centre not in ("auto", "mean"):
        advice.append("--centre mean")
    if config.fold != "least-squares":
        advice.append("--fold least-squares")
    if labels and config.options.max_drop is None and _budget_fits(config):
        advice.append(f"--max-drop 0.5 in place of {config.amount}")
    return advice


def _budget_fits(config: JobConfig) -> bool:
    """Whether the other flags leave room for a budget, which chooses by effect."""
    return config.select in (None, "effect") and config.fold in SHARE_FOLDS


def _less(config: JobConfig) -> str:
    """The same kind of request, for removing less."""
    options = config.options
    if options.share is not None:
        return f"less, --remove {50 * options.share:.3g}%"
    if options.target is not None:
        amount = options.target.amount
        more = f"{50 * (1 + amount):.3g}%" if amount < 1 else f"{1.25 * amount:.0f}"
        return f"more left, {config.amount} {more}"
    if options.max_drop is not None:
        return f"--max-drop {options.max_drop / 2:g}"
    return f"fewer degrees, --prune {options.degrees / 2:g}"


def _quantised(run: Run, variant: str) -> Finding | None:
    """What quantisation cost: each file of a variant beside the same model in float32."""
    files = run.of(variant)
    worse = []
    for scheme, file in files.items():
        fell = scheme != "float32" and _worst(run, run.floats[variant], file.scores)
        if fell:
            worse.append((*fell, scheme))
    if not worse:
        return None
    _, name, scheme = max(worse)
    before, after = run.floats[variant][name], files[scheme].scores[name]
    others = [other for _, _, other in worse if other != scheme]
    also = f"; {', '.join(others)} likewise" if others else ""
    return Finding(
        "quantisation",
        f"{files[scheme].file} lost by quantisation: {_said(name, before, after, 'in float32')}, "
        f"on {run.samples:,} test samples{also}",
        tuple(_finer(run, variant, [one for _, _, one in worse])),
    )


def _finer(run: Run, variant: str, schemes: Sequence[str]) -> list[str]:
    """What to type to lose less by quantisation."""
    config = run.config
    advice = []
    trainable = run.qat_kept if config.qat else run.quantisable()
    if "int8" in schemes and variant == "pruned" and trainable:
        epochs = QAT if config.qat is None else 2 * config.qat
        advice.append(run.typed("--qat", str(epochs)))
    if "int4" in schemes and variant == "pruned" and not config.heal:
        advice.append(run.typed("--heal", str(HEAL)))
    finer = ["int8"] if "int4" in schemes and "int8" not in schemes else []
    finer += ["int16x8"] if {"int8", "dynamic"} & set(schemes) else []
    finer += ["float16"] if "float16" not in schemes else ["float32"]
    more = [one for one in finer if one not in schemes]
    advice.append(f"a finer scheme, --schemes {' or '.join(more)}")
    if config.calibration < 500 and any(SCHEMES[one].from_samples for one in schemes):
        advice.append("more samples that set the scales, --calibration 500")
    return advice


def _sizes(run: Run) -> Finding | None:
    """Whether pruned files are smaller than the original's of the same scheme."""
    original, pruned = run.of("original"), run.of("pruned")
    shared = [scheme for scheme in pruned if scheme in original]
    larger = [s for s in shared if pruned[s].bytes >= original[s].bytes]
    if not larger:
        return None
    removed = sum(layer.units_before - layer.units_after for layer in run.layers)
    if not run.layers:
        message = "nothing was pruned: no layer of those asked for can lose units"
    elif not removed:
        message = "no unit was removed: the pruned files hold what the original ones hold"
        if all(layer.evened for layer in run.layers):
            message = f"no unit was removed, as {EVEN.format(run.layers[0].name)}"
    else:
        worst = max(larger, key=lambda scheme: pruned[scheme].bytes - original[scheme].bytes)
        more = pruned[worst].bytes - original[worst].bytes
        than = f"{more:,} more than" if more else "as many as"
        message = (
            f"{pruned[worst].file} has {pruned[worst].bytes:,} bytes, {than} the unpruned "
            f"{original[worst].file}, although {removed:,} units are gone"
        )
        others = [scheme for scheme in larger if scheme != worst]
        message += f"; {', '.join(others)} likewise" if others else ""
    advice = _further(run)
    least = min(pruned.values(), key=lambda one: one.bytes)
    if removed and least.bytes < min(pruned[scheme].bytes for scheme in larger):
        advice.insert(0, f"take {least.file}, which has {least.bytes:,} bytes")
    return Finding("size", message, tuple(advice))


def _further(run: Run) -> list[str]:
    """What to type to remove more."""
    config = run.config
    advice = []
    if run.filters and config.layers_to_prune in (None, "dense"):
        advice.append(f"filters too, {run.typed('--layers', 'all')}")
    if run.layers and all(layer.evened for layer in run.layers):
        both = run.typed("--layers", "recurrent", without=("skip",))
        advice.append(f"both, {both}")
    elif run.layers:
        if not config.options.by_count and config.select in (None, "angle"):
            advice += _next_degrees(run.layers)
        gone = config.options.share
        share = 25 if gone is None else min(max(round(200 * gone), 25), 75)
        if not advice or config.amount == "--remove":
            advice.append(run.typed("--remove", f"{share}%", without=AMOUNTS))
        else:
            advice.append(f"--remove {share}% in place of {config.amount}")
        if "accuracy" in run.judged_by and config.options.max_drop is None and _budget_fits(config):
            advice.append(f"--max-drop 1 in place of {config.amount}")
    return advice


def _next_degrees(layers: Sequence[LayerResult]) -> list[str]:
    """At how many degrees the next unit would go."""
    # A closer pair of a layer whose units were put back removes nothing.
    near = [(closest(layer), layer.name) for layer in layers if not layer.evened]
    degrees, name = min(near, default=(math.inf, ""))
    if degrees >= 89:
        return []
    asked = math.floor(degrees) + 1
    return [f"--prune {asked} (the closest pair, in {name}, is {degrees:.1f} degrees apart)"]


def closest(layer: LayerResult) -> float:
    """Degrees between the two survivors nearest to similar or complementary; inf without any."""
    angles = np.asarray(layer.angles, np.float64)
    if layer.units_after < layer.units_before and not layer.group:
        angles = angles[np.ix_(layer.kept, layer.kept)]
    pairs = np.minimum(angles, 180 - angles)[np.triu_indices(len(angles), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return float(pairs.min()) if len(pairs) else math.inf
