"""The kinds of experiments: a function for what a run of each does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.studies.bench import BATCH, Bench, Trained, predicted, scores
from tfprune.studies.cutting import OURS, Cut, cut, file_of, told
from tfprune.studies.networks import CLASSES
from tfprune.studies.study import Experiment
from tfprune.utils.arrays import Array

# Filters of a first layer, and images to reconstruct, that are kept for pictures.
FILTERS = 64
REQUIREMENTS = "requirements-studies.txt"


class MissingError(TfpruneError):
    """A package of the optional extra is not installed."""


@dataclass(frozen=True)
class Outcome:
    """The results of a run of an experiment: see :class:`tfprune.studies.record.Record`."""

    values: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list)
    pictures: dict[str, Array] = field(default_factory=dict)


def score(bench: Bench, experiment: Experiment) -> Outcome:
    """Trains a model and tests it.

    Gives what :func:`tfprune.studies.bench.scores` does, ``train_loss`` of the last epoch,
    ``epochs``, ``parameters`` and ``step_ms``; for pictures the filters of a first convolution and
    reconstructions after each epoch.
    """
    trained = bench.trained(experiment.models[0], experiment)
    x, y = _test(bench, experiment)
    values = scores(trained.table, predicted(trained.model, x), x, y)
    values |= {
        "train_loss": trained.history[-1]["loss"],
        "epochs": float(len(trained.history)),
        "parameters": float(trained.model.count_params()),
        "step_ms": trained.step_ms,
    }
    return Outcome(values, trained.history, _pictures(bench, experiment, trained))


def _test(bench: Bench, experiment: Experiment) -> tuple[Array, Array]:
    _, test = bench.parts(experiment)
    assert test.y is not None
    return test.arrays[0], test.y


def _pictures(bench: Bench, experiment: Experiment, trained: Trained) -> dict[str, Array]:
    """What the first run keeps to be drawn."""
    pictures: dict[str, Array] = {}
    if trained.reconstructed:
        x, y = _test(bench, experiment)
        first = [int(np.flatnonzero(y == one)[0]) for one in np.unique(y)]
        rows = [x[first][: len(trained.reconstructed[0]), ..., 0], *trained.reconstructed]
        pictures["reconstructions"] = np.stack(rows)
    if experiment.settings.get("filters"):
        layer = next(one for one in trained.model.layers if isinstance(one, keras.layers.Conv2D))
        kernel = keras.ops.convert_to_numpy(layer.kernel)[..., 0, :FILTERS].transpose(2, 0, 1)
        low, high = (extreme(kernel, axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
        pictures["filters"] = (kernel - low) / np.maximum(high - low, 1e-9)
    return pictures


def code(bench: Bench, experiment: Experiment) -> Outcome:
    """Trains an auto-encoder, then a softmax layer on the outputs of its layer ``code`` alone."""
    trained = bench.trained(experiment.models[0], experiment)
    encoder = keras.Model(trained.model.inputs, trained.model.get_layer("code").output)
    train, _ = bench.parts(experiment)
    x, y = _test(bench, experiment)
    assert train.y is not None
    settings = experiment.settings
    keras.utils.set_random_seed(bench.seed)
    codes = predicted(encoder, train.arrays[0])
    reader = keras.Sequential(
        [keras.Input(codes.shape[1:]), keras.layers.Dense(CLASSES, "softmax")]
    )
    reader.compile(
        keras.optimizers.Adam(settings["learning_rate"]),
        "sparse_categorical_crossentropy",
        steps_per_execution=32,
    )
    reader.fit(codes, train.y, batch_size=settings["batch"], epochs=settings["epochs"], verbose=0)
    outputs = predicted(reader, predicted(encoder, x))
    classified = scores({"loss": "cross-entropy"}, outputs, x, y)
    rebuilt = scores(trained.table, predicted(trained.model, x), x, y)
    return Outcome(
        {**classified, "reconstruction.loss": rebuilt["loss"]},
        trained.history,
        _pictures(bench, experiment, trained),
    )


def chain(bench: Bench, experiment: Experiment) -> Outcome:
    """Sends test images through an auto-encoder, and what comes out to a classifier.

    Those of the two that ``prune`` names are pruned before. Gives the classifier's scores,
    ``reconstruction.loss``, ``ours.`` scores of the package's rule, and of what was pruned, by
    ``study`` and ``ours``, the units removed and bytes of files.
    """
    x, y = _test(bench, experiment)
    pair = [bench.trained(name, experiment) for name in experiment.models]
    whole = [one.model for one in pair]
    names = experiment.settings.get("prune", [])
    if not names:
        values, shown = _sent(whole, pair, x, y)
        return Outcome(values, pictures={"sent": shown})
    values, pictures = {}, {}
    for rule, prefix in ((experiment.settings["fold"], ""), (OURS, "ours.")):
        cuts = {name: cut(bench, name, experiment, rule) for name in names}
        models = [
            cuts[name].result.model if name in cuts else model
            for name, model in zip(experiment.models, whole, strict=True)
        ]
        scored, shown = _sent(models, pair, x, y)
        values |= {prefix + key: value for key, value in scored.items()}
        values |= told(list(cuts.values()), "ours" if prefix else "study")
        pictures[prefix + "sent"] = shown
        if bench.run < experiment.settings["files"]:
            values |= _chained_files(bench, experiment, cuts, models, prefix)
    return Outcome(values, pictures=pictures)


def _sent(
    models: list[keras.Model], pair: list[Trained], x: Array, y: Array
) -> tuple[dict[str, float], Array]:
    """Scores of a classifier on reconstructed images; a picture of some, originals first."""
    rebuilt = predicted(models[0], x)
    values = scores(pair[1].table, predicted(models[1], rebuilt), x, y)
    values["reconstruction.loss"] = scores(pair[0].table, rebuilt, x, y)["loss"]
    first = [int(np.flatnonzero(y == one)[0]) for one in np.unique(y)]
    return values, np.stack([x[first][..., 0], rebuilt[first][..., 0]])


def _chained_files(
    bench: Bench,
    experiment: Experiment,
    cuts: dict[str, Cut],
    models: list[keras.Model],
    prefix: str,
) -> dict[str, float]:
    """Bytes of the pruned networks' int8 files, and what the chain of int8 files gets right."""
    x, y = _test(bench, experiment)
    train, _ = bench.parts(experiment)
    samples = train.arrays[0][:BATCH]
    files = [file_of(model, samples) for model in models]
    right = np.mean(files[1][1](files[0][1](x)).argmax(axis=-1) == y)
    side = "ours" if prefix else "study"
    sizes = dict(zip(experiment.models, (size for size, _ in files), strict=True))
    values = {
        f"{side}.bytes": float(sum(sizes[name] for name in cuts)),
        f"{side}.int8.correct": 10_000 * float(right),
    }
    if side == "study":
        zeros = [file_of(one.zeroed, samples)[0] for one in cuts.values()]
        values["zeroed.bytes"] = float(sum(zeros))
    return values


