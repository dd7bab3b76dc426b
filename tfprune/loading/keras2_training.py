"""Rewrites the training settings of an ``.h5`` file as Keras 3's ``compile_config``."""

from __future__ import annotations

import inspect
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading.keras2_forms import Config, native, plain
from tfprune.loading.keras_classes import LOSSES, METRICS, OPTIMIZERS, SCHEDULES

RENAMED = {"lr": "learning_rate"}


def compile_config(training: Any) -> Config:
    """Optimizer, loss and metrics in the form that ``model.compile_from_config`` takes.

    Parameters
    ----------
    training : dict
        The attribute ``training_config`` of a file of Keras 1 to 3.

    Returns
    -------
    dict

    Raises
    ------
    TfpruneError
        If something in it is not Keras' own.
    """
    training = plain(training)
    optimizer = training.get("optimizer_config") if isinstance(training, dict) else None
    if isinstance(optimizer, str):
        optimizer = {"class_name": optimizer, "config": {}}
    if not isinstance(optimizer, dict):
        raise TfpruneError("expected compile settings with an optimizer")
    metrics = training.get("metrics")
    if isinstance(metrics, list) and len(metrics) == 1 and isinstance(metrics[0], list):
        metrics = metrics[0]
    return {
        "optimizer": _optimizer(optimizer),
        "loss": _each(training.get("loss"), _loss),
        "loss_weights": training.get("loss_weights") or None,
        "metrics": _each(metrics, _metric),
    }


def _each(value: Any, function: Any) -> Any:
    """A function applied to every object of a list or dict of outputs."""
    if isinstance(value, list):
        return [_each(item, function) for item in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _each(item, function) for key, item in value.items()}
    return value if value is None else function(value)


def _optimizer(data: Config) -> Config:
    import keras

    name = str(data.get("class_name")).removeprefix("Custom>")
    known = {kind.lower(): kind for kind in OPTIMIZERS}
    name = known.get(name.lower(), name)
    if name not in OPTIMIZERS or not isinstance(data.get("config"), dict):
        raise TfpruneError(f"the optimizer {name} is not Keras' own")
    config = {RENAMED.get(key, key): value for key, value in data["config"].items()}
    rate = config.get("learning_rate")
    decay = config.get("decay")
    if isinstance(rate, dict):
        kind = str(rate.get("class_name"))
        if kind not in SCHEDULES or not isinstance(rate.get("config"), dict):
            raise TfpruneError(f"the schedule {kind} is not Keras' own")
        config["learning_rate"] = native("keras.optimizers.schedules", kind, rate["config"])
    elif isinstance(rate, float) and isinstance(decay, float) and decay > 0:
        schedule = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay}
        config["learning_rate"] = native("keras.optimizers.schedules", "InverseTimeDecay", schedule)
    accepted = {
        parameter
        for base in inspect.getmro(getattr(keras.optimizers, name))
        if "__init__" in vars(base)
        for parameter in inspect.signature(vars(base)["__init__"]).parameters
    } - {"self", "kwargs", "args"}
    config = {key: value for key, value in config.items() if key in accepted and value is not None}
    return native("keras.optimizers", name, config)


def _loss(value: Any) -> Any:
    if isinstance(value, str):
        return value
    name = value.get("class_name") if isinstance(value, dict) else None
    if name not in LOSSES or not isinstance(value.get("config"), dict):
        raise TfpruneError(f"the loss {name} is not Keras' own")
    config = {key: item for key, item in value["config"].items() if key != "fn"}
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    return native("keras.losses", str(name), config)


def _metric(value: Any) -> Any:
    if isinstance(value, str):
        return value
    name = value.get("class_name") if isinstance(value, dict) else None
    config = value.get("config") if isinstance(value, dict) else None
    if name == "MeanMetricWrapper" and isinstance(config, dict):
        # Keras names the function itself where it is told "accuracy".
        return "accuracy" if config.get("name") in ("accuracy", "acc") else config.get("fn")
    if name not in METRICS or not isinstance(config, dict):
        raise TfpruneError(f"the metric {name} is not Keras' own")
    return native("keras.metrics", str(name), config)
