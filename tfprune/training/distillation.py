"""Healing: trains a pruned model on the original's outputs, without labels (distillation)."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
from tqdm import tqdm

from tfprune.errors import PruningWarning, TfpruneError
from tfprune.graph.batches import (
    fixed_batch,
    from_zero_state,
    many_models,
    padded,
    states_of,
)
from tfprune.graph.clone import clone, functional, lost
from tfprune.graph.inputs import Samples
from tfprune.graph.subclasses import check_call
from tfprune.outputs.distance import matches
from tfprune.training.augmentation import check_pictures
from tfprune.training.heal_result import HealResult
from tfprune.training.learning_rates import WarmCosine, cycles_of
from tfprune.training.loop import Trainer, trial_generator
from tfprune.training.records import TrainingHistory
from tfprune.training.soft_targets import SoftTargets, soft_targets
from tfprune.training.student import Student, parted
from tfprune.utils.checks import check_count, check_epochs, check_rate

# Batches by which the statistics of BatchNormalization are measured at the end.
AVERAGED = 50


def heal(
    model: keras.Model,
    teacher: keras.Model,
    x: Any,
    epochs: int | str,
    *,
    augment: bool = False,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    logits: bool | None = None,
    bits: int | None = None,
    validation: Any = None,
    seed: int = 0,
    progress: bool = False,
) -> keras.Model:
    """Trains a pruned model to compute what the original does; needs no labels (distillation).

    Outputs of a softmax, and logits, learn by cross entropy at a temperature of 2, those of a
    sigmoid by cross entropy as they are, others by squared error in parts of the teacher's
    variance; several outputs count alike; regularizers of layers have no part in it. The layers in
    front of the first one that pruning changed stay as they are, and what they compute is computed
    once where that is not more than the samples themselves. Adam, its rate rising in the first
    tenth of the steps and then along a cosine to 0. Dropout is off. BatchNormalization that has at
    least 1,000 values of each channel in a batch, as behind convolutions, takes the statistics of
    its batches, and its moving statistics follow; others, and those that are not trainable or are
    called with ``training=False``, keep theirs.

    A part of the samples is held out: a tenth, at most 5,000; of 100 samples or fewer a quarter,
    of 2 to 7 one, of a single one none. The loss on them is measured before the training and after
    each epoch, and the best state comes back, the start among them: the model is never worse there
    than it was. See :func:`heal_with_record` for the figures.

    Parameters
    ----------
    model : keras.Model
        The pruned model; it stays as it is.
    teacher : keras.Model
        The original, of the same inputs and outputs.
    x : array, list or dict of arrays, path of a .npy, tf.data.Dataset or keras.utils.PyDataset
        Samples as the model takes them; labels that come with a data set are left out. Arrays are
        shuffled. A data set comes in its own order, in batches of the size of its largest; it is
        read once before the training, in part for each learning rate that is tried, and once in
        each epoch; its held-out samples, at most 1,000 and 128 MiB, are kept in memory and told
        from the others by their values.
    epochs : int or "auto"
        At least 1. With ``"auto"`` the rate falls to 0 in 2 epochs, and again in 4, 8 and 16,
        each time from the best state so far. Where that lowers the best loss on the held-out
        samples by less than 2 %, the next fall starts at a third of the rate; where it does so
        again, it is over.
    augment : bool
        For models of pictures (height, width, channels), of 1, 3 or 4 channels: whether those
        trained on are mirrored at random, and shifted by up to a tenth of their size, filled up
        with their edges. The teacher sees the same; held-out samples stay as they are.
    batch_size : int, optional
        Of arrays; 128 by default, less where an epoch would be fewer than 64 steps, at least 16. A
        model of a fixed batch size takes that, and what is left over in an epoch is left out.
        Where a recurrent layer keeps its state from batch to batch, samples come in their own
        order, every pass over them starts with a state of zero, and the last ones are held out.
    learning_rate : float, optional
        In (0, 1], the highest. By default it is found: short trainings, of a twelfth of the steps
        each and at most 96, try 0.003 and then smaller or larger ones as long as the loss on the
        held-out samples falls; the largest that does about as well as the best is taken. If no
        epoch is better than the start, there is a second training at a tenth of that rate.
    logits : bool, optional
        Whether linear outputs of several units are the logits of classes, and so are compared as
        probabilities, of temperature 2. By default if the teacher's compiled loss says so.
    bits : int, optional
        From 2 to 8: the model answers with the weights of the Dense layers that are trained
        rounded to so many bits, a scale for each unit, and rounded they come back. 4 for files of
        the scheme ``int4``. The start is then the model with its weights rounded.
    validation : as ``x``, optional
        Samples to measure the loss on; then none of ``x`` are held out.
    seed : int
        Of the order of the samples, and of which are held out.
    progress : bool
        Whether to draw progress bars on stderr, and a line with the loss before and after.

    Returns
    -------
    keras.Model
        A new model with the names, trainable flags and compile settings of the pruned one.

    Raises
    ------
    TfpruneError
        If an argument is not as above, the data or the teacher does not fit the model, or the
        model's outputs are not finite.

    Warns
    -----
    PruningWarning
        If no epoch was better than the start, the loss of the training was not finite (the best
        state before that comes back), nothing is trainable, nothing could be held out, or the new
        model lacks something that the pruned one has.

    References
    ----------
    Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".

    Examples
    --------
    A layer of four units should answer as one of eight that says everything twice:

    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> def network(units, half):
    ...     kernels = np.tile(np.eye(4), units // 4), np.full((units, 2), half)
    ...     layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(2)]
    ...     model = keras.Sequential([keras.Input((4,)), *layers])
    ...     for layer, kernel in zip(layers, kernels):
    ...         layer.set_weights([kernel, np.zeros(kernel.shape[1])])
    ...     return model
    >>> pruned, original = network(4, 0.5), network(8, 0.5)
    >>> x = np.random.default_rng(0).normal(size=(128, 4))
    >>> healed = tfprune.heal(pruned, original, x, epochs=4, learning_rate=0.05)
    >>> error = [np.mean((model(x) - original(x)) ** 2) for model in (pruned, healed)]
    >>> bool(error[1] < error[0] / 2)
    True
    """
    result = heal_with_record(
        model,
        teacher,
        x,
        epochs,
        augment=augment,
        batch_size=batch_size,
        learning_rate=learning_rate,
        logits=logits,
        bits=bits,
        validation=validation,
        seed=seed,
        progress=progress,
    )
    if progress:
        tqdm.write(f"healing: {result}", file=sys.stderr)
    if result.problem:
        advice = "take a smaller learning_rate, or more samples"
        if not result.history.problem and result.trained_on > 1:
            advice = "set layer.trainable = True"
        warnings.warn(f"healing: {result.problem}; {advice}", PruningWarning, stacklevel=2)
    for note in result.notes:
        warnings.warn(note, PruningWarning, stacklevel=2)
    return result.model


def heal_with_record(
    model: keras.Model,
    teacher: keras.Model,
    x: Any,
    epochs: int | str,
    *,
    augment: bool = False,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    logits: bool | None = None,
    bits: int | None = None,
    validation: Any = None,
    seed: int = 0,
    progress: bool = False,
    enough: Callable[[keras.Model], bool] | None = None,
) -> HealResult:
    """As :func:`heal`, but returns the losses beside the model, and prints and warns nothing.

    ``enough`` is asked after each epoch that did better than all before it, with the model as it
    is then, not to be kept; True ends the training.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> keras.utils.set_random_seed(0)
    >>> original, pruned = (
    ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(2)])
    ...     for units in (8, 4)
    ... )
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> result = tfprune.heal_with_record(pruned, original, x, epochs=1, learning_rate=0.01)
    >>> result.trained_on, result.held_out, len(result.history.losses)
    (75, 25, 2)
    >>> result.after <= result.before
    True
    """
    cycles = cycles_of(check_epochs("epochs", epochs))
    size = None if batch_size is None else check_count("batch_size", batch_size)
    rate = None if learning_rate is None else check_rate(learning_rate)
    if bits is not None and (type(bits) is not int or not 2 <= bits <= 8):
        raise TfpruneError(f"bits: expected a whole number from 2 to 8 or None, received {bits!r}")
    _check_pair(model, teacher)
    if augment:
        check_pictures(model)
    samples = Samples(model, x)
    fixed = fixed_batch(model)
    if fixed is not None and size not in (None, fixed):
        raise TfpruneError(
            f"batch_size: expected {fixed}, which is all that model {model.name} takes, or None, "
            f"received {size}"
        )
    check_call(model, samples.head)
    watched = None if validation is None else Samples(model, validation)
    student = clone(model)
    head, tail = parted(student, teacher)
    if tail is None:
        return HealResult(student, TrainingHistory((0.0,), 0.0), 0, 0, lost(model, student))
    with from_zero_state(teacher):
        targets = soft_targets(
            head, tail, teacher, samples, batch_size=size, seed=seed, hold_out=watched is None,
            augment=augment,
        )  # fmt: skip
        held_out = targets
        if watched is not None:
            held_out = soft_targets(head, tail, teacher, watched, hold_out=False)
        output_matches = matches(model, teacher, targets.variances, logits)
        network = Student(tail, output_matches, bits=bits, batch_size=targets.batch_size)
        if tail.trainable_weights:
            history = _train(
                network, targets, held_out, cycles=cycles, rate=rate, seed=seed, progress=progress,
                enough=lambda: enough is not None and enough(student),
            )  # fmt: skip
            network.round()
        else:
            history = TrainingHistory((_loss(network, held_out),), 0.0)
    # A new one, as the student's layers stand in several graphs by now.
    healed = clone(model)
    healed.set_weights(student.get_weights())
    for state, own in zip(states_of(healed), states_of(model), strict=True):
        state.assign(own)
    count = targets.held_out if watched is None else held_out.trained_on
    return HealResult(healed, history, targets.trained_on, count, lost(model, healed))


def _train(
    network: Student,
    targets: SoftTargets,
    held_out: SoftTargets,
    *,
    cycles: Sequence[int],
    rate: float | None,
    seed: int,
    progress: bool,
    enough: Callable[[], bool],
) -> TrainingHistory:
    """Trains a network in place."""
    schedule = WarmCosine()
    network.compile(keras.optimizers.Adam(schedule))
    with Trainer(
        network,
        schedule,
        lambda: _loss(network, held_out),
        what="healing",
        restarted=network.set_momentum,
        progress=progress,
    ) as trainer:
        history = trainer.fit(
            targets.batches,
            cycles,
            rate=rate,
            samples=targets.trained_on,
            steps=targets.steps,
            seed=seed,
            enough=enough,
        )
        if network.has_statistics:
            best = network.get_weights()
            batches = itertools.islice(targets.batches(trial_generator(seed)), AVERAGED)
            finite = trainer.pass_through(batches, network.average)
            loss = _loss(network, held_out)
            if finite and loss < history.after:
                return replace(history, remeasured=loss)
            network.set_weights(best)
    return history


@many_models()
def _loss(network: Student, targets: SoftTargets) -> float:
    """The loss on held-out samples, with layers as in inference."""
    total, count = 0.0, 0
    size = fixed_batch(network.inner)
    for inputs, answers in targets.held_out_batches():
        samples = len(inputs[0])
        outputs = network.predict_on_batch(padded(inputs, size))
        outputs = [output[:samples] for output in outputs]
        total += samples * float(network.compute_loss(y=answers, y_pred=outputs))
        count += samples
    return total / count


def _check_pair(model: keras.Model, teacher: keras.Model) -> None:
    """Raises :class:`TfpruneError` unless both models have the same inputs and outputs."""
    for one in (model, teacher):
        functional(one)
    for what in ("inputs", "outputs"):
        ours, theirs = ([tuple(t.shape[1:]) for t in getattr(m, what)] for m in (model, teacher))
        if ours != theirs:
            raise TfpruneError(
                f"teacher {teacher.name}: expected {what} of shapes {ours} as those of model "
                f"{model.name}, received {theirs}"
            )
