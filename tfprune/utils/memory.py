"""How much of a data set is held in memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Of the memory that the process may have, one part in so many, and at most so many bytes.
SHARE, MOST = 8, 4 * 2**30
# What a container may have, in both versions of the system's groups.
GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def resource_limits() -> list[int]:
    """The bytes that ``ulimit -v`` and ``-d`` allow; none where they are not limited."""
    try:
        import resource
    except ImportError:  # Windows.
        return []
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]


def most_held() -> int:
    """Bytes that a data set may take as float32 and be held in memory; of a larger one parts are.

    An eighth of the memory, of what a container or ``ulimit`` allows if that is less, and at most
    4 GiB: a run has its samples several times (as they came, scaled, in batches).
    """
    known = resource_limits()
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Not on Windows.
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in GROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number.
            known.append(int(path.read_text(encoding="ascii")))
    return min(MOST, min(known, default=SHARE * MOST) // SHARE)
