"""Solves for one layer after another by sums over all samples, which come in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfprune.core.blas import threads_for
from tfprune.graph.forward import LARGE, numbers_of
from tfprune.reconstruction.layer_rows import (
    NOTHING,
    assign,
    layer_bias,
    parts_of,
    rows_wanted,
    whole_of,
)
from tfprune.reconstruction.least_squares import Equations, Solution, solved_parts
from tfprune.reconstruction.piece_sums import AIM, ERRORS, NORMAL, Pieces, Task
from tfprune.reconstruction.sites import Site, Wiring, sites_of
from tfprune.reconstruction.sums import Sums
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter


def solve_by_sums(
    ours: Wiring,
    theirs: Wiring,
    kept: Mapping[str, npt.NDArray[np.intp]],
    pieces: Pieces,
    *,
    progress: bool = False,
) -> list[str]:
    """As :func:`tfprune.reconstruction.sequential.solve_layers`, with all samples of some pieces.

    The normal equations are summed in the order of the pieces, in float64, so the weights are the
    same whoever computed which. What is held here grows with the inputs of a layer squared, and
    not with the samples.

    Parameters
    ----------
    ours, theirs : Wiring
        Of the pruned model, which changes in place, and of the original.
    kept : mapping of str to array
        By layer, which of the original's outputs it makes, where some went.
    pieces : Pieces
    progress : bool

    Returns
    -------
    list of str
        The layers that changed.
    """
    sites = sites_of(ours, theirs, kept)
    large = any(numbers_of(one.trace.model) > LARGE for one in (ours, theirs))
    paths = {id(layer): path for path, layer in ours.trace.copies.items()}
    changed: dict[str, list[Array]] = {}
    solved = []
    with meter("reconstruction: least squares", len(sites), progress, "layer") as bar:
        for site in sites:
            each = max(1, rows_wanted(site, large) // pieces.samples)
            system = _Summed(site, pieces, each, changed)
            present = system.present
            with threads_for(present[0].shape[1]):
                found = solved_parts(system)
            if any(one is not None for one in found):
                assign(site, *whole_of(site, _joined(found, present)))
                solved.append(site.path)
                for layer in (site.layer, site.norm):
                    if layer is not None:
                        changed[paths[id(layer)]] = layer.get_weights()
            bar.update()
    return solved


class _Summed:
    """The least squares of a layer, one for each channel where it is depthwise, by sums."""

    def __init__(
        self, site: Site, pieces: Pieces, each: int, changed: Mapping[str, list[Array]]
    ) -> None:
        self.limits = site.limits
        self.present = parts_of(site, (site.layer.get_weights()[0], layer_bias(site)))
        self._constant = self.present[1] is not None
        self._path, self._pieces, self._each, self._changed = site.path, pieces, each, changed
        self._equations: list[Equations | None] = []
        self._held = 0

    def equations(self) -> Sequence[Equations | None]:
        sums, about = self._added(NORMAL)
        kernel = self.present[0]
        self._held = int(about["held"]) * kernel.shape[2]
        if not self._held or not sums.count:
            return [None] * len(kernel)
        count = sums.count + int(about["held"])
        errors = about["squares"][0] / self._held
        spread = np.mean(about["goal_squares"] / count - np.square(about["goals"] / count), axis=1)
        gram, mean, cross, goal = sums.about(self._constant)
        for place, error in enumerate(errors.tolist()):
            if error <= NOTHING * (max(float(spread[place]), 0) or 1.0):
                self._equations.append(None)
                continue
            one = Equations(gram[place], mean[place], kernel[place], error, self._constant)
            one.aim(cross[place], goal[place])
            self._equations.append(one)
        return self._equations

    def errors(self, tried: Sequence[Sequence[Solution]]) -> Sequence[Sequence[float]]:
        each = iter(tried)
        columns = [None if one is None else next(each) for one in self._equations]
        number = len(tried[0])
        asked = [
            _joined([None if one is None else one[place] for one in columns], self.present)
            for place in range(number)
        ]
        total = np.sum([one["squares"] for one in self._sums(ERRORS, asked)], axis=0) / self._held
        return [total[:, place].tolist() for place, one in enumerate(columns) if one is not None]

    def aim(self, found: Sequence[Solution | None]) -> None:
        sums, _ = self._added(AIM, [_joined(found, self.present)])
        _, _, cross, goal = sums.about(self._constant)
        for place, one in enumerate(self._equations):
            if one is not None:
                one.aim(cross[place], goal[place])

    def _added(self, what: str, tried: Sequence[Solution] = ()) -> tuple[Sums, dict[str, Array]]:
        total: Sums | None = None
        about: dict[str, Array] = {}
        for one in self._sums(what, tried):
            if total is None:
                total = Sums.of(one)
            else:
                total.add(Sums.of(one))
            for name in one.keys() - total.state().keys():
                about[name] = about[name] + one[name] if name in about else one[name]
        assert total is not None, "there are samples"
        return total, about

    def _sums(self, what: str, tried: Sequence[Solution]) -> Iterator[Mapping[str, Array]]:
        return self._pieces.sums(Task(self._path, what, self._each, tried, self._changed))


def _joined(found: Sequence[Solution | None], present: Solution) -> Solution:
    """Solutions of all problems behind each other, the present one where there is none."""
    kernel, bias = present
    pairs = list(enumerate(found))
    made = np.stack([kernel[place] if one is None else one[0] for place, one in pairs])
    if bias is None:
        return made, None
    own = [None if one is None else one[1] for one in found]
    return made, np.stack([bias[place] if one is None else one for place, one in enumerate(own)])
