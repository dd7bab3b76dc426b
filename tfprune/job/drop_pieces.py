"""The tries of a search for a drop as pieces of work for workers, some of them begun before asked.

While a search waits for a try, idle workers make the models that it may ask for next, whichever way
the try turns out. The same tries count, in the same order, as without workers; what was begun in
vain is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import keras

from tfprune.graph.inputs import check_inputs
from tfprune.job.adapted_start import start_of
from tfprune.job.config import JobConfig
from tfprune.job.drop_search import Trials
from tfprune.job.halving import Halving, Measured, Try
from tfprune.job.model_and_data import measured_model, model_and_data
from tfprune.job.original import scorer
from tfprune.job.records import Tried
from tfprune.job.sent_config import Sent, check_origin, origin_of, received, sent
from tfprune.job.variants import VariantBuilder
from tfprune.utils.arrays import Array
from tfprune.workers.asked import split_asked
from tfprune.workers.pool import Begun, Piece, Workers, open_workers


@contextmanager
def search_workers(config: JobConfig, say: Callable[[str], None]) -> Iterator[SearchWorkers | None]:
    """Workers for a search for a drop, if there is one; a single process is this one.

    They end with the block, and start while model and data are loaded here.
    """
    shared = config.options.max_drop is not None and config.workers != 1
    number, cluster = split_asked(config.workers if shared else None)
    with open_workers(number, cluster, say, alike=True) as pool:
        if pool is not None:
            pool.prepare()
        yield None if pool is None else SearchWorkers(pool, config)


class SearchWorkers:
    """Workers that make the tries of a search.

    Parameters
    ----------
    pool : Workers
    config : JobConfig
    """

    def __init__(self, pool: Workers, config: JobConfig) -> None:
        self._pool = pool
        # The workers' part is none of files and boards.
        options = sent(replace(config, workers=None, device=(), c_array=False))
        self._common: dict[str, Any] = {"options": options}
        self._begun: dict[Try, Begun] = {}
        self._done: dict[Try, tuple[Measured, list[str]]] = {}

    def load(self, origin: Mapping[str, str]) -> None:
        """Lets the workers load model and data and measure activations, without waiting for it.

        Parameters
        ----------
        origin : mapping of str to str
            Digests of the model and of the data, which have to be the workers' too.
        """
        self._common["origin"] = dict(origin)
        for _ in range(self._pool.size()):
            self._pool.begin(Piece("model and data", f"{__name__}:ready", dict(self._common)))

    def measured(self, state: Halving, asked: Try, say: Callable[[str], None]) -> Measured:
        """What came of the try that a search asks for; what it has to say is told.

        Raises
        ------
        TfpruneError
            If it is refused.
        """
        self._begin(asked)
        while not self._begun[asked].ended:
            self._collect()
            known = {one: measured for one, (measured, _) in self._done.items()}
            size = self._pool.size()
            for guess in state.ahead(known):
                if len(self._working()) >= size:
                    break
                self._begin(guess)
            self._pool.wait(self._working())
        if asked not in self._done:
            self._done[asked] = _read(self._begun[asked])
        measured, said = self._done[asked]
        for line in said:
            say(line)
        return measured

    def stop(self) -> None:
        """Ends the workers."""
        self._pool.stop()

    def _begin(self, asked: Try) -> None:
        if asked not in self._begun:
            arguments = {**self._common, **asdict(asked)}
            name = f"a model of up to {asked.limit:,} parameters"
            self._begun[asked] = self._pool.begin(Piece(name, f"{__name__}:tried", arguments))

    def _working(self) -> list[Begun]:
        return [one for one in self._begun.values() if not one.ended]

    def _collect(self) -> None:
        """Notes what came of what has ended."""
        for asked, begun in self._begun.items():
            if begun.ended and asked not in self._done:
                # A mistake in what nobody may ask for is none.
                with suppress(Exception):
                    self._done[asked] = _read(begun)


def _read(begun: Begun) -> tuple[Measured, list[str]]:
    value = dict(begun.result().value)
    said = value.pop("said")
    return Measured(**{**value, "tried": Tried(**value["tried"])}), said


def ready(
    options: dict[str, Any], origin: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Makes ready for tries; what a worker runs, first.

    Raises
    ------
    TfpruneError
        If model or data cannot be read here, or are others than where the command runs.
    """
    _, ours, _ = _trials(Sent(options))
    check_origin(ours, origin)
    return {}, {}


def tried(
    options: dict[str, Any],
    origin: dict[str, str],
    limit: int,
    blend: float | None,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What came of a try; what a worker runs.

    Raises
    ------
    TfpruneError
        As of :func:`ready`, and if there is no such model.
    """
    ready(options, origin)
    trials, _, said = _trials(Sent(options))
    del said[:]
    _, one = trials.made(Try(limit, blend))
    return {**asdict(one), "said": list(said)}, {}


@lru_cache(maxsize=1)
def _trials(options: Sent) -> tuple[Trials, dict[str, str], list[str]]:
    """What makes the tries of a search, the digests of what it is made of, and what it says."""
    config = received(JobConfig, options).validate()
    said = list[str]()
    keras.utils.set_random_seed(config.seed)
    model, data, about = model_and_data(config, said.append)
    measure = scorer(config, model, check_inputs(model, data.test.x), data.test, data)
    start = start_of(config, model, data, measure)
    pruner = measured_model(config, start.model, data, said.append)
    # Finds the order in which units go.
    pruner.parameters(config.options.round_to, config.options.fold)
    builder = VariantBuilder(config, model, start.model, data, measure, pruner, said.append)
    return Trials(builder), origin_of(about, model, data.sha256), said
