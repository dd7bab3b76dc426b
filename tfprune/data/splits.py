"""Splits samples and labels into disjoint parts, scaled and shaped for a model.

Every source ends as a :class:`Dataset`, whose parts share no sample: what a model is trained on,
what choices are made on (validation), and what figures are reported on (test). Calibration data is
a part of the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfprune.data.scales import InputScale, InputSpec, scale_of
from tfprune.errors import TfpruneError
from tfprune.sample_files.rows import Naming
from tfprune.utils.arrays import Array
from tfprune.utils.memory import most_held
from tfprune.utils.streamed import StreamedArray, mapped

# Share of the training data that is held back for choices.
VALIDATION_SHARE = 1 / 12


@dataclass(frozen=True)
class Split:
    """Samples and, where there are any, their labels.

    Attributes
    ----------
    x : array of shape (samples, ...), or dict of them
        By the names of the inputs where a model takes several. Samples that do not fit in memory
        are a :class:`tfprune.utils.streamed.StreamedArray`; labels are always in memory.
    y : array of shape (samples, ...) or None
    ys : dict of str to array of shape (samples, ...)
        In place of ``y`` labels of several outputs, by the names of these.
    numbers : array of shape (samples,) or None
        The places of samples that come from several files, in all of these one behind the other.
    """

    x: Array | dict[str, Array]
    y: Array | None = None
    ys: dict[str, Array] = field(default_factory=dict)
    numbers: Array | None = None

    @property
    def arrays(self) -> list[Array]:
        """The samples for each input, in the order of the inputs."""
        return list(self.x.values()) if isinstance(self.x, dict) else [self.x]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, index: Any) -> Split:
        """The samples at an index, labels with them."""
        part = self.given([data[index] for data in self.arrays])
        ys = {name: y[index] for name, y in self.ys.items()}
        y, numbers = (None if one is None else one[index] for one in (self.y, self.numbers))
        return replace(part, y=y, ys=ys, numbers=numbers)

    def held(self) -> Split:
        """In memory; where samples are streamed, as many of the first ones as fit."""
        each = sum(max(data.nbytes, 4 * data.size) // max(len(data), 1) for data in self.arrays)
        fit = max(most_held() // max(each, 1), 1)
        part = self.take(slice(fit)) if self.streamed else self
        return part.given([np.asarray(data) for data in part.arrays])

    @property
    def streamed(self) -> bool:
        """Whether samples are read as they are asked for."""
        return any(isinstance(data, StreamedArray) for data in self.arrays)

    def given(self, arrays: Sequence[Array]) -> Split:
        """The same labels with other samples, in the order of the inputs."""
        several = isinstance(self.x, dict)
        x = dict(zip(self.x, arrays, strict=True)) if several else arrays[0]
        return replace(self, x=x)

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.y is not None or bool(self.ys)

    def labelled_as(self, parts: Sequence[Split]) -> Split:
        """The same samples with the labels of parts, one behind the other, where all have them."""
        y = [part.y for part in parts if part.y is not None]
        names = [name for name in parts[0].ys if all(name in part.ys for part in parts)]
        return replace(
            self,
            y=np.concatenate(y) if len(y) == len(parts) else None,
            ys={name: np.concatenate([part.ys[name] for part in parts]) for name in names},
        )


@dataclass(frozen=True)
class Dataset:
    """Data in disjoint parts.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the file it came from; of the arrays where there is no file.
    train, calibration, validation, test : Split
        ``calibration`` is drawn from ``train``; the others share nothing.
    fallback_from : str or None
        The data set that was wanted and could not be had.
    notes : tuple of str
        What was done to the data, for the user to know.
    scales : tuple of InputScale
        Of each input, in their order.
    classes : tuple of str
        The names that labels count; none where they are numbers anyway.
    shards : ShardFiles or None
        The files that the training samples lie in, where they are several.
    """

    name: str
    sha256: str
    train: Split
    calibration: Split
    validation: Split
    test: Split
    fallback_from: str | None = None
    notes: tuple[str, ...] = ()
    scales: tuple[InputScale, ...] = ()
    classes: tuple[str, ...] = ()
    shards: ShardFiles | None = None


@dataclass(frozen=True)
class ShardFiles:
    """Files that hold samples, one behind the other.

    Attributes
    ----------
    paths : tuple of str
    counts : tuple of int
        Samples in each.
    part : str
        What the arrays of samples are called in each: ``x_train`` or ``x``.
    inputs : tuple of str
        The names of the model's inputs.
    naming : Naming
        Where samples are in tables and records.
    """

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    part: str
    inputs: tuple[str, ...] = ()
    naming: Naming = field(default_factory=Naming)


@dataclass(frozen=True)
class Raw:
    """A data set as loaded: training and test arrays, not scaled yet.

    ``classes`` are the names that its labels count, where they have names.
    """

    name: str
    sha256: str
    train: Split
    test: Split
    fallback_from: str | None = None
    notes: tuple[str, ...] = field(default=())
    classes: tuple[str, ...] = ()
    shards: ShardFiles | None = None


def split(whole: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Splits samples at random into two parts, the second one a share of all."""
    if len(whole) < 2:
        raise TfpruneError(f"data: expected at least 2 samples to split, received {len(whole)}")
    order = np.random.default_rng(seed).permutation(len(whole))
    cut = len(whole) - min(max(round(share * len(whole)), 1), len(whole) - 1)
    return whole.take(order[:cut]), whole.take(order[cut:])


