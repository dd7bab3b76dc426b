"""The Pareto front: which files no other file beats in both bytes and loss; pure Python."""

from __future__ import annotations

from collections.abc import Sequence


def pareto(sizes: Sequence[float], losses: Sequence[float]) -> list[int]:
    """The files for which none is smaller and no worse, or better and no larger.

    Parameters
    ----------
    sizes, losses : sequences of numbers
        Of one length; less is better. No NaN.

    Returns
    -------
    list of int
        Positions, from the smallest file to the largest; of files that are equal in both, the
        first.
    """
    order = sorted(range(len(sizes)), key=lambda at: (sizes[at], losses[at], at))
    front: list[int] = []
    for at in order:
        if not front or losses[at] < losses[front[-1]]:
            front.append(at)
    return front
