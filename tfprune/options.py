"""Which units a user wants gone, checked; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfprune.errors import TfpruneError
from tfprune.tflite.schemes import check_batch, check_schemes
from tfprune.utils.checks import as_number, check_choice, check_points, check_share, check_target

if TYPE_CHECKING:
    from tfprune.core.unit_group import ScoreFunction

# What kinds of layers a word for --layers means.
KINDS = {
    "dense": {"dense"}, "conv": {"conv"}, "recurrent": {"recurrent"},
    "all": {"dense", "conv", "recurrent", "embedding"},
}  # fmt: skip
FARTHEST_CENTRE = 1e6
MOST_MULTIPLE = 1024
# The keys of core.fold.FOLD_RULES, which needs numpy.
FOLD_NAMES = ("least-squares", "scaled", "outgoing", "incoming", "drop")
# By which units are chosen, the default first: with a threshold, and with a share.
SELECTIONS = ("angle", "span")
SHARE_SELECTIONS = ("effect", "span", "angle", "magnitude", "random")
# And by which for a budget.
BUDGET_SELECTIONS = ("effect",)
CENTRES = ("auto", "mean", "activation", "none")
DEGREES = 30.0
# What readers can get where units are not chosen in pairs.
SHARE_FOLDS = ("least-squares", "drop")
# Steps of least squares where survivors are refitted: for each group, and for all together.
REFIT = 100
REFIT_IN_ALL = 1000
# What a budget is counted in, by its name.
COUNTED = {"params": "parameters", "macs": "multiply-accumulates", "bytes": "bytes"}


@dataclass(frozen=True)
class Target:
    """A budget.

    Attributes
    ----------
    what : {"params", "macs", "bytes"}
    amount : float
        A share in (0, 1) of what the whole model has, or a whole number.
    scheme : str
        Of the file whose bytes count.
    batch : int or None
        Of that file.
    compat : bool
        Whether tflite-runtime 2.14 is to run that file.
    called, wider : str
        What the user calls it, and how they ask for filters too, for messages.
    blend : float or None
        From 0, one share for all groups, to 1, widths by effect per cost; None for what does best.
    searched : int or None
        For one try of a search, which by default is refitted in few steps: the samples that these
        are taken on. Widths are compared on as many, layers solved for on twice as many.
    """

    what: str
    amount: float
    scheme: str = "int8"
    batch: int | None = 1
    compat: bool = False
    called: str = "target"
    wider: str = "layers='all'"
    blend: float | None = None
    searched: int | None = None

    def __str__(self) -> str:
        amount = f"{100 * self.amount:g} %" if self.amount < 1 else f"{self.amount:,.0f}"
        return f"{amount} {COUNTED[self.what]}"


@dataclass(frozen=True)
class PruneOptions:
    """How units are chosen and what becomes of their work; see :func:`tfprune.prune`.

    Attributes
    ----------
    degrees : float
    share : float or None
        In place of degrees.
    target : Target or None
        In place of both.
    max_drop : float or None
        In place of all: percent points of accuracy that may be lost, within which a search looks
        for the target.
    select : str or callable
        The name of a criterion, or one of the user's own.
    fold : str
    refit : int or None
    seed : int
    round_to : int or None
        Of which the widths of layers are to be multiples.
    """

    degrees: float = DEGREES
    share: float | None = None
    target: Target | None = None
    max_drop: float | None = None
    select: str | ScoreFunction = "angle"
    fold: str = "least-squares"
    refit: int | None = None
    seed: int = 0
    round_to: int | None = None

    @property
    def by_count(self) -> bool:
        """Whether it says how much goes, in place of how similar it has to be."""
        return not (self.share is None and self.target is None and self.max_drop is None)


def prune_options(
    threshold: object = None,
    *,
    remove: object = None,
    target_params: object = None,
    target_macs: object = None,
    target_bytes: object = None,
    max_drop: object = None,
    select: str | ScoreFunction | None = None,
    fold: str = "least-squares",
    refit: int | None = None,
    scheme: str = "int8",
    file_batch: int | None = 1,
    file_compat: bool = False,
    seed: int = 0,
    round_to: object = None,
    called: Callable[[str], str] = str,
) -> PruneOptions:
    """Returns what was asked for; parameters as of :func:`tfprune.prune`.

    ``max_drop`` is for those who search for a target; ``called`` turns the name of an argument into
    what the user calls it.

    Raises
    ------
    TfpruneError
        If something is not possible, or not together with something else.
    """
    targets = {"params": target_params, "macs": target_macs, "bytes": target_bytes}
    asked = [f"target_{what}" for what, amount in targets.items() if amount is not None]
    asked += ["remove"] if remove is not None else []
    asked += ["max_drop"] if max_drop is not None else []
    given = ([] if threshold is None else ["threshold"]) + asked
    if len(given) > 1:
        names = " and ".join(called(name) for name in given)
        raise TfpruneError(f"{names}: expected one of them, received {len(given)}")
    degrees = DEGREES if threshold is None else check_threshold(threshold, called("threshold"))
    points = None if max_drop is None else check_points(max_drop, called("max_drop"))
    share = None if remove is None else check_share(remove, called("remove"))
    check_schemes([scheme])
    check_batch(file_batch, called("file_batch"))
    target = None
    for what, amount in targets.items():
        if amount is not None:
            name = called(f"target_{what}")
            number = check_target(amount, name)
            wider = called("layers")
            wider = f"{wider} all" if wider.startswith("-") else f"{wider}='all'"
            target = Target(what, number, scheme, file_batch, file_compat, name, wider)
    check_choice(called("fold"), fold, FOLD_NAMES)
    by = _check_criterion(select, asked, called)
    if (target is not None or points is not None) and by not in BUDGET_SELECTIONS:
        budget = "a budget" if points is None else called("max_drop")
        raise TfpruneError(
            f"{called('select')}: {budget} knows {' and '.join(BUDGET_SELECTIONS)} only, "
            f"received {by!r}"
        )
    if (by != "angle" or asked) and fold not in SHARE_FOLDS:
        other = called(asked[0]) if asked else f"{called('select')} {by}"
        raise TfpruneError(
            f"{called('fold')}: expected {' or '.join(SHARE_FOLDS)} with {other}, received {fold!r}"
        )
    check_refit(refit, wanted=False, groups=0)
    multiple = None if round_to is None else check_multiple(round_to, called("round_to"))
    return PruneOptions(degrees, share, target, points, by, fold, refit, seed, multiple)


def _check_criterion(
    select: str | ScoreFunction | None, asked: Sequence[str], called: Callable[[str], str]
) -> str | ScoreFunction:
    """Returns a criterion; one of the user's own scores units, so it has to be told how many go."""
    if select is None or isinstance(select, str) or not callable(select):
        return check_select(select, bool(asked), called("select"))
    if list(asked) != ["remove"]:
        other = called(asked[0] if asked else "threshold")
        raise TfpruneError(
            f"{called('select')} {criterion_name(select)}: a criterion of your own needs a share "
            f"to remove, such as remove=0.5, in place of {other}"
        )
    return select


