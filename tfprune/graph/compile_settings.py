"""Gives a new model the compile settings of another one."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.graph.configs import ConfigError, remade


def compile_as(model: keras.Model, other: keras.Model) -> None:
    """Compiles a model as another one is compiled, without sharing any state.

    Losses, their weights and functions are the user's own objects. The optimizer and metrics that
    are objects are new ones of the same configuration; a metric that cannot be made anew is left
    out, and without an optimizer the other model stays as it is: see :func:`not_compiled`.

    Parameters
    ----------
    model, other : keras.Model
        Nothing is done if the first one is not compiled.
    """
    if not model.compiled:
        return
    if type(other).compile is not keras.Model.compile:
        # The arguments of a compile of the user's own are known to its two companions alone.
        if type(other).compile_from_config is not keras.Model.compile_from_config:
            other.compile_from_config(model.get_compile_config())
        return
    try:
        optimizer = None if model.optimizer is None else fresh_optimizer(model.optimizer)
    except TfpruneError:
        return
    settings = _settings(model)
    known: dict[int, Any] = {}
    # A list has an entry for each of several outputs.
    places = len(model.outputs) > 1
    other.compile(
        optimizer=optimizer,
        loss=settings.get("loss"),
        loss_weights=settings.get("loss_weights"),
        metrics=_fresh_metrics(settings.get("metrics"), known, places),
        weighted_metrics=_fresh_metrics(settings.get("weighted_metrics"), known, places),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile and not model.run_eagerly,
        # Where it was scaled, the model's optimizer does it already.
        auto_scale_loss=False,
    )
    if optimizer is not None:
        # A file of an optimizer without variables is loaded with a warning.
        other.optimizer.build(other.trainable_variables)


def fresh_optimizer(optimizer: Any, **changes: Any) -> Any:
    """A new optimizer of the same class and configuration, with some changes.

    Raises
    ------
    TfpruneError
        If its class cannot make it from its configuration.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return type(optimizer)(
            fresh_optimizer(optimizer.inner_optimizer, **changes),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )
    try:
        return remade(optimizer, changes)
    except ConfigError as error:
        raise TfpruneError(
            f"optimizer {type(optimizer).__name__} cannot be copied: its class needs a get_config "
            f"that its __init__ takes ({error})"
        ) from None


def starting_rate(optimizer: Any) -> float:
    """The learning rate of an optimizer's first step."""
    # The public attribute is the rate of the next step; its schedule has no public name.
    schedule = vars(optimizer).get("_learning_rate")
    first = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    rate = schedule(0) if first else optimizer.learning_rate
    return float(keras.ops.convert_to_numpy(rate))


def only_loss(model: keras.Model) -> Any:
    """The loss of a compiled model of one output, out of its list or dict; None without any."""
    loss = getattr(model, "loss", None)
    losses = keras.tree.flatten(loss)
    return losses[0] if len(losses) == 1 else None


def not_compiled(model: keras.Model, other: keras.Model) -> tuple[str, ...]:
    """Lists the compile settings of a model that a copy of it lacks."""
    if not model.compiled:
        return ()
    if not other.compiled:
        if type(other).compile is not keras.Model.compile:
            return (
                f"model {other.name} is not compiled: {type(other).__name__} has a compile of its "
                "own and no compile_from_config; call compile again",
            )
        return (
            f"model {other.name} is not compiled: its optimizer {type(model.optimizer).__name__} "
            "cannot be made from its get_config; call compile again",
        )
    before, after = (
        [
            metric
            for key in ("metrics", "weighted_metrics")
            for metric in _flat(_settings(one).get(key))
        ]
        for one in (model, other)
    )
    if len(before) == len(after):
        return ()
    names = {metric.name for metric in after if isinstance(metric, keras.Metric)}
    lost = [m for m in before if isinstance(m, keras.Metric) and m.name not in names]
    return tuple(
        f"model {other.name} lacks the metric {metric.name}: {type(metric).__name__} cannot be "
        "made from its get_config; call compile again"
        for metric in lost
    )


def _settings(model: keras.Model) -> dict[str, Any]:
    """The objects that a model was compiled with."""
    # The public get_compile_config writes them by name, so that a function called "dice" would
    # come back as Keras' own; loss_weights and metrics have no public attribute at all.
    kept = getattr(model, "_compile_config", None)
    return {"loss": model.loss} if kept is None else dict(kept.config)


def _fresh_metrics(metrics: Any, known: dict[int, Any], places: bool = False) -> Any:
    """Metrics in the same structure: new objects, with names and functions as they are.

    One that cannot be made is left out; with ``places`` an empty list stands where it was.
    """
    if isinstance(metrics, dict):
        return {name: _fresh_metrics(part, known) for name, part in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        parts = [_fresh_metrics(part, known) for part in metrics]
        return [[] if part is None else part for part in parts if places or part is not None]
    if not isinstance(metrics, keras.Metric):
        return metrics
    if id(metrics) not in known:
        try:
            known[id(metrics)] = remade(metrics)
        except ConfigError:
            known[id(metrics)] = None
    return known[id(metrics)]


def _flat(metrics: Any) -> list[Any]:
    if isinstance(metrics, dict):
        return [metric for part in metrics.values() for metric in _flat(part)]
    if isinstance(metrics, (list, tuple)):
        return [metric for part in metrics for metric in _flat(part)]
    return [] if metrics is None else [metrics]
