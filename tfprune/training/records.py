"""Records of a training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrainingHistory:
    """The losses on held-out samples, and which state was kept.

    Attributes
    ----------
    losses : tuple of float
        At the start, and after each epoch.
    learning_rate : float
        The highest.
    diverged : int or None
        The epoch, from 1, in which the training loss was no longer finite; none came after it.
    remeasured : float or None
        The loss of the best state with its moving statistics measured anew, where that is lower.
    """

    losses: tuple[float, ...]
    learning_rate: float
    diverged: int | None = None
    remeasured: float | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch after which the kept state was reached; 0 is the start."""
        return int(np.argmin(self.losses))

    @property
    def before(self) -> float:
        """The loss at the start."""
        return self.losses[0]

    @property
    def after(self) -> float:
        """The loss of the kept state, never above the one at the start."""
        return self.losses[self.best_epoch] if self.remeasured is None else self.remeasured

    @property
    def problem(self) -> str:
        """Why training gained nothing, or less than asked for; else empty."""
        epoch = self.best_epoch
        kept = f"the model of epoch {epoch} is kept" if epoch else "the model stays as it was"
        if self.diverged is not None:
            return f"the loss was not finite in epoch {self.diverged}, and {kept}"
        if len(self.losses) > 1 and self.after >= self.before:
            least = min(self.losses[1:])
            return (
                f"training did not lower the loss on held-out samples ({self.before:.4g} before, "
                f"{least:.4g} at best after), and {kept}"
            )
        return ""


@dataclass(frozen=True)
class Trained:
    """One training of one model.

    Attributes
    ----------
    how : str
        ``heal``, ``heal at 4 bits``, ``finetune``, ``sparsity``, ``cluster`` or ``qat``.
    variant : str
        ``pruned`` or ``finetuned``.
    epochs, samples : int
        What the model was trained for and on; of a training that finds its end, the epochs that
        there were.
    seconds : float
    before, after : float
        What the training lessens, on held-out samples: the distance to the original's outputs, or
        the loss of the labels. Before, that is of the model as it came; of ``qat``, of its int8
        file that is converted without training.
    held_out : int
        Number of these samples.
    best_epoch : int
        The epoch whose state was kept, from 1; 0 is the start.
    learning_rate : float
        The highest.
    note : str
        What the user should know, that nothing was gained say, or empty.
    augment : bool
        Whether pictures were flipped and shifted.
    """

    how: str
    variant: str
    epochs: int
    samples: int
    seconds: float
    before: float
    after: float
    held_out: int
    best_epoch: int
    learning_rate: float
    note: str = ""
    augment: bool = False
