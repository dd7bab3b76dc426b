"""Records of what is in a model: its layers, its groups of units, and what was measured of them."""

from __future__ import annotations

from dataclasses import dataclass

# Degrees within which units are counted, and shares of a group that are removed on trial.
DEGREES = (10.0, 20.0, 30.0)
SHARES = (0.25, 0.5, 0.75)
# Points of the score lost at which a cell of the heat map has its full colour.
FULL = 30.0


@dataclass(frozen=True)
class LayerInfo:
    """A layer and what it costs.

    Attributes
    ----------
    name : str
        Its path: ``outer/inner`` inside a nested model.
    layer : str
        The name of its class.
    shape : tuple of int or None
        Of its output for one sample; None stands for any size. Of several outputs the first.
    parameters : int
    macs : int or None
        Multiply-accumulates of one sample; None where an axis of its input has no size.
    bytes : int
        About what its weights take in an int8 file: see
        :func:`tfprune.inspection.structure.int8_bytes`.
    """

    name: str
    layer: str
    shape: tuple[int | None, ...]
    parameters: int
    macs: int | None
    bytes: int


@dataclass(frozen=True)
class GroupInfo:
    """Layers whose units go together, and who consumes them.

    Attributes
    ----------
    layers : tuple of str
    kind : str
        ``dense``, ``conv``, ``recurrent``, or several.
    units : int
        That can go together, each counted once.
    consumers : tuple of str
        The layers that multiply the units with their weights.
    stays : str or None
        Why its units are not removed; None where they can be.
    half_parameters, half_macs : int or None
        Of the whole model, what goes with half of the units; None where none can go, or where an
        axis has no size.
    """

    layers: tuple[str, ...]
    kind: str
    units: int
    consumers: tuple[str, ...]
    stays: str | None = None
    half_parameters: int | None = None
    half_macs: int | None = None

    @property
    def name(self) -> str:
        """The names of its layers."""
        return " + ".join(self.layers)


@dataclass(frozen=True)
class Redundancy:
    """How many units of a group others can stand for.

    Attributes
    ----------
    name : str
        Of the group.
    units : int
    constant : int
        Units that never change on the data, dead ones (always 0) among them.
    dead : int
        Units that are always 0 for every consumer.
    near : tuple of int
        Units, without the constant ones, that are within 10, 20 and 30 degrees of one that stays,
        or of its opposite.
    spanned : tuple of int
        The same for the angle to the span of all that stay.
    """

    name: str
    units: int
    constant: int
    dead: int
    near: tuple[int, ...]
    spanned: tuple[int, ...]


@dataclass(frozen=True)
class Sensitivity:
    """What a model scores when one group alone is pruned and folded, without training.

    Attributes
    ----------
    name : str
        Of the group.
    units : tuple of int
        How many of its units are left at each of the shares.
    scores : tuple of float
        The model's scores then, in [0, 1]: see :attr:`Measurements.score`.
    """

    name: str
    units: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Measurements:
    """What data says of a model.

    Attributes
    ----------
    score : str
        What scores are: ``accuracy`` with labels of classes, else ``agreement``, the share of the
        original's decisions (of its variance, where outputs are values) that is kept; or
        ``output variance kept``, 1 - output error squared, where the original nearly always gives
        one answer, with which agreement says nothing.
    original : float
        The score of the model as it is.
    samples, scored : int
        How many samples the units were measured on, and how many others scores were.
    redundancy : tuple of Redundancy
    sensitivity : tuple of Sensitivity
        Both in the order of the groups.
    warning : str
        What to know of the score, a line, or empty.
    """

    score: str
    original: float
    samples: int
    scored: int
    redundancy: tuple[Redundancy, ...]
    sensitivity: tuple[Sensitivity, ...]
    warning: str = ""


@dataclass(frozen=True)
class Recommendation:
    """What to do next.

    Attributes
    ----------
    command : str
        What is typed: a command, or a line of Python.
    expected : str
        What to expect of it, in words.
    layers : tuple of str
        The layers that it prunes.
    threshold, remove : float or None
        Degrees or the share that it asks for, one of them.
    score : float or None
        Of the model so pruned, folded and not trained, on the samples that were scored.
    parameters : int or None
        Of the model so pruned.
    healed : float or None
        The score after healing on some of the samples that were measured, where the
        command heals; None where that was not tried, as the model is large.
    """

    command: str
    expected: str
    layers: tuple[str, ...] = ()
    threshold: float | None = None
    remove: float | None = None
    score: float | None = None
    parameters: int | None = None
    healed: float | None = None