def prepare(
    raw: Raw, scale: str, wanted: Sequence[InputSpec] | None, calibration: int, seed: int
) -> Dataset:
    """Scales a data set, adds the channel axis, and draws disjoint parts.

    Parameters
    ----------
    raw : Raw
    scale : str
        One of :data:`tfprune.data.scales.SCALES`. ``auto`` brings uint8 to [0, 1], but for inputs
        of whole numbers, for inputs that the model scales by itself, and where no value is greater
        than 1.
    wanted : sequence of InputSpec or None
        What the model's inputs take, in their order; None if the model is made for the data.
    calibration : int
        How many training samples to measure activations on.
    seed : int

    Raises
    ------
    TfpruneError
        If there are fewer or more arrays than inputs, or training and test data differ in kind.
    """
    ready, scales, notes = fitting(raw, scale, wanted)
    fit, validation = split(raw.train, VALIDATION_SHARE, seed)
    return Dataset(
        name=raw.name,
        sha256=raw.sha256,
        train=ready(fit),
        calibration=ready(fit.take(slice(calibration))),
        validation=ready(validation),
        test=ready(raw.test),
        fallback_from=raw.fallback_from,
        notes=(*raw.notes, *notes),
        scales=scales,
        classes=raw.classes,
        shards=raw.shards,
    )


def fitting(
    raw: Raw, scale: str, wanted: Sequence[InputSpec] | None
) -> tuple[Callable[[Split], Split], tuple[InputScale, ...], list[str]]:
    """How to scale and shape the samples of a data set: a function, in figures and in words.

    Parameters and errors are those of :func:`prepare`.
    """
    notes: list[str] = []
    count = len(raw.train.arrays)
    inputs = [None] * count if wanted is None else list(wanted)
    if len(inputs) != count:
        names = ", ".join(want.name for want in inputs if want)
        raise TfpruneError(
            f"data: expected arrays for {len(inputs)} inputs ({names}), {raw.name} is one array; "
            "add --data FILE.npz with x_train_NAME and x_test_NAME for each input NAME"
        )
    changes, scales = [], []
    for train, test, want in zip(raw.train.arrays, raw.test.arrays, inputs, strict=True):
        change, used, said = _fitted(train, test, scale, want)
        changes.append(change)
        scales.append(used)
        notes += [f"input {want.name}: {note}" if want and count > 1 else note for note in said]

    def ready(part: Split) -> Split:
        return part.given([change(data) for change, data in zip(changes, part.arrays, strict=True)])

    return ready, tuple(scales), notes


def _fitted(
    train: Array, test: Array, scale: str, spec: InputSpec | None
) -> tuple[Callable[[Array], Array], InputScale, list[str]]:
    """How to scale the samples of one input, as a function and in words."""
    shape = train.shape[1:]
    if shape != test.shape[1:]:
        raise TfpruneError(
            f"data: expected training and test samples of one shape, received "
            f"{shape} and {test.shape[1:]}"
        )
    channel = (*shape, 1)
    if spec is None:
        add_axis = len(shape) == 2
    else:
        add_axis = len(spec.shape) == len(channel) and all(
            want in (None, size) for want, size in zip(spec.shape, channel, strict=True)
        )
    used, notes = scale_of(scale, train, test, spec, add_axis)
    if add_axis:
        notes.append(f"channel axis added: {shape} to {channel}")

    def change(data: Array) -> Array:
        if used.unchanged and not add_axis:
            return data
        return mapped(lambda some: used.scaled(some[..., None] if add_axis else some), data)

    return change, used, notes
