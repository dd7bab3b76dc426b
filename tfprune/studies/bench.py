"""A run's data and trained models, built when asked for and kept until the run ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.data.splits import Split, split
from tfprune.pruner import Pruner
from tfprune.studies import networks
from tfprune.studies.study import Experiment, Study, Table
from tfprune.utils.arrays import Array

# Samples of one prediction.
BATCH = 500
# How many images a picture of reconstructions shows: the first of each class, in order.
SHOWN = 10


@dataclass(frozen=True)
class Data:
    """Images in [0, 1] of shape (samples, 28, 28, 1) and classes.

    Attributes
    ----------
    name, sha256 : str
    is_mnist : bool
        Whether published figures are of this data.
    train, test : Split
    """

    name: str
    sha256: str
    is_mnist: bool
    train: Split
    test: Split


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model.

    Attributes
    ----------
    model : keras.Model
    table : dict
        The data that it was made from.
    history : list of dict
        For each epoch ``loss``, ``test_loss``, where it classifies ``accuracy`` and
        ``test_accuracy``, and ``seconds`` of processor time since training began. With early
        stopping ``held_`` in place of ``test_``.
    reconstructed : list of arrays of shape (10, 28, 28)
        What became of ten test images after each epoch, where images are reconstructed.
    step_ms : float
        Processor time of a step, the first epoch left out if there are others.
    """

    model: keras.Model
    table: Table
    history: list[dict[str, float]]
    reconstructed: list[Array] = field(default_factory=list)
    step_ms: float = 0.0


class Bench:
    """What the experiments of one run have in common.

    Parameters
    ----------
    study : Study
    data : Data
    run, seed : int
        The run's number, and the seed of its first model and of drawing samples.
    epoch_done : callable
        Is called after every epoch of a training.
    """

    def __init__(
        self, study: Study, data: Data, run: int, seed: int, epoch_done: Callable[[], None]
    ) -> None:
        self.study, self.data, self.run, self.seed = study, data, run, seed
        self._epoch_done = epoch_done
        self._kept: dict[str, Any] = {}

    def once(self, what: Any, make: Callable[[], Any]) -> Any:
        """Returns what ``make`` made before, or calls it."""
        key = json.dumps(what, sort_keys=True)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def parts(self, experiment: Experiment) -> tuple[Split, Split]:
        """Training and test samples, drawn by the run's seed if not all are wanted."""
        requests = ((self.data.train, experiment.train), (self.data.test, experiment.test))
        parts = [self._drawn(part, count) for part, count in requests]
        return parts[0], parts[1]

    def _drawn(self, part: Split, count: int) -> Split:
        if count >= len(part):
            return part
        return part.take(np.random.default_rng(self.seed).permutation(len(part))[:count])

    def trained(self, name: str, experiment: Experiment) -> Trained:
        """One of the study's models, trained on the experiment's samples."""
        change = experiment.settings.get("change", {})
        what = ["model", name, change, experiment.train, experiment.test]
        return self.once(what, lambda: self._train(name, experiment, change))

    def _train(self, name: str, experiment: Experiment, change: Table) -> Trained:
        table = {**self.study.models[name], **change.get("model", {})}
        train, test = self.parts(experiment)
        keras.utils.set_random_seed(self.seed)
        held = test
        if "patience" in table:
            train, held = split(train, table["held"], self.seed)
        model = networks.build(table, change)
        (x, y), (held_x, held_y) = (_arrays(part) for part in (train, held))
        batch = networks.compile_for(model, table, len(x))
        shown = None
        if table.get("target") == "image":
            first = [int(np.flatnonzero(test.y == one)[0]) for one in np.unique(_arrays(test)[1])]
            shown = _arrays(test)[0][first[:SHOWN]]
        watch = _Watch(self._epoch_done, shown, "held_" if held is not test else "test_")
        callbacks: list[Any] = [watch]
        if "patience" in table:
            stop = keras.callbacks.EarlyStopping(
                patience=table["patience"], restore_best_weights=True
            )
            callbacks.append(stop)
        model.fit(
            x,
            networks.target(table, x, y),
            batch_size=batch,
            epochs=table["epochs"],
            verbose=0,
            callbacks=callbacks,
            validation_data=(held_x, networks.target(table, held_x, held_y)),
            validation_batch_size=BATCH,
        )
        steps = -(-len(x) // batch)
        lasted = np.diff([0.0, *(entry["seconds"] for entry in watch.history)])
        rest = lasted[1:] if len(lasted) > 1 else lasted
        return Trained(
            networks.untied(model, table),
            table,
            watch.history,
            watch.pictures,
            1000 * float(np.median(rest)) / steps,
        )

    def pruner(self, name: str, experiment: Experiment) -> Pruner:
        """Measures activations of a trained model once: of test images as the studies did, or
        of training images."""
        settings = experiment.settings
        trained = self.trained(name, experiment)
        train, test = self.parts(experiment)
        part = test if settings["on"] == "test" else train.take(slice(len(test)))
        what = ["pruner", name, settings.get("change"), settings["on"], settings["centre"]]
        return self.once(
            [*what, experiment.train, experiment.test],
            lambda: Pruner(
                trained.model, part.arrays[0], centre=settings["centre"], hold_back=False
            ),
        )


def _arrays(part: Split) -> tuple[Array, Array]:
    """Images and classes, which the runner has made sure of."""
    assert part.y is not None
    return part.arrays[0], part.y


class _Watch(keras.callbacks.Callback):  # type: ignore[misc] # Keras is untyped.
    """Keeps what each epoch gave, with the time that training alone took."""

    def __init__(self, done: Callable[[], None], shown: Array | None, prefix: str) -> None:
        super().__init__()
        self._done, self._shown, self._prefix = done, shown, prefix
        self._taken = self._since = 0.0
        self._training = False
        self.history: list[dict[str, float]] = []
        self.pictures: list[Array] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._since, self._training = time.process_time(), True

    def on_test_begin(self, logs: Any = None) -> None:
        if self._training:
            self._taken += time.process_time() - self._since
            self._training = False

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        named = {
            key.replace("val_", self._prefix): round(float(value), 6)
            for key, value in (logs or {}).items()
        }
        self.history.append({"epoch": epoch + 1, **named, "seconds": round(self._taken, 3)})
        if self._shown is not None:
            self.pictures.append(self.model.predict_on_batch(self._shown)[..., 0])
        self._done()


def predicted(model: keras.Model, x: Array) -> Array:
    """A model's outputs."""
    return model.predict(x, batch_size=BATCH, verbose=0)


def scores(table: Table, outputs: Array, x: Array, y: Array) -> dict[str, float]:
    """Loss; where classes are told, also how many are right.

    Returns
    -------
    dict
        ``loss``; ``accuracy`` and ``error`` in percent and ``correct`` of 10,000.
    """
    values = {"loss": networks.loss_of(table, outputs, networks.target(table, x, y))}
    if table.get("target") != "image":
        right = float(np.mean(outputs.argmax(axis=-1) == y))
        values |= {"accuracy": 100 * right, "error": 100 * (1 - right), "correct": 10_000 * right}
    return values
