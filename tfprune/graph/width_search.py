"""Shares a budget out among groups of units by effect per cost; pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tfprune.graph.costs import Costs

# Sizes that are measured at most while looking for the right one.
TRIES = 16


def ranking(errors: Sequence[npt.NDArray[np.float64]], costs: Costs) -> npt.NDArray[np.intp]:
    """The order in which groups lose units, until each has one left.

    Always that whose next unit adds least error for what it saves, at the widths left then.

    Parameters
    ----------
    errors : sequence of arrays of shape (units - 1,)
        For each group, what is wrong once so many units are gone, never less for more; on one
        scale for all groups.
    costs : Costs
        Of the same groups.

    Returns
    -------
    array of shape (sum of units - 1,)
    """
    sizes = np.array([len(error) + 1 for error in errors])
    gone = np.zeros(len(errors), np.intp)
    added = [np.diff(error, prepend=0.0) for error in errors]
    order = np.empty(int(np.sum(sizes - 1)), np.intp)
    for place in range(len(order)):
        next_error = np.array(
            [
                more[lost] if lost < len(more) else np.inf
                for more, lost in zip(added, gone, strict=True)
            ]
        )
        saved = costs.slopes(1 - gone / sizes) / sizes
        group = int(np.argmin(next_error / np.maximum(saved, np.finfo(float).tiny)))
        order[place] = group
        gone[group] += 1
    return order


def even(sizes: Sequence[int]) -> npt.NDArray[np.intp]:
    """The order in which groups lose units so that all keep about one share of theirs.

    Parameters
    ----------
    sizes : sequence of int
        Units of each group, at least 1; one stays.

    Examples
    --------
    >>> even([3, 5])
    array([1, 0, 1, 1, 0, 1])
    """
    # Each group's removals lie at equal distances; of those at one place the first group's goes.
    groups = np.repeat(np.arange(len(sizes)), [size - 1 for size in sizes])
    places = [np.arange(1, size) / size for size in sizes]
    return np.asarray(groups[np.argsort(np.concatenate(places), kind="stable")], np.intp)


def merged(
    one: npt.NDArray[np.intp], other: npt.NDArray[np.intp], share: float
) -> npt.NDArray[np.intp]:
    """An order between two orders of the same removals.

    Each removal comes by the mean of its places in both, weighted.

    Parameters
    ----------
    one, other : array of shape (removals,)
        Group numbers, each as often in both.
    share : float
        From 0, the first order, to 1, the second.

    Examples
    --------
    >>> merged(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), 0.75)
    array([1, 0, 1, 0])
    """
    # A stable sort by group lists each group's removals in order, the same ones in both.
    first, second = (np.argsort(order, kind="stable") for order in (one, other))
    places = (1 - share) * first + share * second
    return np.sort(one)[np.argsort(places, kind="stable")]


def predicted(order: npt.NDArray[np.intp], sizes: Sequence[int], costs: Costs) -> list[float]:
    """The predicted cost after each step of a ranking, the original model's first."""
    gone = np.zeros(len(sizes))
    totals = [costs.total(np.ones(len(sizes)))]
    for group in order:
        gone[group] += 1
        totals.append(costs.total(1 - gone / np.array(sizes)))
    return totals


def first_that_fits(
    size: Callable[[int], int], limit: int, costs: Sequence[float]
) -> tuple[int | None, dict[int, int]]:
    """Finds the number of steps after which a model is within a limit.

    Looks where a straight line between two known sizes, over the predicted costs, meets the
    limit, and closes in on it.

    Parameters
    ----------
    size : callable
        Steps -> the size that was measured, taken to fall with the steps.
    limit : int
    costs : sequence of float
        What is predicted after 0, 1, ... steps.

    Returns
    -------
    steps : int or None
        None if it does not fit after the last step.
    sizes : dict of int to int
        Every size that was measured, by its steps.
    """
    low, high = 0, len(costs) - 1
    sizes = {low: size(low)}
    if sizes[low] <= limit or not high:
        return (low if sizes[low] <= limit else None), sizes
    sizes[high] = size(high)
    if sizes[high] > limit:
        return None, sizes
    while high - low > 1 and len(sizes) < TRIES:
        share = (sizes[low] - limit) / max(sizes[low] - sizes[high], 1)
        target = costs[low] + share * (costs[high] - costs[low])
        step = low + int(np.searchsorted(-np.array(costs[low:high]), -target))
        # At the edge a step is spent on moving the other end.
        step = min(max(step, low + 1), high - 1)
        sizes[step] = size(step)
        if sizes[step] <= limit:
            high = step
        else:
            low = step
    return high, sizes
