"""Folds against least squares from the samples themselves, and against hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.core.fold import (
    FOLD_RULES,
    apply_fold,
    drop,
    least_squares,
    merge_matrix,
    outgoing,
    scaled,
)
from tfprune.core.moments import Moments
from tfprune.core.selection import Selection
from tfprune.options import FOLD_NAMES, SHARE_FOLDS
from tfprune.sweep.plot import MARKERS

NOWHERE = np.zeros(4)


def moments_of(a):
    moments = Moments(a.shape[1])
    moments.add(a)
    return moments


def kept(*units):
    return np.array(units, np.intp)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_least_squares_is_that_of_the_samples(seed, survivors):
    rng = np.random.default_rng(seed)
    a = np.maximum(rng.normal(0.5, 1, (200, 6)) @ rng.normal(0, 1, (6, 6)), 0).astype(np.float32)
    # A dead unit says nothing and would make the oracle's answer one of many.
    a[0] += 0.1 + np.arange(6)
    selection = Selection(
        kept=np.sort(rng.choice(6, survivors, replace=False)),
        similar={},
    )
    removed = np.setdiff1d(np.arange(6), selection.kept)
    selection = Selection(selection.kept, dict.fromkeys(removed.tolist(), int(selection.kept[0])))
    fold = least_squares(selection, moments_of(a), np.zeros(6))
    design = np.column_stack([a[:, selection.kept], np.ones(len(a))]).astype(float)
    best, *_ = np.linalg.lstsq(design, a[:, removed].astype(float), rcond=None)
    ours = a[:, selection.kept].astype(float) @ fold.matrix[:, removed] + fold.offset[removed]
    np.testing.assert_allclose(ours, design @ best, atol=2e-3)
    assert (fold.matrix[:, selection.kept] == np.eye(survivors)).all()
    assert not fold.offset[selection.kept].any()


def test_a_duplicate_is_its_partner_however_few_the_samples(rng):
    """Found on EfficientNetB0: with fewer samples than units any mixture of survivors fits."""
    a = np.maximum(rng.normal(0, 1, (1032, 400)), 0).astype(np.float32)
    a[:, 7], a[:, 9] = 2 * a[:, 311], 3 - a[:, 200]
    selection = Selection(np.setdiff1d(np.arange(400), [7, 9]), similar={7: 311, 9: 200})
    fold = least_squares(selection, moments_of(a[:32]), np.zeros(400))
    new = a[32:].astype(float)
    np.testing.assert_allclose(new[:, fold.kept] @ fold.matrix + fold.offset, new, atol=0.02)


def test_survivors_that_hardly_fire_get_no_large_weights(rng):
    """Found on MNIST: weights of 100 among others of 0.4, which no int8 scale has room for."""
    a = np.maximum(rng.normal(0, 1, (2000, 12)) @ rng.normal(0, 1, (12, 40)), 0)
    a[:, 3] = 1e-4 * np.maximum(rng.normal(-2, 1, 2000), 0)
    a = a.astype(np.float32)
    selection = Selection(np.arange(20), least=tuple(range(20, 40)))
    fold = least_squares(selection, moments_of(a), np.zeros(40))
    design = np.column_stack([a[:, :20], np.ones(len(a))]).astype(float)
    best, *_ = np.linalg.lstsq(design, a[:, 20:].astype(float), rcond=None)
    assert np.abs(best[3]).max() > 10
    assert np.abs(fold.matrix[3, 20:]).max() < 0.1
    ours, theirs = (
        np.mean((made - a[:, 20:]) ** 2)
        for made in (a[:, :20] @ fold.matrix[:, 20:] + fold.offset[20:], design @ best)
    )
    assert ours < 1.01 * theirs


def test_scaled_takes_the_sign_and_the_centre_of_the_pair(rng):
    a = rng.random((500, 4)).astype(np.float32)
    a[:, 0] = 0.5 + 0.4 * (a[:, 2] - 0.5)
    a[:, 1] = 1 - a[:, 3]
    selection = Selection(kept(2, 3), similar={0: 2}, complementary={1: 3})
    fold = scaled(selection, moments_of(a), np.full(4, 0.5))
    np.testing.assert_allclose(a[:, [2, 3]] @ fold.matrix + fold.offset, a, atol=1e-5)
    np.testing.assert_allclose(fold.matrix[:, 0], [0.4, 0], atol=1e-5)
    np.testing.assert_allclose(fold.matrix[:, 1], [0, -1], atol=1e-5)


def test_constants_go_into_the_shift_whatever_the_fold(rng):
    a = rng.random((50, 4)).astype(np.float32)
    a[:, 1] = 0.3
    selection = Selection(kept(0, 3), similar={2: 3}, constant=(1,))
    for scheme in FOLD_RULES.values():
        fold = scheme.fold(selection, moments_of(a), NOWHERE)
        assert fold.offset[1] == pytest.approx(0.3, abs=1e-6)
        assert not fold.matrix[:, 1].any()


def test_outgoing_hands_on_along_a_chain_and_loses_complements(rng):
    a = rng.random((50, 6)).astype(np.float32)
    selection = Selection(kept(3), similar={0: 2, 2: 3, 1: 4}, complementary={4: 5, 5: 4})
    fold = outgoing(selection, moments_of(a), np.zeros(6))
    assert fold.matrix.tolist() == [[1, 0, 1, 1, 0, 0]]
    assert not fold.offset.any()
    assert drop(selection, moments_of(a), np.zeros(6)).matrix.tolist() == [[0, 0, 0, 1, 0, 0]]


def test_incoming_adds_the_incoming_weights():
    selection = Selection(kept(2, 3), similar={0: 2, 1: 2})
    kernel = np.arange(8.0).reshape(2, 4)
    assert (kernel @ merge_matrix(selection, merge=False)).tolist() == kernel[:, [2, 3]].tolist()
    assert (kernel @ merge_matrix(selection, merge=True)).tolist() == [
        [0 + 1 + 2, 3],
        [4 + 5 + 6, 7],
    ]


def test_absorbing_a_fold_is_reading_what_it_says(rng):
    # Two positions of three units, and one feature of somebody else in between.
    index = np.array([[0, 1, 2], [4, 5, 6]])
    kernel = rng.normal(0, 1, (7, 5))
    selection = Selection(kept(1, 2), similar={0: 2})
    fold = outgoing(selection, Moments(3), np.zeros(3))
    fold = type(fold)(fold.kept, fold.matrix + 0.1, np.array([0.5, 0.0, -1.0]))
    folded, bias = apply_fold(kernel, index, fold)
    survivors = rng.normal(0, 1, (11, 2, 2))
    features = rng.normal(0, 1, (11, 7))
    for position in range(2):
        features[:, index[position]] = survivors[:, position] @ fold.matrix + fold.offset
    expected = features @ kernel
    smaller = np.column_stack([survivors[:, 0], features[:, 3], survivors[:, 1]])
    np.testing.assert_allclose(smaller @ folded[[1, 2, 3, 5, 6]] + bias, expected)


@pytest.mark.parametrize("units", [30, 200])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_fewer_samples_than_units_leave_a_steady_fold(rng, units, scale):
    a = (scale * np.maximum(rng.normal(0, 1, (20, units)), 0)).astype(np.float32)
    a[:, 0] = a[:, 1]
    selection = Selection(np.arange(1, units), similar={0: 1})
    fold = least_squares(selection, moments_of(a), np.zeros(units))
    assert np.abs(fold.matrix).max() < 2
    rebuilt = a[:, 1:].astype(float) @ fold.matrix + fold.offset
    np.testing.assert_allclose(rebuilt, a, atol=2e-2 * scale)


def test_the_names_that_are_checked_are_those_of_the_folds():
    assert tuple(FOLD_RULES) == FOLD_NAMES
    assert tuple(name for name, rule in FOLD_RULES.items() if rule.any_units) == SHARE_FOLDS
    assert set(FOLD_RULES) <= set(MARKERS)
