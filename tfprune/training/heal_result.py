"""``HealResult``: a healed model, and how well the training went."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras

from tfprune.training.records import TrainingHistory


@dataclass(frozen=True, eq=False)
class HealResult:
    """A healed model and its loss on held-out samples.

    The loss is the divergence from the teacher's probabilities, or the squared difference in parts
    of the teacher's variance, summed over outputs; 0 where outputs are the same.

    Attributes
    ----------
    model : keras.Model
    history : TrainingHistory
        The loss on the held-out samples at the start and after each epoch, and the learning rate.
    trained_on, held_out : int
        Numbers of samples; where none could be held out, the loss is that of the others. 0 where
        the model computes what the teacher does, so that there is nothing to train.
    notes : tuple of str
        What the new model lacks that the given one has, a line each.

    Examples
    --------
    >>> import keras
    >>> from tfprune import HealResult
    >>> from tfprune.training.records import TrainingHistory
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> history = TrainingHistory(losses=(0.5, 0.125, 0.25), learning_rate=0.003)
    >>> result = HealResult(model, history, trained_on=90, held_out=10)
    >>> result.before, result.after
    (0.5, 0.125)
    >>> print(result)
    loss on 10 held-out samples 0.5 -> 0.125 (epoch 1 of 2, learning rate 0.003)
    """

    model: keras.Model = field(repr=False)
    history: TrainingHistory
    trained_on: int
    held_out: int
    notes: tuple[str, ...] = ()

    @property
    def before(self) -> float:
        """The loss of the pruned model."""
        return self.history.before

    @property
    def after(self) -> float:
        """The loss of the healed model; never above ``before``."""
        return self.history.after

    def __str__(self) -> str:
        samples = f"{self.held_out or self.trained_on:,}" + " held-out" * bool(self.held_out)
        history = self.history
        if not history.learning_rate:
            return "nothing was trained"
        return (
            f"loss on {samples} samples {self.before:.4g} -> {self.after:.4g} (epoch "
            f"{history.best_epoch} of {len(history.losses) - 1}, learning rate "
            f"{history.learning_rate:g})"
        )

    @property
    def problem(self) -> str:
        """What went wrong, or that the loss says nothing of other samples; else empty."""
        if self.history.problem:
            return self.history.problem
        if len(self.history.losses) == 1 and self.before > 0:
            return (
                "nothing was trained, as no layer behind the first one that pruning changed has "
                "trainable weights"
            )
        if len(self.history.losses) > 1 and not self.held_out:
            return "one sample is too little to hold any out, so nothing is known of others"
        return ""
