"""How many threads linear algebra takes; pure numpy."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from threadpoolctl import ThreadpoolController

# Matrices up to so many rows are done before several threads have found together.
NARROW = 2048


def threads_for(rows: int) -> AbstractContextManager[Any]:
    """One thread of BLAS for work on narrow matrices, as many as there are for others.

    Hundreds of small products cost several times more where threads wait for each other, and
    more still where others work on the same processor.
    """
    return _pools().limit(limits=1, user_api="blas") if rows <= NARROW else nullcontext()


@functools.cache
def _pools() -> ThreadpoolController:
    """The libraries that are loaded; looking for them takes milliseconds, so it is done once."""
    import scipy.linalg.blas  # noqa: F401  # So that its library is among them.

    return ThreadpoolController()
