"""Records that the steps of ``export`` hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    """A model that a search built and measured.

    Attributes
    ----------
    parameters, bytes : int
        Of the model, and of its file of the first scheme.
    drop : float
        Points of accuracy that this file is below the original model, on validation data.
    fits : bool
        Whether that is within what was asked for.
    larger : int or None
        Parameters of the next larger model; None where they are not known.
    margin : float or None
        Two standard errors of the drop, in points: on other data it may be that much more or less.
    """

    parameters: int
    bytes: int
    drop: float
    fits: bool
    larger: int | None = None
    margin: float | None = None


@dataclass(frozen=True)
class FailedFile:
    """A file that was asked for but could not be made.

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
