"""Fine-tuning: a model learns a little longer, with labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfprune.choices import check_count
from tfprune.convert import outputs_of
from tfprune.copies import functional, twin
from tfprune.distance import Spread, kinds_of, matches
from tfprune.errors import TfpruneError
from tfprune.evaluate import Yardstick, yardstick
from tfprune.fitting import Batch, batch_size_for, cosine, fit, shuffled
from tfprune.inputs import check_inputs
from tfprune.parts import Part

LEARNING_RATE = 0.001


def check_labels(measure: Yardstick) -> None:
    """Raises :class:`TfpruneError` if the data has nothing to learn from."""
    if measure.metric is None:
        raise TfpruneError(
            "--finetune: expected labels to train on, the data has none; --heal needs none"
        )


def finetuned(
    model: keras.Model,
    teacher: keras.Model,
    train: Part,
    epochs: int,
    *,
    settings: keras.Model | None = None,
    seed: int = 0,
    progress: bool = False,
) -> keras.Model:
    """Trains a copy of a model on labels, as training goes: with Dropout, statistics moving.

    The output that the labels fit (see :func:`tfprune.evaluate.yardstick`) learns them; others
    learn to stay as the teacher's are. Classes are learnt by cross entropy, from logits or from
    probabilities as the output's activation says, values by squared error.

    Parameters
    ----------
    model, teacher : keras.Model
        Of the same inputs and outputs; they stay as they are.
    train : Part
        Samples and labels; labels may lack where an output reconstructs the input.
    epochs : int
        At least 1.
    settings : keras.Model, optional
        A compiled model of a single output whose optimizer and, where it takes these labels, loss
        are used in place of Adam and what is said above.
    seed : int
        Of the order of the samples, and Keras' own seed.
    progress : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    keras.Model
        A new one with the compile settings of the first.

    Raises
    ------
    TfpruneError
        If there are no labels, they fit no output, or the training does not stay finite.
    """
    epochs = check_count("epochs", epochs)
    x = check_inputs(model, train.x)
    answers = [np.asarray(out) for out in outputs_of(teacher, x)]
    measure = yardstick(answers, train)
    check_labels(measure)
    keras.utils.set_random_seed(seed)
    student = twin(model)
    flat = functional(student)
    network = keras.Model(flat.inputs, flat.outputs)
    targets = list(answers)
    spreads = [Spread() for _ in answers]
    for spread, out in zip(spreads, answers, strict=True):
        spread.add(out)
    found = matches(model, teacher, [spread.variance for spread in spreads])
    losses: list[Any] = [match.loss for match in found]
    weights = [match.weight for match in found]
    at = measure.output
    losses[at], targets[at] = _loss(kinds_of(model)[at], measure)
    weights[at] = 1.0
    optimizer: Any = keras.optimizers.Adam(LEARNING_RATE)
    if settings is not None and settings.compiled and len(answers) == 1:
        optimizer = settings.optimizer
        if train.y is not None and _takes(settings.loss, train.y[:8], answers[0][:8]):
            losses, targets = [settings.loss], [train.y]
    size = batch_size_for(len(train))
    steps = epochs * -(-len(train) // size)
    network.compile(_restarted(optimizer, steps), loss=losses, loss_weights=weights)
    rng = np.random.default_rng(seed)

    def feed() -> Iterator[Batch]:
        for index in shuffled(len(train), size, rng):
            yield [data[index] for data in x], [target[index] for target in targets]

    fit(network, feed, epochs, what="fine-tuning", samples=len(train), progress=progress)
    made = twin(model)
    made.set_weights(student.get_weights())
    return made


def _loss(kind: str, measure: Yardstick) -> tuple[Any, Any]:
    """The loss of an output by what makes it, and the labels in the form that it takes."""
    output, target = measure.reference[measure.output], np.asarray(measure.target)
    if measure.metric == "mse":
        return keras.losses.MeanSquaredError(), target.astype(np.float32)
    if output.shape[-1] > 1 and kind != "sigmoid":
        logits = kind != "softmax"
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits), target
    if output.shape[-1] > 1:
        # Sigmoids, one of which should fire.
        rows = np.eye(output.shape[-1], dtype=np.float32)[target.astype(np.intp)]
        return keras.losses.BinaryCrossentropy(), rows
    ones = target.astype(np.float32).reshape(output.shape)
    return keras.losses.BinaryCrossentropy(from_logits=kind != "sigmoid"), ones


def _takes(loss: Any, labels: Any, outputs: Any) -> bool:
    """Whether a compiled loss makes finite numbers of these labels and outputs."""
    if loss is None or isinstance(loss, (dict, list)):
        return False
    try:
        values = keras.ops.convert_to_numpy(keras.losses.get(loss)(labels, outputs))
    except Exception:  # Each loss has errors of its own for labels of another kind.
        return False
    return bool(np.isfinite(values).all())


def _restarted(optimizer: Any, steps: int) -> Any:
    """An optimizer of the same settings, its rate from where it started down to 0."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    config = optimizer.get_config()
    rate = config["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        rate = float(keras.ops.convert_to_numpy(schedule(0)))
    return type(optimizer).from_config({**config, "learning_rate": cosine(float(rate), steps)})
