"""What the rooms hand to each other and to the user: frozen records, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer.

    Attributes
    ----------
    name : str
    units_before, units_after : int
    similar, complementary, constant : int
        Units removed, by reason.
    kept : array of shape (units_after,)
        Indices of the surviving units.
    angles : array of shape (units_before, units_before)
        Degrees between the activation vectors, NaN for units without a direction: those that never
        change have none about the mean.
    group : str
        The layers that go together with it, if there are any.
    note : str
        What else the user should know, or empty.
    """

    name: str
    units_before: int
    units_after: int
    similar: int
    complementary: int
    constant: int
    kept: npt.NDArray[np.intp] = field(repr=False, compare=False)
    angles: npt.NDArray[np.float32] = field(repr=False, compare=False)
    group: str = ""
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """A layer that was left alone, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Other:
    """A layer with units that was left alone because its kind was not asked for.

    Attributes
    ----------
    name : str
        Its path.
    layer : str
        The name of its class.
    prunable : bool
        Whether another ``layers`` would look at it.
    """

    name: str
    layer: str
    prunable: bool


@dataclass(frozen=True)
class Reached:
    """How far a budget was met.

    Attributes
    ----------
    what : str
        ``params``, ``macs`` or ``bytes``.
    limit, reached, whole : int
        What was allowed, what the smaller model has, and what the whole one has.
    why : str
        Why no less, or no more, was taken out.
    tries : int
        How many models were measured.
    """

    what: str
    limit: int
    reached: int
    whole: int
    why: str
    tries: int


@dataclass(frozen=True)
class Finding:
    """Something that a user should know and would not see in a table of figures.

    Attributes
    ----------
    about : {"data", "pruning", "quantisation", "size"}
    message : str
        With figures; what a file lost names the file.
    advice : tuple of str
        What to type instead.
    """

    about: str
    message: str
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        instead = f"; instead: {'; or '.join(self.advice)}" if self.advice else ""
        return f"WARNING: {self.message}{instead}"


@dataclass(frozen=True)
class Tried:
    """A model that a search made and measured.

    Attributes
    ----------
    parameters, bytes : int
        Of the model, and of its file of the first scheme.
    drop : float
        How many points of accuracy that file is below the whole model, on validation data.
    fits : bool
        Whether that is within what was asked for.
    """

    parameters: int
    bytes: int
    drop: float
    fits: bool


@dataclass(frozen=True)
class TrainingHistory:
    """What the loss on held-out samples was, and which state was kept.

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
        """After which epoch the kept state was reached; 0 is the start."""
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
        """Why nothing was gained, or not all that was asked for; empty where all went well."""
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
        What the model was trained for and on.
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


@dataclass(frozen=True)
class FailedFile:
    """A file that was asked for and is not there.

    Attributes
    ----------
    file : str
        The name that it would have.
    variant, scheme : str
        See :class:`Artifact`.
    reason : str
        Why it could not be made, or is wrong, and what to do.
    """

    file: str
    variant: str
    scheme: str
    reason: str

    def __str__(self) -> str:
        return f"{self.variant} {self.scheme} file: {self.reason}"


@dataclass(frozen=True)
class Artifact:
    """One exported file and what was measured on it.

    Attributes
    ----------
    file : str
        Name within the output folder.
    variant : str
        ``original``, ``finetuned`` (the original, trained as the pruned one was) or ``pruned``.
    scheme : str
    bytes : int
    sha256 : str
    parameters : int
        Of the Keras model that it was made from.
    weights_bytes : int
        How many of the bytes are weights; the others are what the format adds.
    scores : dict
        ``accuracy`` or ``mse`` where the data has labels (else neither), ``agreement`` with the
        unpruned float model where outputs are classes, ``output_error`` relative to its outputs.
    latency_us : dict
        ``p10`` and ``median`` microseconds of one invocation, one thread.
    made_by : str
        How, in words.
    gzip_bytes : int, optional
        Where zeros or shared weights were asked for: they show in compressed files alone.
    arena_bytes : int, optional
        Memory that TensorFlow Lite Micro worked in, where it was tried.
    """

    file: str
    variant: str
    scheme: str
    bytes: int
    sha256: str
    parameters: int
    weights_bytes: int
    scores: dict[str, Any] = field(default_factory=dict)
    latency_us: dict[str, float] = field(default_factory=dict)
    made_by: str = "conversion after training"
    gzip_bytes: int | None = None
    arena_bytes: int | None = None
