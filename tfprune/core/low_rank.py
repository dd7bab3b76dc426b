"""Products of two matrices in fewer dimensions; pure numpy."""

from __future__ import annotations

import numpy as np

from tfprune.core.arrays import Array

# Of a matrix' mean diagonal: what is added to it, for directions that no sample has.
RIDGE = 1e-6


def root(moments: Array) -> Array:
    """A matrix ``L`` with ``L.T @ L`` the second moments, a little added on their diagonal.

    Parameters
    ----------
    moments : array of shape (features, features)
        Symmetric, not negative.

    Examples
    --------
    >>> half = root(np.array([[4.0, 2.0], [2.0, 3.0]]))
    >>> (half.T @ half).round(4)
    array([[4., 2.],
           [2., 3.]])
    """
    values, vectors = np.linalg.eigh(moments)
    ridge = RIDGE * max(float(np.mean(np.diagonal(moments))), np.finfo(float).tiny)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0) + ridge)).T)


def factors(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """Matrices that bring two factors to fewer dimensions, the best first.

    ``left @ b[:, :r]`` times ``(right @ c[:, :r]).T`` is the matrix of rank ``r`` that is nearest
    to ``left @ right.T`` [1]_.

    Parameters
    ----------
    left, right : arrays of shape (rows, dimensions) and (columns, dimensions)

    Returns
    -------
    b, c : arrays of shape (dimensions, dimensions)
        Columns are 0 where the product has no more ranks.
    strengths : array of shape (dimensions,)
        Singular values of the product: what is lost of its squares from the r-th on.

    References
    ----------
    .. [1] Eckart, Young (1936), "The approximation of one matrix by another of lower rank".

    Examples
    --------
    The second dimension is twice the first one, so that one dimension is enough:

    >>> left = np.array([[1.0, 2.0], [3.0, 6.0], [0.0, 0.0]])
    >>> right = np.array([[1.0, 1.0], [2.0, 0.0]])
    >>> b, c, strengths = factors(left, right)
    >>> np.allclose(left @ b[:, :1] @ (right @ c[:, :1]).T, left @ right.T)
    True
    >>> float(strengths.round(6)[1])
    0.0
    """
    upper_left = np.linalg.qr(left)[1]
    upper_right = np.linalg.qr(right)[1]
    u, strengths, vt = np.linalg.svd(upper_left @ upper_right.T, full_matrices=False)
    most = float(strengths.max(initial=0))
    whole = left.shape[1]
    there = strengths > 1e-9 * most
    scale = np.where(there, 1 / np.sqrt(np.where(there, strengths, 1)), 0.0)
    b = np.zeros((whole, whole))
    c = np.zeros((whole, whole))
    b[:, : len(scale)] = upper_right.T @ vt.T * scale
    c[:, : len(scale)] = upper_left.T @ u * scale
    padded = np.zeros(whole)
    padded[: len(scale)] = np.where(there, strengths, 0.0)
    return b, c, padded


def lost(strengths: Array, rank: int) -> float:
    """The share of a product's length that is lost with the strengths from a rank on.

    Examples
    --------
    >>> lost(np.array([4.0, 3.0]), 1)
    0.6
    """
    total = float(np.sum(strengths**2))
    return float(np.sqrt(np.sum(strengths[rank:] ** 2) / total)) if total else 0.0
