"""Where a search for the smallest model within a drop goes on: bisection, and what it may ask next.

The search halves what is between the largest limit of parameters under which no model fits and the
smallest under which one does. As these are limits and not what models have, what is asked for after
either answer is known before, so that workers can begin with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from tfprune.job.records import Tried

# Models that a search makes.
TRIES = 8
# Of the parameters, what the first try has at least: half-way, by ratio, to the least there can be
# is a network that few can be cut down to.
BOLDEST = 1 / 4


@dataclass(frozen=True)
class Try:
    """What is asked of a try; the same model for the same question, whoever makes it.

    Attributes
    ----------
    limit : int
        Parameters that the model may have.
    blend : float or None
        How widths are shared out, see :class:`tfprune.options.Target`; None for what does best.
    """

    limit: int
    blend: float | None


@dataclass(frozen=True)
class Measured:
    """What came of a try.

    Attributes
    ----------
    tried : Tried
    blend : float
        How widths were shared out.
    sha256 : str
        Of the file that was measured.
    brief : bool
        Whether it was made in haste: healed for fewer epochs, or refitted in fewer steps.
    """

    tried: Tried
    blend: float
    sha256: str
    brief: bool = False


@dataclass(frozen=True)
class Halving:
    """How far a search is.

    Attributes
    ----------
    large, small : float
        The smallest limit that is known to lead to a model that fits, or that of the original
        model; the largest known not to, or the least that there can be.
    blend : float or None
        How the next tries share widths out: what did best when some model fitted, or in the second
        try, and is not asked anew after that.
    count : int
        How many were tried.
    known : tuple of (int, int, bool)
        Limits, the last one not among them, that all lead to a model that was tried; and whether it
        fits. They cost no try.
    close : float
        The search ends when what it halves is no wider than this ratio, but not before one try.
    """

    large: float
    small: float
    blend: float | None = None
    count: int = 0
    known: tuple[tuple[int, int, bool], ...] = ()
    close: float = 1.0

    @property
    def next(self) -> Try | None:
        """What is tried next; None at the end."""
        near = self.count and self.large < self.close * self.small
        if self.count >= TRIES or self.large - self.small < 1 or near:
            return None
        return Try(int(self._middle), self.blend)

    @property
    def chance(self) -> float:
        """Of the next try to fit, if the border lies anywhere, on a scale of ratios."""
        return math.log(self._middle / self.small) / math.log(self.large / self.small)

    @property
    def _middle(self) -> float:
        """Half-way, by ratio; the first try is not as bold."""
        middle = math.sqrt(self.large * self.small)
        return middle if self.count else max(middle, BOLDEST * self.large)

    def _halved(self, fits: bool) -> Halving:
        return replace(self, large=self._middle) if fits else replace(self, small=self._middle)

    def after(self, one: Tried, blend: float | None) -> Halving:
        """How far it is with the next try's answer.

        Parameters
        ----------
        one : Tried
        blend : float or None
            How that shared widths out; None if nobody knows.
        """
        asked = self.next
        assert asked is not None, "it was tried"
        limits = min(one.parameters, asked.limit), max(one.larger or 0, asked.limit + 1), one.fits
        if self.blend is not None or not (one.fits or self.count):
            blend = self.blend
        now = replace(
            self._halved(one.fits),
            blend=blend, count=self.count + 1, known=(*self.known, limits),
        )  # fmt: skip
        while (asked := now.next) is not None:
            answers = [fit for low, high, fit in now.known if low <= asked.limit < high]
            if not answers:
                break
            now = now._halved(answers[-1])
        return now

    def ahead(self, done: Mapping[Try, Measured]) -> Iterator[Try]:
        """The next try and those that may come after it, the likeliest first.

        What depends on how a try shares widths out, which is not known before, is left out.

        Parameters
        ----------
        done : mapping of Try to Measured
            What is known already: such a try has but one answer.
        """
        order = 0
        waiting = [(-1.0, order, self)]
        while waiting:
            share, _, state = heappop(waiting)
            asked = state.next
            if asked is None:
                continue
            if asked in done:
                one = done[asked]
                after = [(1.0, state.after(one.tried, one.blend))]
            else:
                yield asked
                after = [
                    (chance, state.after(Tried(asked.limit, 0, 0.0, fits), None))
                    for fits, chance in ((True, state.chance), (False, 1 - state.chance))
                    if (state.blend is not None or not (fits or state.count))
                ]
            for chance, then in after:
                order += 1
                heappush(waiting, (share * chance, order, then))


def halve(
    attempt: Callable[[Halving, Try], Measured],
    whole: int,
    least: int,
    *,
    close: float = 1.0,
) -> list[Measured]:
    """Searches between two numbers of parameters.

    Parameters
    ----------
    attempt : callable
        Makes and measures the model of a try. It is expected to fit where a smaller one does.
    whole, least : int
        Parameters of the original model, and of the smallest that there can be.
    close
        See :class:`Halving`.
    """
    made: list[Measured] = []
    state = Halving(float(whole), float(max(least, 1)), close=close)
    while (asked := state.next) is not None:
        made.append(attempt(state, asked))
        state = state.after(made[-1].tried, made[-1].blend)
    return made
