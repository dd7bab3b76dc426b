"""Workers of a Dask scheduler, on whichever machines they were started."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.workers.answering import Answer
from tfprune.workers.on_cluster import answer_on_cluster

# Seconds within which a scheduler has to answer.
PATIENCE = 10
ADVICE = "start one with: dask scheduler"


class ClusterWorkers:
    """The workers that a Dask scheduler has, as many as there are at the time.

    Dask itself does a piece again whose worker is lost.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    TfpruneError
        If Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise TfpruneError(
                "--cluster: needs Dask, which is not installed: pip install 'tfprune[cluster]'"
            ) from None
        # What goes wrong is told in the command's own words.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._address = address
        self._contents: dict[str, bytes] = {}
        self._near: dict[str, str] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Versions are compared by what answers.
                self._client = Client(address, timeout=PATIENCE, set_as_default=False)
        except Exception as error:  # Addresses that are none raise anything.
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise TfpruneError(
                f"--cluster {address}: no scheduler answers there ({said}); {ADVICE}"
            ) from None

    def size(self) -> int:
        """How many pieces can be worked on at once: a process is given one at a time."""
        try:
            return len(self._client.nthreads())
        except Exception:  # A lost connection raises anything, as above.
            raise self._gone() from None

    def share(self, contents: Mapping[str, bytes]) -> None:
        """Makes bytes known by their digests, which go where they are lacking; forgets others."""
        self._contents = dict(contents)

    def submit(self, request: Mapping[str, Any]) -> Future[Answer]:
        """Has a piece of work done."""
        made: Future[Answer] = Future()
        self._send(request, made)
        return made

    def prepare(self) -> None:
        """Nothing: its workers run already, and others may need them."""

    def stop(self) -> None:
        """Takes back what is not begun, and leaves the workers to the scheduler."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=PATIENCE)

    def _send(
        self,
        request: Mapping[str, Any],
        made: Future[Answer],
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        def done(future: Any) -> None:
            try:
                answer = self._answer_of(future)
                if "lacking" in answer and contents is None:
                    lacking = answer["lacking"]
                    self._send(request, made, {one: self._contents[one] for one in lacking})
                    return
                if "near" in request and answer.get("where"):
                    self._near[request["near"]] = answer["where"]
                made.set_result(answer)
            except InvalidStateError:  # Cancelled meanwhile.
                pass
            except Exception as error:
                made.set_exception(error)

        try:
            where = self._near.get(request.get("near", ""))
            future = self._client.submit(
                answer_on_cluster, dict(request), contents, pure=False,
                workers=None if where is None else [where], allow_other_workers=where is not None,
            )  # fmt: skip
        except Exception:  # A lost connection raises anything, as above.
            raise self._gone() from None
        # Kept as long as somebody waits: Dask forgets what nobody holds.
        made.dask = future  # type: ignore[attr-defined]
        future.add_done_callback(done)

    def _answer_of(self, future: Any) -> Answer:
        if future.status == "finished":
            answer: Answer = future.result()
            return answer
        error = future.exception() if future.status == "error" else None
        if error is None:
            raise self._gone()
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if isinstance(error, (ImportError, AttributeError)):
            raise TfpruneError(
                f"--cluster {self._address}: a worker cannot do it ({said}); install the same "
                "version of tfprune, with its cluster extra, where the workers run"
            )
        raise TfpruneError(f"--cluster {self._address}: {said}")

    def _gone(self) -> TfpruneError:
        return TfpruneError(
            f"--cluster {self._address}: the scheduler went away; what was done is kept, and the "
            "same command goes on from there when it is back"
        )