def criterion_name(select: str | ScoreFunction) -> str:
    """What a criterion is called: by its name, or that of the user's function or class.

    Examples
    --------
    >>> criterion_name("effect"), criterion_name(len)
    ('effect', 'len')
    """
    if isinstance(select, str):
        return select
    function = getattr(select, "func", select)  # What functools.partial holds.
    return str(getattr(function, "__name__", type(function).__name__))


def check_threshold(threshold: object, what: str = "threshold") -> float:
    """Returns a threshold as a float.

    Raises
    ------
    TfpruneError
        If it is not a number of degrees in the open interval (0, 90).
    """
    degrees = as_number(threshold)
    if not 0 < degrees < 90:
        raise TfpruneError(
            f"{what}: expected a number of degrees between 0 and 90, received {threshold!r}"
        )
    return degrees


def check_select(select: str | None, with_share: bool, what: str = "select") -> str:
    """Returns a way to choose units, the default where nothing was said.

    Raises
    ------
    TfpruneError
        If it is not known, or needs a share in place of a threshold.
    """
    known = SHARE_SELECTIONS if with_share else SELECTIONS
    if select in set(SHARE_SELECTIONS) - set(known):
        raise TfpruneError(f"{what} {select}: needs a share to remove, in place of degrees")
    return known[0] if select is None else check_choice(what, select, known)


def check_refit(steps: object, wanted: bool, groups: int) -> int:
    """Returns how many steps to refit each group, the default if wanted where nothing was said.

    Raises
    ------
    TfpruneError
        If it is not a whole number from 0.
    """
    if steps is None:
        return min(REFIT, REFIT_IN_ALL // max(groups, 1)) if wanted else 0
    if type(steps) is not int or steps < 0:
        raise TfpruneError(f"refit: expected a whole number from 0, received {steps!r}")
    return steps


def refits(options: PruneOptions) -> bool:
    """Whether the survivors of groups that lose units are refitted."""
    by_default = options.by_count and options.fold == "least-squares"
    return check_refit(options.refit, by_default, 1) > 0


def check_multiple(number: object, what: str = "round_to") -> int:
    """Returns the number of which widths are to be multiples.

    Raises
    ------
    TfpruneError
        If it is not a whole number from 2 to 1,024.
    """
    value = as_number(number)
    if not (2 <= value <= MOST_MULTIPLE and value == int(value)):
        raise TfpruneError(
            f"{what}: expected a whole number from 2 to {MOST_MULTIPLE}, such as 8, "
            f"received {number!r}"
        )
    return int(value)


def check_centre(centre: object, what: str = "centre") -> str | float:
    """Returns a centre as its name or a float.

    Raises
    ------
    TfpruneError
        If it is none of ``auto``, ``mean``, ``activation``, ``none``, nor a finite number.
    """
    if isinstance(centre, str) and centre in CENTRES:
        return centre
    value = as_number(centre)
    if not abs(value) <= FARTHEST_CENTRE:
        raise TfpruneError(
            f"{what}: expected {', '.join(CENTRES)} or a number, received {centre!r}"
        )
    return value
