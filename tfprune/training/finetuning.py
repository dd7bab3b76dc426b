"""Fine-tuning: trains a pruned model a little longer, with labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfprune.data.scoring import Scorer, make_scorer
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch
from tfprune.graph.clone import clone, functional
from tfprune.graph.compile_settings import fresh_optimizer, only_loss, starting_rate
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.outputs.decisions import losses_of, rules_of
from tfprune.outputs.distance import Spread, kinds_of, matches
from tfprune.training.learning_rates import WarmCosine
from tfprune.training.loop import Batch, Trainer, batch_size_for, check_whole, epoch_of
from tfprune.training.records import TrainingHistory
from tfprune.utils.checks import check_count


def check_labels(measure: Scorer) -> None:
    """Raises :class:`TfpruneError` if the data has nothing to learn from."""
    if measure.metric is None:
        raise TfpruneError(
            "--finetune: expected labels to train on, in train and test data; --heal needs none"
        )


class FineTuner:
    """Samples, and the target and loss of each output for fine-tuning.

    The outputs that the labels fit (see :func:`tfprune.data.scoring.make_scorer`) learn them;
    others are to stay as the teacher's are. The loss is cross entropy for classes, of logits or of
    probabilities as the output's activation says, and the squared error for values.

    Parameters
    ----------
    teacher : keras.Model
    part : Split
        Samples and labels; labels are optional where an output reconstructs the input.
    measure : Scorer, optional
        What the labels mean, as found out on other samples; by default on these.
    settings : keras.Model, optional
        A compiled model whose optimizer with its learning rate and, where there is one output or
        each has labels of its own, losses that take these labels are used in place of Adam and
        what is said above.

    Raises
    ------
    TfpruneError
        If there are no labels, or they fit no output.
    """

    def __init__(
        self,
        teacher: keras.Model,
        part: Split,
        settings: keras.Model | None = None,
        measure: Scorer | None = None,
    ) -> None:
        self._x = check_inputs(teacher, part.x)
        answers = [np.asarray(out) for out in outputs_of(teacher, self._x)]
        if measure is None:
            measure = make_scorer(answers, part, rules_of(teacher, answers))
        else:
            measure = measure.like(answers, part)
        check_labels(measure)
        spreads = [Spread() for _ in answers]
        for spread, out in zip(spreads, answers, strict=True):
            spread.add(out)
        output_matches = matches(teacher, teacher, [spread.variance for spread in spreads])
        self._targets = list(answers)
        self._losses: list[Any] = [match.loss for match in output_matches]
        self._weights = [match.weight for match in output_matches]
        kinds = kinds_of(teacher)
        compiled = settings is not None and settings.compiled
        self._optimizer: Any = settings.optimizer if settings is not None and compiled else None
        losses = _compiled_losses(settings, len(answers))
        for one in measure.each:
            at = one.output
            self._losses[at], self._targets[at] = _loss(kinds[at], one)
            self._weights[at] = 1.0
            y = part.ys.get(one.name) if one.name else part.y
            own = one.name or len(answers) == 1
            if y is not None and own and _takes(losses[at], y[:8], answers[at][:8]):
                self._losses[at], self._targets[at] = keras.losses.get(losses[at]), y

    def loss(self, model: keras.Model) -> float:
        """A model's loss on these samples, as in inference; it may be NaN or infinite."""
        outputs = outputs_of(model, self._x, finite=False)
        rows = zip(self._losses, self._weights, self._targets, outputs, strict=True)
        return sum(
            weight * float(np.mean(keras.ops.convert_to_numpy(loss(target, np.asarray(output)))))
            for loss, weight, target, output in rows
        )

    def fine_tuned(
        self,
        model: keras.Model,
        epochs: int,
        held_out: FineTuner,
        *,
        seed: int = 0,
        progress: bool = False,
    ) -> tuple[keras.Model, TrainingHistory]:
        """A trained copy of a model; Dropout is on and moving statistics are updated.

        Without an optimizer of the user's own, Adam at the rate that does best in short trials.

        Parameters
        ----------
        model : keras.Model
            Of the teacher's inputs and outputs; it stays as it is.
        epochs : int
            At least 1.
        held_out : FineTuner
            Other samples of the same kind. The loss on them is measured at the start and after
            each epoch, and the best state is returned, the start among them.
        seed : int
            Of the order of the samples, and Keras' own seed.
        progress : bool
            Whether to draw progress bars on stderr.

        Raises
        ------
        TfpruneError
            If the model's loss on the held-out samples is not finite.
        """
        epochs = check_count("epochs", epochs)
        keras.utils.set_random_seed(seed)
        student = clone(model)
        flat = functional(student)
        network = keras.Model(flat.inputs, flat.outputs)
        samples = len(self._x[0])
        check_whole(model, samples)
        fixed = fixed_batch(model)
        size = fixed or batch_size_for(samples)
        steps = samples // size if fixed else -(-samples // size)
        schedule = WarmCosine()
        optimizer, rate = _with_schedule(self._optimizer, schedule)
        network.compile(optimizer, loss=self._losses, loss_weights=self._weights)

        def feed(rng: np.random.Generator) -> Iterator[Batch]:
            for index in epoch_of([network], samples, size, rng):
                yield (
                    [np.asarray(data[index]) for data in self._x],
                    [goal[index] for goal in self._targets],
                )

        with Trainer(
            network,
            schedule,
            lambda: held_out.loss(network),
            what="fine-tuning",
            progress=progress,
        ) as trainer:
            history = trainer.fit(
                feed, (epochs,), rate=rate, samples=samples, steps=steps, seed=seed
            )
        tuned = clone(model)
        tuned.set_weights(student.get_weights())
        return tuned, history