def prune(bench: Bench, experiment: Experiment) -> Outcome:
    """Prunes a trained classifier at a threshold, by the study's rule and by the package's.

    ``also`` names further folds, whose values go by their names. Gives ``before.``, ``study.`` and
    ``ours.`` accuracy, ``change`` in points by either rule,
    units removed by class, and, for the first ``files`` runs, bytes and accuracy of files.
    """
    (name,) = experiment.models
    trained = bench.trained(name, experiment)
    x, y = _test(bench, experiment)
    train, _ = bench.parts(experiment)
    samples = train.arrays[0][:BATCH]
    whole = scores(trained.table, predicted(trained.model, x), x, y)
    values = {f"before.{key}": value for key, value in whole.items()}
    also = [(fold, fold) for fold in experiment.settings.get("also", ())]
    for rule, side in ((experiment.settings["fold"], "study"), (OURS, "ours"), *also):
        study_cut = cut(bench, name, experiment, rule)
        after = scores(trained.table, predicted(study_cut.result.model, x), x, y)
        values |= {f"{side}.{key}": value for key, value in after.items()}
        values[f"{side}.change"] = after["accuracy"] - whole["accuracy"]
        values |= told([study_cut], side)
        if bench.run < experiment.settings["files"] and (rule, side) not in also:
            values[f"{side}.bytes"], run = _sized(study_cut.result.model, samples)
            values[f"{side}.int8.accuracy"] = 100 * float(np.mean(run(x).argmax(axis=-1) == y))
            if side == "study":
                values["zeroed.bytes"], _ = _sized(study_cut.zeroed, samples)
    return Outcome(values, trained.history)


def _sized(model: keras.Model, samples: Array) -> tuple[float, Callable[[Array], Array]]:
    size, run = file_of(model, samples)
    return float(size), run


def classifier(bench: Bench, experiment: Experiment) -> Outcome:
    """Fits one of scikit-learn's classifiers to images as rows of numbers."""
    train, _ = bench.parts(experiment)
    x, y = _test(bench, experiment)
    assert train.y is not None
    model = _estimator(experiment.settings, bench.seed)
    _fit(model, train.arrays[0].reshape(len(train), -1), train.y)
    return _right(model.predict(x.reshape(len(x), -1)), y)


def _fit(model: Any, x: Array, y: Array) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # How many steps it may take is a setting of the study.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)


def _estimator(settings: dict[str, Any], seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.multiclass import OneVsOneClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    known = (LogisticRegression, RidgeClassifier, KNeighborsClassifier, MLPClassifier)
    kind = {one.__name__: one for one in known}[settings["estimator"]]
    more = dict(settings.get("parameters", {}))
    if kind is MLPClassifier:
        more["random_state"] = seed
    model = kind(**more)
    return OneVsOneClassifier(model) if settings.get("pairwise") else model


def hog(bench: Bench, experiment: Experiment) -> Outcome:
    """Fits a linear support vector machine to histograms of oriented gradients.

    Raises
    ------
    MissingError
        Without scikit-image.

    References
    ----------
    Dalal, Triggs (2005), "Histograms of oriented gradients for human detection".
    """
    if find_spec("skimage") is None:
        raise MissingError(f"needs {REQUIREMENTS}")
    from sklearn.svm import LinearSVC

    train, _ = bench.parts(experiment)
    x, y = _test(bench, experiment)
    model = LinearSVC(C=experiment.settings["penalty"], random_state=bench.seed)
    assert train.y is not None
    _fit(model, _described(train.arrays[0], experiment.settings), train.y)
    return _right(model.predict(_described(x, experiment.settings)), y)


def _described(images: Array, settings: dict[str, Any]) -> Array:
    from skimage.feature import hog as histogram

    cell, block = settings["cell"], settings["block"]
    return np.stack(
        [
            histogram(
                image[..., 0],
                orientations=settings["orientations"],
                pixels_per_cell=(cell, cell),
                cells_per_block=(block, block),
            )
            for image in images
        ]
    )


def _right(decided: Array, y: Array) -> Outcome:
    right = float(np.mean(decided == y))
    return Outcome({"accuracy": 100 * right, "error": 100 * (1 - right), "correct": 10_000 * right})


KINDS: dict[str, Callable[[Bench, Experiment], Outcome]] = {
    one.__name__: one for one in (score, code, chain, prune, classifier, hog)
}
# Packages beside the usual ones that a kind's values depend on.
NEEDS = {"classifier": ("scikit-learn",), "hog": ("scikit-learn", "scikit-image")}
