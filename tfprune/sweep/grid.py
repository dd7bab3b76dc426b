"""Reads the points of a sweep from text that a user typed; needs no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.options import FOLD_NAMES, REFIT, SELECTIONS, SHARE_FOLDS, SHARE_SELECTIONS
from tfprune.sweep.config import SweepConfig
from tfprune.utils.digests import text_digest

UNPRUNED = "unpruned"
# What a sweep tries if nothing is said, and what --quick tries.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "selections": SHARE_SELECTIONS,
    "folds": FOLD_NAMES,
    "shares": (0.25, 0.5, 0.75, 0.875),
    "degrees": (10.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    "refit": (0, REFIT),
}
QUICK: dict[str, tuple[Any, ...]] = {
    "selections": ("effect", "angle"),
    "folds": SHARE_FOLDS,
    "shares": (0.5, 0.75),
    "degrees": (30.0, 50.0),
    "refit": (0, REFIT),
}


@dataclass(frozen=True)
class Point:
    """One way to prune; the unpruned model is one too.

    Attributes
    ----------
    select : str
        The criterion that chooses the units, or ``unpruned``.
    amount : float or None
        Degrees, or the share of units in (0, 1) that goes.
    unit : {"degrees", "share", ""}
    fold : str
        What the consumers of a removed unit get in its place.
    refit : int
        Steps of the reconstruction.
    heal : int or "auto"
        Epochs of healing; 0 for none.
    augment : bool
        Whether pictures are mirrored and shifted while healing.
    round_to : int or None
        Of which widths are multiples.
    """

    select: str = UNPRUNED
    amount: float | None = None
    unit: str = ""
    fold: str = ""
    refit: int = 0
    heal: int | str = 0
    augment: bool = False
    round_to: int | None = None

    @property
    def bare(self) -> Point:
        """The same without healing."""
        return replace(self, heal=0, augment=False)

    @property
    def name(self) -> str:
        """The point in words."""
        if self.amount is None:
            return self.select
        much = f"{self.amount:g}°" if self.unit == "degrees" else f"{100 * self.amount:g} %"
        steps = [f"widths by {self.round_to}"] if self.round_to else []
        steps += [f"refit {self.refit}"] if self.refit else []
        steps += [f"healed {self.heal}" + ", augmented" * self.augment] if self.heal else []
        return " ".join([self.select, much, self.fold, *steps])

    @property
    def flags(self) -> str:
        """What makes ``tools.export`` prune like this."""
        if self.amount is None:
            return ""
        much = f"--prune {self.amount:g}"
        if self.unit == "share":
            much = f"--remove {100 * self.amount:g}%"
        flags = f"{much} --select {self.select} --fold {self.fold} --refit {self.refit}"
        flags += f" --round-to {self.round_to}" if self.round_to else ""
        flags += f" --heal {self.heal}" if self.heal else ""
        return flags + " --augment" * self.augment


@dataclass(frozen=True)
class Grid:
    """The configuration and the points of a sweep.

    Attributes
    ----------
    config : SweepConfig
        The model, the data, and what is the same for all points; its schemes are those of every
        point.
    points : tuple of Point
        The unpruned model first; a healed point right behind the same one unhealed.
    """

    config: SweepConfig
    points: tuple[Point, ...]


def grid(config: SweepConfig) -> Grid:
    """All points that the lists allow.

    Degrees go with ``angle`` and every fold, and with ``span`` and the folds that need no pairs;
    shares with every selection and the latter folds. Survivors are refitted at shares, on top of
    least squares. With ``config.heal`` every point is there unhealed and healed.

    Parameters
    ----------
    config : SweepConfig
        Checked here.

    Raises
    ------
    TfpruneError
        If an option is not possible, or no point is left.
    """
    config = config.validate()
    lists = {
        name: values if getattr(config, name) is None else getattr(config, name)
        for name, values in (QUICK if config.quick else DEFAULTS).items()
    }
    selections, folds = lists["selections"], lists["folds"]
    cuts = [
        *_at_shares(lists["shares"], selections, folds, lists["refit"]),
        *_at_degrees(lists["degrees"], selections, folds),
    ]
    if not cuts:
        raise TfpruneError(
            f"no point to try: shares take the folds {', '.join(SHARE_FOLDS)}; degrees take the "
            f"selections {', '.join(SELECTIONS)}, and with span the same folds"
        )
    points = [Point()]
    for cut in cuts:
        points.append(replace(cut, round_to=config.round_to))
        if config.heal:
            points.append(replace(points[-1], heal=config.heal, augment=config.augment))
    return Grid(config, tuple(points))


def key(point: Point, scheme: str, common: dict[str, Any]) -> str:
    """What stands for a point in a scheme, with all that its figures depend on."""
    about = asdict(point)
    # Those that came later are left out where they are not asked for, so that older keys hold.
    for name in ("augment", "round_to"):
        if not about[name]:
            del about[name]
    whole = {**common, **about, "scheme": scheme}
    return text_digest(json.dumps(whole, sort_keys=True))[:32]


def _at_shares(
    shares: Iterable[float], selections: Sequence[str], folds: Sequence[str], steps: Sequence[int]
) -> Iterator[Point]:
    for share in shares:
        for select in selections:
            for fold in (fold for fold in folds if fold in SHARE_FOLDS):
                # Refitting lessens the error of a fold; dropping is there to see it whole.
                tried = steps if fold == "least-squares" else [0]
                for step in tried:
                    yield Point(select, share, "share", fold, step)


def _at_degrees(
    degrees: Iterable[float], selections: Sequence[str], folds: Sequence[str]
) -> Iterator[Point]:
    for angle in degrees:
        for select in (select for select in selections if select in SELECTIONS):
            for fold in folds:
                if select == "angle" or fold in SHARE_FOLDS:
                    yield Point(select, angle, "degrees", fold)
