"""The options of ``sweep``: those that all commands share, and the lists that make its grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from tfprune.errors import TfpruneError
from tfprune.job.config import SCHEMES_HELP, CommonConfig, read_epochs, read_schemes
from tfprune.options import FOLD_NAMES, REFIT, SHARE_FOLDS, SHARE_SELECTIONS, check_threshold
from tfprune.utils.checks import check_choice, check_share, names, switch, text, whole
from tfprune.utils.option_table import COMMON, GRID, RUN, TRAINING, option
from tfprune.workers.asked import check_asked, cluster_option, workers_option

# In place of a list, for no amounts of that kind.
NONE = "none"
MOST_REFIT = 2**20


def _words(known: Sequence[str]) -> Callable[[str | tuple[str, ...], str], tuple[str, ...]]:
    def check(value: str | tuple[str, ...], what: str) -> tuple[str, ...]:
        return tuple(check_choice(what, word, known) for word in dict.fromkeys(names(value, what)))

    return check


def _amounts(
    read: Callable[[object, str], float],
) -> Callable[[str | tuple[str, ...], str], tuple[float, ...]]:
    def check(value: str | tuple[str, ...], what: str) -> tuple[float, ...]:
        words = names(value, what)
        if words == (NONE,):
            return ()
        return tuple(dict.fromkeys(read(word, what) for word in words))

    return check


def _steps(value: str | tuple[str, ...], what: str) -> tuple[int, ...]:
    words = [str(word) for word in names(value, what)]
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) < MOST_REFIT):
            raise TfpruneError(
                f"{what}: expected whole numbers from 0 to {MOST_REFIT - 1}, such as "
                f"0,{REFIT}, received {word!r}"
            )
    return tuple(dict.fromkeys(map(int, words)))


# fmt: off
@dataclass(frozen=True)
class SweepConfig(CommonConfig):
    """The options of ``sweep``; a list that is None is chosen by ``quick``."""

    quick: bool = option(False, switch, COMMON, "",
        "A coarse grid: effect and angle, 50% and 75%, 30 and 50 degrees, least-squares and drop.")
    schemes: tuple[str, ...] = option(("float32", "int8"),
        read_schemes, COMMON, "NAME,NAME", SCHEMES_HELP)
    output: str = option("sweep", text, COMMON, "FOLDER",
        "The folder to write to, and to go on in.")

    selections: tuple[str, ...] | None = option(None, _words(SHARE_SELECTIONS), GRID, "NAME,NAME",
        f"Some of {', '.join(SHARE_SELECTIONS)}; all of them by default.")
    folds: tuple[str, ...] | None = option(None, _words(FOLD_NAMES), GRID, "NAME,NAME",
        f"Some of {', '.join(FOLD_NAMES)}; all of them by default. Shares, and degrees of span, "
        f"take {' and '.join(SHARE_FOLDS)} alone.")
    shares: tuple[float, ...] | None = option(None, _amounts(check_share), GRID, "SHARE,SHARE",
        "Shares of the units that go from every layer; 25%,50%,75%,87.5% by default, or none.")
    degrees: tuple[float, ...] | None = option(None, _amounts(check_threshold), GRID,
        "DEGREES,DEGREES", "Angles, for angle and span; 10,20,30,40,50,60 by default, or none.")
    refit: tuple[int, ...] | None = option(None, _steps, GRID, "STEPS,STEPS",
        "Steps of least squares for survivors, at shares; 0,100 by default, which is without and "
        "with.")

    heal: int | str | None = option(None, read_epochs, TRAINING, "EPOCHS|auto",
        "Epochs in which every pruned model also learns the original's outputs, and is measured "
        "again. auto stops by itself, after 30 at most.")
    seed: int = option(0, whole(0, 2**32), RUN, "NUMBER",
        "Seed of splitting, training, healing and random.")
    workers: int | None = workers_option()
    cluster: str | None = cluster_option()
    # fmt: on

    def validate(self) -> Self:
        """See :meth:`CommonConfig.validate`."""
        check_asked(self.workers, self.cluster)
        return super().validate()
