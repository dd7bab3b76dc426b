"""The reconstruction's normal equations of samples in several files, summed where workers are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any
from uuid import uuid4

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph.batches import states_of
from tfprune.graph.inputs import Samples, check_inputs
from tfprune.graph.precision import in_float32
from tfprune.graph.tracer import trace
from tfprune.reconstruction.least_squares import Solution
from tfprune.reconstruction.piece_sums import PieceSums, Task
from tfprune.reconstruction.sites import Wiring
from tfprune.shards.files import FilePiece, Shards, read_samples
from tfprune.shards.sent_models import model_content, sent_model
from tfprune.utils.arrays import Array
from tfprune.utils.console import say
from tfprune.workers.pool import Piece, Workers, open_workers

# The name of what is written as JSON among arrays, and that of layers' outputs that are kept.
TEXT, KEPT = "text", "kept"


class FilePieces:
    """The samples of a reconstruction, but those held back for folds, in pieces.

    Parameters
    ----------
    shards : Shards
    pool : Workers or None
        None for this process alone.
    samples : Samples
        All samples.
    smaller, model : keras.Model
        The pruned model before the reconstruction, and the original.
    """

    def __init__(
        self,
        shards: Shards,
        pool: Workers | None,
        samples: Samples,
        smaller: keras.Model,
        model: keras.Model,
    ) -> None:
        held = samples.held_numbers()
        self._shards, self._pool, self._models = shards, pool, (smaller, model)
        # A piece without any sample left has nothing to add.
        self._pieces = [one for one in shards.pieces(held) if len(one.held) < len(one.places)]
        self._total = sum(len(one.places) - len(one.held) for one in self._pieces)
        self._here: PieceSums | None = None
        self._content = b""

    @property
    def samples(self) -> int:
        """How many there are."""
        return self._total

    def begin(
        self, ours: Wiring, theirs: Wiring, kept: Mapping[str, npt.NDArray[np.intp]]
    ) -> FilePieces:
        """The same for models that were traced here: see :class:`PieceSums`."""
        if self._pool is None:
            self._here = PieceSums(ours, theirs, kept)
            return self
        smaller, model = map(model_content, self._models)
        text = {
            # A worker that has these models from the time before has changed their weights.
            "key": uuid4().hex,
            "pieces": [[one.files, one.held.tolist()] for one in self._pieces],
            "samples": self._shards.description(),
            "imports": self._shards.absolute_imports(),
            KEPT: list(kept),
        }
        arrays = [np.frombuffer(content, np.uint8) for content in (smaller, model)]
        self._content = _packed(text, {"models": arrays, KEPT: list(kept.values())})
        return self

    def sums(self, task: Task) -> Iterator[Mapping[str, Array]]:
        """What each piece adds, in their order.

        Raises
        ------
        TfpruneError
            If a worker cannot read a file or a model.
        """
        if self._pool is None:
            here, (_, model) = self._here, self._models
            assert here is not None, "it was begun"
            for number, piece in enumerate(self._pieces):
                yield here.of(number, partial(_here, self._shards, model, piece), task)
            return
        asked = {"path": task.path, "what": task.what, "each": task.each}
        pieces = [
            Piece(one.name, f"{__name__}:add", {**asked, "number": number}, near=one.name)
            for number, one in enumerate(self._pieces)
        ]
        shared = {"shared": self._content, "state": _state(task)}
        for done in self._pool.results(pieces, ordered=True, shared=shared):
            yield done.arrays


@contextmanager
def open_source(
    shards: Shards | None,
    asked: tuple[int | None, str | None],
    samples: Samples,
    smaller: keras.Model,
    model: keras.Model,
) -> Iterator[FilePieces | None]:
    """All samples for the closed form of a reconstruction; None where they are in no files.

    Parameters
    ----------
    shards : Shards or None
    asked : (int or None, str or None)
        The number of workers, or the address of a scheduler.
    samples, smaller, model
        As of :class:`FilePieces`.
    """
    # A model that keeps a state from batch to batch has no closed form.
    if shards is None or states_of(model):
        yield None
        return
    # As many threads as here: sums that others share are rounded otherwise.
    with open_workers(*asked, say, alike=True) as pool:
        yield FilePieces(shards, pool, samples, smaller, model)


def add(
    number: int, path: str, what: str, each: int, *, shared: bytes, state: bytes
) -> tuple[None, dict[str, Array]]:
    """What a piece adds to the sums; what a worker runs.

    Parameters
    ----------
    number : int
        Of the piece.
    path, what, each
        See :class:`tfprune.reconstruction.piece_sums.Task`.
    shared, state : bytes
        What stays for all layers, and what changes.

    Raises
    ------
    TfpruneError
        If a file or a model cannot be read.
    """
    worker = _worker(shared)
    task = Task(path, what, each, worker.take(state))
    return None, worker.sums.of(number, lambda: worker.samples(number), task)


class _Worker:
    """The models and the pieces that were sent."""

    def __init__(self, content: bytes) -> None:
        text, arrays = _unpacked(content)
        self._pieces, self._description = text["pieces"], text["samples"]
        imports = tuple(text["imports"])
        smaller, self._model = (sent_model(one.tobytes(), imports) for one in arrays["models"])
        self._ours, theirs = (trace(in_float32(one)) for one in (smaller, self._model))
        kept = dict(zip(text[KEPT], arrays.get(KEPT, []), strict=True))
        self.sums = PieceSums(Wiring(self._ours), Wiring(theirs), kept)
        self._state, self._tried = b"", list[Solution]()

    def samples(self, number: int) -> list[Any]:
        """Those of a piece that are not held back for folds."""
        files, held = self._pieces[number]
        return _left(self._model, read_samples(files, **self._description), held)

    def take(self, state: bytes) -> list[Solution]:
        """Sets the weights that changed, and returns the solutions that are tried."""
        if state == self._state:  # As for the piece before.
            return self._tried
        text, arrays = _unpacked(state)
        for path in text["paths"]:
            self._ours.copies[path].set_weights(arrays[f"weights {path}"])
        kernels = arrays["kernels"]
        biases: Sequence[Array | None] = arrays["biases"] or [None] * len(kernels)
        self._state, self._tried = state, list(zip(kernels, biases, strict=True))
        return self._tried


@lru_cache(maxsize=1)
def _worker(content: bytes) -> _Worker:
    return _Worker(content)


def _here(shards: Shards, model: keras.Model, piece: FilePiece) -> list[Any]:
    return _left(model, shards.at(piece.places), piece.held)


def _left(model: keras.Model, x: Any, held: Any) -> list[Any]:
    """Checked samples without those at some numbers."""
    checked = check_inputs(model, x)
    if not len(held):
        return checked
    left = np.setdiff1d(np.arange(len(checked[0])), held)
    return [one[left] for one in checked]


def _state(task: Task) -> bytes:
    """The weights that changed, and the solutions that are tried."""
    arrays = {f"weights {path}": values for path, values in task.changed.items()}
    arrays["kernels"] = [kernel for kernel, _ in task.tried]
    arrays["biases"] = [bias for _, bias in task.tried if bias is not None]
    return _packed({"paths": list(task.changed)}, arrays)


def _packed(text: Any, arrays: Mapping[str, Sequence[Array]]) -> bytes:
    """Something that JSON can hold, and lists of arrays by names, as bytes."""
    file = io.BytesIO()
    names = [[name, len(values)] for name, values in arrays.items()]
    flat = [value for values in arrays.values() for value in values]
    content = json.dumps({"names": names, TEXT: text}).encode()
    np.savez(file, np.frombuffer(content, np.uint8), *flat)
    return file.getvalue()


def _unpacked(content: bytes) -> tuple[Any, dict[str, list[Array]]]:
    """The way back from :func:`_packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        flat = iter([archive[f"arr_{number}"] for number in range(len(archive.files))])
    about = json.loads(next(flat).tobytes())
    return about[TEXT], {name: [next(flat) for _ in range(n)] for name, n in about["names"]}
