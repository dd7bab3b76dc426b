"""``UnitGroup``: the data about a group of units that a user's criterion scores; pure numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.core.arrays import Array
from tfprune.errors import TfpruneError


@dataclass(frozen=True, eq=False)
class UnitProducer:
    """A layer that computes units of a group.

    Attributes
    ----------
    layer : str
        Its path in the model.
    units : array of shape (its units,)
        Which unit of the group each of its units is, from 0.
    kernel : array of shape (inputs, its units)
        Incoming weights, float64, without the bias; all positions of a convolution's window count
        as inputs. Of a separable convolution the pointwise ones.
    """

    layer: str
    units: npt.NDArray[np.intp]
    kernel: Array


@dataclass(frozen=True, eq=False)
class UnitConsumer:
    """A layer that consumes units of a group, and what it receives of them in calibration.

    Attributes
    ----------
    layer : str
        Its path in the model.
    units : array of shape (seen,)
        Which units of the group it sees, from 0; where units are concatenated, not all.
    kernel : array of shape (seen, outputs)
        Weights by which it multiplies each unit, float64; positions count as outputs of their own.
    count : int
        Samples; one that a unit has a value at several positions for counts as several.
    mean : array of shape (seen,)
        Mean activation of each unit.
    covariance : array of shape (seen, seen)
        Of the activations, divided by ``count``.
    """

    layer: str
    units: npt.NDArray[np.intp]
    kernel: Array
    count: int
    mean: Array
    covariance: Array

    @property
    def second_moments(self) -> Array:
        """Mean over the samples of ``a a^T``, the activations' products, shape (seen, seen)."""
        return self.covariance + np.outer(self.mean, self.mean)

    @property
    def gram(self) -> Array:
        """Sum over the samples of ``a a^T``, shape (seen, seen)."""
        return self.count * self.second_moments


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that are kept or removed together in all layers that share them.

    Most groups are the units of one layer; layers that meet in an Add share theirs.

    Attributes
    ----------
    units : int
        How many there are.
    producers : tuple of UnitProducer
        The layers that compute them, at least one.
    consumers : tuple of UnitConsumer
        The layers that read them, at least one.
    angles : array of shape (units, units)
        Degrees in [0, 180] between activation vectors; NaN for units without a direction.
    constant : array of bool of shape (units,)
        Which units never change.

    Examples
    --------
    Two units that one layer computes from three inputs, and that another one consumes:

    >>> import numpy as np
    >>> from tfprune import UnitGroup
    >>> from tfprune.core.unit_group import UnitConsumer, UnitProducer, magnitude
    >>> both = np.arange(2)
    >>> producer = UnitProducer("hidden", both, np.array([[3.0, 0.0], [4.0, 1.0], [0.0, 0.0]]))
    >>> consumer = UnitConsumer(
    ...     "out", both, np.array([[0.5], [-2.0]]), 100, np.array([1.0, 2.0]), np.eye(2)
    ... )
    >>> angles = np.array([[0.0, 90.0], [90.0, 0.0]])
    >>> group = UnitGroup(2, (producer,), (consumer,), angles, np.zeros(2, bool))
    >>> group.layers
    ('hidden',)
    >>> magnitude(group)
    array([5., 1.])
    """

    units: int
    producers: tuple[UnitProducer, ...]
    consumers: tuple[UnitConsumer, ...]
    angles: Array
    constant: npt.NDArray[np.bool_]

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that compute the units."""
        return tuple(producer.layer for producer in self.producers)


# What ``select=`` takes beside names: a score for every unit of a group, shape (units,), the
# higher the longer a unit stays.
ScoreFunction = Callable[[UnitGroup], npt.ArrayLike]


def magnitude(group: UnitGroup) -> Array:
    """Length of each unit's incoming weights, all producers together, shape (units,)."""
    squares = np.zeros(group.units)
    for producer in group.producers:
        np.add.at(squares, producer.units, (producer.kernel**2).sum(axis=0))
    return np.sqrt(squares)


def checked_scores(name: str, group: UnitGroup, scores: Any) -> Array:
    """The scores of a criterion as float64, shape (units,).

    Parameters
    ----------
    name : str
        What the criterion is called.
    group : UnitGroup
    scores : array_like
        What it returned.

    Raises
    ------
    TfpruneError
        If there is not one real, finite number for each unit.

    Examples
    --------
    >>> group = UnitGroup(2, (), (), np.zeros((2, 2)), np.zeros(2, bool))
    >>> checked_scores("mine", group, [1, 2])
    array([1., 2.])
    """
    where = f"each of the {group.units} units of {' + '.join(group.layers)}"
    try:
        received = np.asarray(scores)
    except ValueError:  # Rows of several lengths.
        received = np.asarray(None)
    if received.dtype.kind not in "biuf":
        raise TfpruneError(
            f"select {name}: expected a number for {where}, received {type(scores).__name__}"
        )
    if received.shape != (group.units,):
        raise TfpruneError(
            f"select {name}: expected a score for {where}, shape ({group.units},), "
            f"received shape {received.shape}"
        )
    if not np.isfinite(received).all():
        unit = int(np.flatnonzero(~np.isfinite(received))[0])
        raise TfpruneError(
            f"select {name}: expected a finite score for {where}, "
            f"received {received[unit]} for unit {unit}"
        )
    return received.astype(np.float64)
