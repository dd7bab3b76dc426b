"""Chooses what to recommend: the smallest model that keeps the score, of those that were tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tfprune.core.selection import Selection
from tfprune.inspection.records import DEGREES, SHARES, Measurements, Recommendation
from tfprune.inspection.sensitivity import VARIANCE, Bench, Size, Trial, whole
from tfprune.inspection.trial_healing import Healed, healed_on_trial

# Of the score: what a group alone may cost at a share to be cut by it, and what all may together.
GROUP_DROP, DROP = 0.005, 0.01
# Of the parameters: what has to go for it to be worth a command.
LEAST_SAVED = 0.05
# What is recommended where nothing much goes without a loss.
SMALL_SHARE, EPOCHS = 0.25, 10


@dataclass(frozen=True)
class Request:
    """What a recommended command asks for.

    Attributes
    ----------
    layers : tuple of str
        The layers to prune; empty for all.
    threshold, remove : float or None
        Degrees, or a share; one of them.
    heal : int or None
        Epochs.
    """

    layers: tuple[str, ...] = ()
    threshold: float | None = None
    remove: float | None = None
    heal: int | None = None


# Writes a request as it is typed.
Typed = Callable[[Request], str]


def recommend(
    bench: Bench,
    trials: Sequence[Trial],
    measured: Measurements,
    typed: Typed,
    *,
    every: bool,
    macs: int | None = None,
    progress: bool = False,
) -> Recommendation:
    """What to do next, with what it was measured to cost.

    Degrees (30, 20, 10) for all groups, and each share for those groups that bear it, are tried;
    of what costs at most a point of the score the smallest model is taken. Where all costs more, or
    saves less than a twentieth, it is a quarter of every group, with healing, which is tried where
    the model is small enough.

    Parameters
    ----------
    bench : Bench
    trials : sequence of Trial
        The sensitivity of each group.
    measured : Measurements
    typed : callable
    every : bool
        Whether the groups are all that can be pruned, so that they need no names.
    macs : int or None
        Multiply-accumulates of the model for a sample.
    progress : bool
    """
    parameters = bench.calibration.model.count_params()
    best: tuple[Request, float, Size] | None = None
    most = (1 - LEAST_SAVED) * parameters
    for request, selections in _candidates(bench, trials, measured.original):
        score = bench.scored(selections)
        if score < measured.original - DROP - 1e-9:
            continue
        size = bench.size(selections)
        if size.parameters <= most and (not best or size.parameters < best[2].parameters):
            best = request, score, size
    healed = None
    if best is None:
        selections = [trial.selections[0] for trial in trials]
        request = Request(_names(bench, range(len(trials))), remove=SMALL_SHARE, heal=EPOCHS)
        best = request, bench.scored(selections), bench.size(selections)
        healed = healed_on_trial(bench, selections, macs, EPOCHS, progress)
    request, score, size = best
    shown = request
    if every and set(request.layers) == set(_names(bench, range(len(trials)))):
        shown = Request((), request.threshold, request.remove, request.heal)
    return Recommendation(
        typed(shown),
        _expected(request, score, size, measured, parameters, healed=healed),
        request.layers,
        request.threshold,
        request.remove,
        score,
        size.parameters,
        healed.score if healed else None,
    )


def _candidates(
    bench: Bench, trials: Sequence[Trial], original: float
) -> Iterator[tuple[Request, list[Selection]]]:
    """What is tried, and which units go then."""
    groups = bench.calibration.groups
    for degrees in reversed(DEGREES):
        selections = bench.within(degrees)
        if any(len(selection.kept) < selection.units for selection in selections):
            yield Request(_names(bench, range(len(groups))), threshold=degrees), selections
    for column, share in enumerate(SHARES):
        least = original - GROUP_DROP - 1e-9
        bearing = [n for n, t in enumerate(trials) if t.sensitivity.scores[column] >= least]
        if bearing:
            selections = [
                trials[n].selections[column] if n in bearing else whole(stats)
                for n, stats in enumerate(groups)
            ]
            yield Request(_names(bench, bearing), remove=share), selections


def _names(bench: Bench, places: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        name for place in places for name in bench.calibration.groups[place].group.producers
    )


def _expected(
    request: Request,
    score: float,
    size: Size,
    measured: Measurements,
    parameters: int,
    *,
    healed: Healed | None,
) -> str:
    """What to expect, in words."""
    saved = 100 * (1 - size.parameters / parameters)
    words = (
        f"{size.parameters:,} parameters in place of {parameters:,} ({saved:.1f} % fewer), about "
        f"{size.bytes:,} bytes of weights in int8, {measured.score}"
    )
    now = f"(now {100 * measured.original:.2f} %, {_margin(measured)})"
    if healed:
        trial = f"{healed.epochs} epochs on {healed.samples:,} samples"
        if healed.score < score:
            words = f"{words} {100 * score:.2f} % {now} before refitting and healing"
            return f"{words}; on trial, {trial}, healing did worse: it takes more data"
        return (
            f"{words} {100 * healed.score:.2f} % {now} as healed on trial, {trial}; "
            f"{100 * score:.2f} % before; the command refits first"
        )
    words = f"{words} {100 * score:.2f} % {now}"
    if request.heal:
        return f"{words} before refitting and before healing, which start from there"
    return f"{words} before refitting" if request.remove else words


def _margin(measured: Measurements) -> str:
    """How sure a score is: two standard errors of a share, where it is one."""
    count, share = measured.scored, measured.original
    if measured.score == VARIANCE:
        return f"on {count:,} samples"
    # Where all answers are right, one more sample might be wrong.
    error = 2 * max(share * (1 - share) / count, 1 / count**2) ** 0.5
    return f"give or take {100 * error:.1f} points on {count:,} samples"
