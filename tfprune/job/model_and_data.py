"""The model to prune, its data, and its activations measured: where every run of a job begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from tfprune.data import network_training, sources
from tfprune.data.built_in import BUILT_IN
from tfprune.data.networks import load_model
from tfprune.data.preprocessing import input_specs
from tfprune.data.splits import Dataset, prepare
from tfprune.data.test_samples import check_test_count
from tfprune.errors import TfpruneError
from tfprune.graph.clone import functional, walk
from tfprune.graph.inputs import MOST_HELD_BACK
from tfprune.graph.layers import EMBEDDINGS, MAKERS
from tfprune.graph.predictions import output_names
from tfprune.graph.unfollowed import unfollowed
from tfprune.job.config import CommonConfig, JobConfig
from tfprune.job.scale_choice import scale_for
from tfprune.loading.keras2_folder import digest
from tfprune.pruner import Pruner
from tfprune.shards.files import of_data
from tfprune.workers.asked import split_asked


def model_and_data(
    config: CommonConfig, say: Callable[[str], None], test_samples: int | None = None
) -> tuple[keras.Model, Dataset, dict[str, Any]]:
    """The model to prune, the data as it takes it, and what the manifest says of the model.

    Refuses to write more ``test_samples`` than there are before the model is trained or loaded.
    """
    if config.model in BUILT_IN:
        raw = sources.load(
            config.dataset,
            config.data,
            config.seed,
            say,
            label=config.label,
            feature=config.feature,
        )
        data = prepare(raw, config.scale, None, config.calibration, config.seed)
        check_test_count(test_samples, len(data.test))
        shape = data.train.arrays[0].shape[1:]
        _check_names(config, BUILT_IN[config.model](shape, 2, config.units))
        model, path = network_training.trained(
            config.model,
            config.units,
            data.train,
            data.validation,
            data_digest=data.sha256,
            epochs=config.epochs,
            seed=config.seed,
            say=say,
        )
        name = config.model
    else:
        path = Path(config.model)
        model = load_model(path, config.unsafe, say=say, imports=config.import_)
        name = path.stem
        functional(model)  # A model without known shapes is told here.
        _check_names(config, model)
        specs = input_specs(model)
        raw = sources.load(
            config.dataset,
            config.data,
            config.seed,
            say,
            inputs=[spec.name for spec in specs],
            outputs=output_names(model),
            shape=specs[0].shape if len(specs) == 1 else None,
            label=config.label,
            feature=config.feature,
        )
        scale, why = scale_for(config, model, raw, specs)
        data = prepare(raw, scale, specs, config.calibration, config.seed)
        data = replace(data, notes=(*data.notes, *why))
        check_test_count(test_samples, len(data.test))
    return model, data, {"name": name, "sha256": digest(path) if path else None}


def measured_model(
    config: JobConfig, model: keras.Model, data: Dataset, say: Callable[[str], None]
) -> Pruner:
    """The model with its activations measured, where its data lies in several files by workers."""
    shards = of_data(data, config.import_)
    number, cluster = split_asked(config.workers if shards else None)
    if config.workers and not shards and config.options.max_drop is None:
        say(
            "--workers: they share the tries of --max-drop, and several files of "
            "--data; there is neither, so this process does it all"
        )
    pruner = pruner_of(config, model, data, shards or None, workers=number, cluster=cluster)
    if pruner.calibration.layers_note:
        say(pruner.calibration.layers_note)
    return pruner


def pruner_of(
    config: CommonConfig, model: keras.Model, data: Dataset, x: Any = None, **workers: Any
) -> Pruner:
    """The model measured as the options say, on ``x`` or the calibration data."""
    return Pruner(
        model,
        data.calibration.x if x is None else x,
        layers=config.layers_to_prune,
        skip=config.skip,
        centre=config.centre,
        approximate=config.approximate,
        validation=data.validation.take(slice(MOST_HELD_BACK)).x,
        progress=True,
        **workers,
    )


def _check_names(config: CommonConfig, model: keras.Model) -> None:
    """Raises for layers that do not exist, before any long work."""
    names = [path for path, layer in walk(model) if type(layer) in (*MAKERS, *EMBEDDINGS)]
    closed = [one.name for one in unfollowed(model)]
    asked = () if isinstance(config.layers_to_prune, str) else config.layers or ()
    for name in (*asked, *config.skip):
        if name not in (*names, *closed):
            raise TfpruneError(
                f"layer {name!r} is no layer of the model with units; these are: {', '.join(names)}"
            )
