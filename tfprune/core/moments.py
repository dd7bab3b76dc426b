"""Streaming count, mean and second moments of activations, and angles from them; pure numpy.

Selecting and folding units needs nothing else, so samples are never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.core.arrays import Array
from tfprune.errors import TfpruneError

# Relative spread below which float32 activations are a constant plus rounding.
CONSTANT_SPREAD = 1e-6

# Up to so many units products are float64: it costs next to nothing and keeps duplicates exact.
NARROW = 128

# How many deviations from 0 a mean may be before products are taken about it, and on how many
# of the first samples that is judged: copying to subtract costs a tenth of the pass.
NEAR = 8
SAMPLE = 1024

# Size of the buffer of samples that are multiplied at once: numbers, and rows, at most.
WAITING = 2**22
ROWS = 8192
# Rows in it at least, where a caller says how large it may be.
FEWEST = 64


class Moments:
    """Streaming first and second moments of activation vectors.

    Products are float32 (float64 for narrow layers), sums float64. Where a mean is large beside
    its spread they are taken about a reference near it, so that the spread is not cancelled
    away [1]_. Two objects that saw two shards of the data add up (``a + b``).

    Parameters
    ----------
    units : int
        Number of units, at least 1.
    waiting : int
        Bytes of the buffer in which vectors wait to be multiplied, at most; 16 to 32 MiB do best.
    exact : bool
        Whether products are float64 whatever the width, for twice the time of wide layers: sums of
        shards are then those of one pass but for rounding of float64, whatever the order.

    Attributes
    ----------
    count : int
        Samples seen.

    References
    ----------
    .. [1] Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance",
       The American Statistician 37(3).
    """

    def __init__(self, units: int, exact: bool = False, *, waiting: int = 2**63) -> None:
        self.count = 0
        kind = np.float64 if exact or units <= NARROW else np.float32
        self._reference: npt.NDArray[Any] = np.zeros(units, kind)
        self._sum = np.zeros(units)
        self._products = np.zeros((units, units))
        # Small batches wait here: one large product costs far less than many small ones.
        rows = min(
            max(WAITING // units, 1), ROWS, max(waiting // (units * kind().itemsize), FEWEST)
        )
        self._rows = rows
        self._waiting = np.empty((0, units), kind)
        self._filled = 0

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self._sum)

    def add(self, activations: npt.ArrayLike) -> None:
        """Adds a batch.

        Parameters
        ----------
        activations : array of shape (samples, units)

        Raises
        ------
        TfpruneError
            If the shape is another, or a value is NaN or infinite.

        Examples
        --------
        >>> moments = Moments(2)
        >>> moments.add([[1.0, 0.0], [3.0, 0.0]])
        >>> moments.mean
        array([2., 0.])
        >>> moments.add([[np.nan, 0.0]])
        Traceback (most recent call last):
        tfprune.errors.TfpruneError: activations: expected finite numbers, received NaN or infinity
        """
        batch = np.asarray(activations)
        if batch.dtype not in (np.float32, np.float64):
            batch = batch.astype(np.float32)  # Half precision would sum badly.
        if batch.ndim != 2 or batch.shape[1] != self.units:
            raise TfpruneError(
                f"activations: expected shape (samples, {self.units}), received {batch.shape}"
            )
        if len(batch) and not self.count:
            self._refer_to(batch[:SAMPLE])
        self.count += len(batch)
        rows = self._rows
        while len(batch):
            if not self._filled and len(batch) >= rows and not self._reference.any():
                self._take(np.asarray(batch[:rows], self._waiting.dtype))
                batch = batch[rows:]
                continue
            if not len(self._waiting):
                self._waiting = np.empty((rows, self.units), self._waiting.dtype)
            space = self._waiting[self._filled : self._filled + len(batch)]
            with np.errstate(invalid="ignore"):
                np.subtract(batch[: len(space)], self._reference, out=space, casting="same_kind")
            _check_finite(space)
            self._filled += len(space)
            batch = batch[len(space) :]
            if self._filled == rows:
                self.flush()

    def _refer_to(self, first: npt.NDArray[Any]) -> None:
        """Takes the mean of the first samples as reference, or 0 where that is near enough."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = first.mean(axis=0), first.std(axis=0)
            if not (np.abs(mean) <= NEAR * deviation).all():
                self._reference[:] = mean

    def flush(self) -> None:
        """Adds the samples in the buffer to the sums; every method below calls it first."""
        if self._filled:
            self._take(self._waiting[: self._filled])
            self._filled = 0

    def close(self) -> None:
        """Lets go of the buffer until more is added."""
        self.flush()
        self._waiting = np.empty((0, self.units), self._waiting.dtype)

    def _take(self, centred: npt.NDArray[Any]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # Both are checked below.
            products = centred.T @ centred
        if not np.isfinite(products.diagonal()).all():
            _check_finite(centred)
            # The squares overflow float32, though the values do not.
            products = centred.T.astype(np.float64) @ centred
        self._products += products
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.ones(len(centred), centred.dtype) @ centred
        # Some processors add up so that a part of a sum overflows, though the whole does not.
        self._sum += sums if np.isfinite(sums).all() else centred.sum(axis=0, dtype=np.float64)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both shards together.

        Examples
        --------
        >>> shards = Moments(1), Moments(1)
        >>> shards[0].add([[1.0], [2.0]])
        >>> shards[1].add([[6.0]])
        >>> both = shards[0] + shards[1]
        >>> both.count, both.mean
        (3, array([3.]))
        """
        if self.units != other.units:
            raise TfpruneError(f"moments: {self.units} units cannot be added to {other.units}")
        first, second = (self, other) if self.count else (other, self)
        kinds = {self._reference.dtype, other._reference.dtype}
        total = Moments(self.units, exact=kinds == {np.dtype(np.float64)})
        first.flush()
        total.count = first.count + second.count
        total._reference = first._reference
        total._sum = first._sum + second._sum_about(first._reference)
        total._products = first._products + second._products_about(first._reference)
        return total

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that it knows as arrays, to be sent or kept; :meth:`of` is the way back.

        Examples
        --------
        >>> moments = Moments(2)
        >>> moments.add([[1.0, 0.0], [3.0, 2.0]])
        >>> (Moments.of(moments.state()) + moments).gram()
        array([[20., 12.],
               [12.,  8.]])
        """
        self.flush()
        return {
            "count": np.array(self.count),
            "reference": self._reference,
            "sum": self._sum,
            "products": self._products,
        }

    @classmethod
    def of(cls, state: Mapping[str, npt.NDArray[Any]]) -> Moments:
        """The moments that :meth:`state` describes."""
        made = cls(len(state["sum"]), exact=state["reference"].dtype == np.float64)
        made.count = int(state["count"])
        made._reference, made._sum = state["reference"].copy(), state["sum"].copy()
        made._products = state["products"].copy()
        return made

    def _sum_about(self, point: npt.ArrayLike) -> Array:
        self.flush()
        distance = self._reference.astype(np.float64) - np.asarray(point, np.float64)
        return self._sum + self.count * distance

    def _products_about(self, point: npt.ArrayLike) -> Array:
        self.flush()
        distance = self._reference.astype(np.float64) - np.asarray(point, np.float64)
        products = self._products.copy()
        if distance.any():
            # Half of the cross terms goes with each side: one matrix instead of three.
            cross = np.outer(self._sum + self.count / 2 * distance, distance)
            products += cross
            products += cross.T
        return products

    @property
    def rounding(self) -> float:
        """Relative rounding error of a product, at most."""
        return 8 * float(np.finfo(self._waiting.dtype).eps)

    @property
    def mean(self) -> Array:
        """Mean activation per unit, shape (units,)."""
        self.flush()
        return self._reference + self._sum / max(self.count, 1)

    def covariance(self) -> Array:
        """Covariance of the units (divided by the count), shape (units, units)."""
        self.flush()
        spread = self._sum / max(self.count, 1)
        return self._products / max(self.count, 1) - np.outer(spread, spread)

    def gram(self, centre: npt.ArrayLike = 0.0) -> Array:
        """Second moments about a centre: the sum over samples of ``(a - centre)(a - centre)^T``.

        Parameters
        ----------
        centre : float or array of shape (units,)

        Returns
        -------
        array of shape (units, units)

        Examples
        --------
        >>> moments = Moments(2)
        >>> moments.add([[1.0, 0.0], [3.0, 2.0]])
        >>> moments.gram()
        array([[10.,  6.],
               [ 6.,  4.]])
        >>> moments.gram(moments.mean)
        array([[2., 2.],
               [2., 2.]])
        """
        return self._products_about(np.broadcast_to(centre, self.units))

    def constant(self, other: Moments | None = None) -> npt.NDArray[np.bool_]:
        """Which units never change (dead units included), shape (units,).

        Parameters
        ----------
        other : Moments, optional
            Of more samples of the same units, in which they may not change either.
        """
        variance, mean = self._variance(), self.mean
        if other is not None and other.count:
            share = self.count / (self.count + other.count)
            apart = share * (1 - share) * (other.mean - mean) ** 2
            variance = share * variance + (1 - share) * other._variance() + apart
            mean = share * mean + (1 - share) * other.mean
        return variance <= CONSTANT_SPREAD**2 * (variance + mean**2)

    def lengths(self, centre: npt.ArrayLike = 0.0) -> Array:
        """Lengths of the activation vectors about a centre, shape (units,).

        0 for a unit that lies at the centre but for rounding, as its direction would be noise.

        Parameters
        ----------
        centre : float or array of shape (units,)
        """
        variance, mean = self._variance(), self.mean
        squares = variance + (mean - np.asarray(centre, np.float64)) ** 2
        squares[squares <= CONSTANT_SPREAD**2 * (variance + mean**2)] = 0
        return np.sqrt(self.count * squares)

    def _variance(self) -> Array:
        self.flush()
        spread = self._sum / max(self.count, 1)
        return np.maximum(self._products.diagonal() / max(self.count, 1) - spread**2, 0)


def _check_finite(values: npt.NDArray[Any]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()  # A sum is far cheaper than a look at every value.
    if not np.isfinite(total) and not np.isfinite(values).all():
        raise TfpruneError("activations: expected finite numbers, received NaN or infinity")


def angles(gram: Array) -> Array:
    """Pairwise angles between activation vectors: their distinctiveness [1]_.

    Parameters
    ----------
    gram : array of shape (units, units)
        Inner products of the activation vectors, about whichever centre.

    Returns
    -------
    array of shape (units, units)
        Degrees in [0, 180], 0 on the diagonal; NaN where a vector has length 0, which has no
        direction.

    References
    ----------
    .. [1] Gedeon, Harris (1991), "Network reduction techniques".

    Examples
    --------
    Of four vectors the second is 60 degrees from the first, the third is its opposite, and the
    last is 0:

    >>> vectors = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)], [-2.0, 0.0], [0.0, 0.0]])
    >>> angles(vectors @ vectors.T).round(3)[0]
    array([  0.,  60., 180.,  nan])
    """
    lengths = np.sqrt(np.maximum(gram.diagonal(), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = gram / lengths
        degrees /= lengths[:, None]
    # Rounding can leave a cosine just outside [-1, 1], where arccos is NaN.
    np.clip(degrees, -1, 1, out=degrees)
    np.degrees(np.arccos(degrees, out=degrees), out=degrees)
    degrees[np.diag_indices_from(degrees)] = np.where(lengths > 0, 0.0, np.nan)
    return degrees