def _loss(kind: str, measure: Scorer) -> tuple[Any, Any]:
    """The loss of an output for its activation, and the labels in the form that it takes."""
    output, target = measure.reference[measure.output], np.asarray(measure.target)
    if measure.metric == "mse":
        return keras.losses.MeanSquaredError(), target.astype(np.float32)
    rule = measure.rules[measure.output]
    if not rule.alone and kind != "sigmoid":
        logits = kind != "softmax"
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits), target
    if not rule.alone:
        # Sigmoids, one of which should fire.
        rows = np.eye(output.shape[-1], dtype=np.float32)[target.astype(np.intp)]
        return keras.losses.BinaryCrossentropy(), rows
    ones = target.astype(np.float32).reshape(output.shape)
    if rule.values and rule.threshold:
        return keras.losses.MeanSquaredError(), ones
    return keras.losses.BinaryCrossentropy(from_logits=rule.threshold == 0), ones


def _compiled_losses(settings: keras.Model | None, outputs: int) -> list[Any]:
    """The loss that each output is compiled with, None where there is none."""
    if settings is None or not settings.compiled:
        return [None] * outputs
    if outputs == 1:
        return [only_loss(settings)]
    losses = losses_of(settings)
    return losses if len(losses) == outputs else [None] * outputs


def _takes(loss: Any, labels: Any, outputs: Any) -> bool:
    """Whether a compiled loss is finite for these labels and outputs."""
    if loss is None:
        return False
    try:
        values = keras.ops.convert_to_numpy(keras.losses.get(loss)(labels, outputs))
    except Exception:  # Each loss has errors of its own for labels of another kind.
        return False
    return bool(np.isfinite(values).all())


def _with_schedule(optimizer: Any, schedule: WarmCosine) -> tuple[Any, float | None]:
    """An optimizer of the same settings with a schedule, and its rate at the start."""
    if optimizer is None:
        return keras.optimizers.Adam(schedule), None
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return fresh_optimizer(optimizer, learning_rate=schedule), starting_rate(optimizer)
