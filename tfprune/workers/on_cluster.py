"""What runs on a Dask worker: it hands requests to a process of its own, as ``--workers`` does.

So TensorFlow has as many threads as Dask says that the worker has, native code that crashes takes
no Dask worker with it, and what Dask does in its processes (it looks at the variables of running
functions) does not meet the work.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from tfprune.workers.answering import THREADS, Answer, loaded
from tfprune.workers.processes import LocalWorkers

# A worker does one piece at a time, however many threads Dask may have given it.
_lock = threading.Lock()
GPUS = "CUDA_VISIBLE_DEVICES"


def answer_on_cluster(
    request: Mapping[str, Any], contents: Mapping[str, bytes] | None = None
) -> Answer:
    """Does a piece of work; see :mod:`tfprune.workers.answering`.

    Parameters
    ----------
    request : mapping
    contents : mapping of str to bytes, optional
        Shared bytes by their digests, where they come with the request.
    """
    from distributed import get_worker

    worker = get_worker()
    with _lock:
        process = _process(worker.state.nthreads, tuple(sorted(request["variables"].items())))
        if "shared" in request:
            wanted = request["shared"].values()
            process.share(contents or {}, wanted)
            lacking = [digest for digest in wanted if not process.knows(digest)]
            if lacking:
                return {"lacking": lacking}
        made = process.submit(request).result()
        arrays = loaded(made)
    made.pop("file", None)
    return {**made, "arrays": arrays, "where": worker.address}


@cache
def _process(threads: int, variables: tuple[tuple[str, str], ...]) -> LocalWorkers:
    # A GPU that the worker was started with by name is its to use.
    known = {GPUS: os.environ[GPUS]} if GPUS in os.environ else {}
    process = LocalWorkers(1, {**dict.fromkeys(THREADS, str(threads)), **known, **dict(variables)})
    atexit.register(process.stop)
    return process
