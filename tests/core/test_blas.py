"""Narrow matrices are worked on by one thread, and then all are there again."""

from __future__ import annotations

from threadpoolctl import threadpool_info, threadpool_limits

from tfprune.core.blas import NARROW, threads_for


def threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_for_narrow_matrices_alone():
    with threadpool_limits(3, "blas"):
        with threads_for(NARROW):
            assert threads() == {1}
        with threads_for(NARROW + 1):
            assert threads() == {3}
        assert threads() == {3}
