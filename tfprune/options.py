"""Which units a user wants gone, checked; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tfprune.errors import TfpruneError
from tfprune.utils.checks import (
    DEGREES,
    FOLD_NAMES,
    SHARE_FOLDS,
    check_batch,
    check_choice,
    check_refit,
    check_schemes,
    check_select,
    check_share,
    check_target,
    check_threshold,
)

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
    """

    what: str
    amount: float
    scheme: str = "int8"
    batch: int | None = 1
    compat: bool = False

    def __str__(self) -> str:
        amount = f"{100 * self.amount:g} %" if self.amount < 1 else f"{self.amount:,.0f}"
        return f"{amount} {COUNTED[self.what]}"


@dataclass(frozen=True)
class Wish:
    """How units are chosen and what becomes of their work; see :func:`tfprune.prune`.

    Attributes
    ----------
    degrees : float
    share : float or None
        In place of degrees.
    target : Target or None
        In place of both.
    select, fold : str
    refit : int or None
    seed : int
    """

    degrees: float = DEGREES
    share: float | None = None
    target: Target | None = None
    select: str = "angle"
    fold: str = "least-squares"
    refit: int | None = None
    seed: int = 0

    @property
    def by_count(self) -> bool:
        """Whether it says how much goes, in place of how similar it has to be."""
        return self.share is not None or self.target is not None


def wish(
    threshold: object = DEGREES,
    *,
    remove: object = None,
    target_params: object = None,
    target_macs: object = None,
    target_bytes: object = None,
    select: str | None = None,
    fold: str = "least-squares",
    refit: int | None = None,
    scheme: str = "int8",
    file_batch: int | None = 1,
    file_compat: bool = False,
    seed: int = 0,
    called: Callable[[str], str] = str,
) -> Wish:
    """Returns what was asked for; parameters as of :func:`tfprune.prune`.

    ``called`` turns the name of an argument into what the user calls it.

    Raises
    ------
    TfpruneError
        If something is not possible, or not together with something else.
    """
    targets = {"params": target_params, "macs": target_macs, "bytes": target_bytes}
    asked = [f"target_{what}" for what, amount in targets.items() if amount is not None]
    asked += ["remove"] if remove is not None else []
    if len(asked) > 1:
        names = " and ".join(called(name) for name in asked)
        raise TfpruneError(f"{names}: expected one of them, received {len(asked)}")
    degrees = check_threshold(threshold)
    share = None if remove is None else check_share(remove, called("remove"))
    check_schemes([scheme])
    check_batch(file_batch, called("file_batch"))
    target = None
    for what, amount in targets.items():
        if amount is not None:
            number = check_target(amount, called(f"target_{what}"))
            target = Target(what, number, scheme, file_batch, file_compat)
    check_choice(called("fold"), fold, FOLD_NAMES)
    by = check_select(select, bool(asked))
    if target is not None and by != "effect":
        raise TfpruneError(f"{called('select')}: a budget knows effect only, received {by!r}")
    if (by != "angle" or asked) and fold not in SHARE_FOLDS:
        other = called(asked[0]) if asked else f"{called('select')} {by}"
        raise TfpruneError(
            f"{called('fold')}: expected {' or '.join(SHARE_FOLDS)} with {other}, received {fold!r}"
        )
    check_refit(refit, wanted=False, groups=0)
    return Wish(degrees, share, target, by, fold, refit, seed)
