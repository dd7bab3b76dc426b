"""Compares a study's pruning with the package's: scores, units removed, bytes of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from tfprune.prune_result import PruneResult
from tfprune.studies.bench import Bench
from tfprune.studies.study import Experiment
from tfprune.tflite.converter import convert, signature_names
from tfprune.tflite.interpreter import LiteModel

Array = npt.NDArray[np.float32]
# The package's own rule and fold; the study's is in its file.
OURS = "least-squares"


@dataclass(frozen=True, eq=False)
class Cut:
    """A model pruned by one rule.

    Attributes
    ----------
    result : PruneResult
    zeroed : keras.Model
        The model as large as it was, with zeros for what was removed: it computes the same.
    """

    result: PruneResult
    zeroed: keras.Model


def cut(bench: Bench, name: str, experiment: Experiment, fold: str) -> Cut:
    """Prunes one of the study's models by the experiment's threshold."""
    settings = experiment.settings
    pruner = bench.pruner(name, experiment)
    what = [name, experiment.train, experiment.test, settings.get("change"), fold]
    what += [settings[key] for key in ("on", "centre", "degrees")]

    def make() -> Cut:
        result = pruner.prune(settings["degrees"], fold=fold)
        return Cut(result, zeroed(bench.trained(name, experiment).model, result))

    return bench.once(["cut", *what], make)


def zeroed(model: keras.Model, result: PruneResult) -> keras.Model:
    """The study's pruned model: weights of removed units set to zero, none of them gone."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kept = {layer.name: layer.kept for layer in result.layers}
    before: npt.NDArray[np.intp] | None = None
    for layer in copy.layers:
        if not isinstance(layer, keras.layers.Dense):
            continue
        small = result.model.get_layer(layer.name).get_weights()
        kernel, bias = (np.zeros_like(weight) for weight in layer.get_weights())
        rows = np.arange(len(kernel)) if before is None else before
        columns = kept.get(layer.name, np.arange(len(bias)))
        kernel[np.ix_(rows, columns)], bias[columns] = small
        layer.set_weights([kernel, bias])
        before = columns
    return copy


def told(cuts: Sequence[Cut], prefix: str) -> dict[str, float]:
    """Units removed, in percent, by class, of one model or several together."""
    layers = [layer for one in cuts for layer in one.result.layers]
    before = sum(layer.units_before for layer in layers)
    values = {
        f"{prefix}.{kind}": 100 * sum(getattr(layer, kind) for layer in layers) / before
        for kind in ("constant", "similar", "complementary")
    }
    after = sum(layer.units_after for layer in layers)
    return values | {f"{prefix}.removed": 100 * (before - after) / before}


def file_of(model: keras.Model, samples: Array) -> tuple[int, Callable[[Array], Array]]:
    """Bytes of the model's int8 file, and the file as a function of images.

    ``samples`` set the scales of what is quantised.
    """
    ((_, content),) = convert(model, ["int8"], [samples])
    lite = LiteModel(content, signature_names(model))
    return len(content), lambda x: lite.predict([x])[0]
