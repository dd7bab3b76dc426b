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

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array

Shape = tuple[int | None, ...]

# Share of the training data that is held back for choices.
VALIDATION_SHARE = 1 / 12
# Samples whose spread tells their range.
MOST_FOR_SPREAD = 1000


@dataclass(frozen=True)
class OwnScaling:
    """The scaling in a model before its first weights: ``x * factor + offset``.

    Attributes
    ----------
    layer : str
        The path of the first layer or operation that scales or shifts.
    factor, offset : float
        Of all of them together; the middle one of those of the channels.
    """

    layer: str
    factor: float
    offset: float

    def takes_raw(self, spread: float) -> bool:
        """Whether it is bytes from 0 to 255 that the model scales, and not values from 0 to 1.

        Parameters
        ----------
        spread : float
            The standard deviation of the bytes.
        """
        zero = -self.offset / self.factor if self.factor else 0.0
        # Values from 0 to 1 are never centred outside of them. Else: which of the two comes
        # nearer to a standard deviation of 1, on a scale of ratios.
        return zero > 1 or abs(self.factor) * spread < 255**0.5


@dataclass(frozen=True)
class InputScale:
    """How the samples of one input were scaled for the model.

    Attributes
    ----------
    dtype : str
        Of the array as it came.
    factor : float
        That it was multiplied by.
    auto : float
        The factor that ``--scale auto`` takes for it.
    """

    dtype: str
    factor: float = 1.0
    auto: float = 1.0


@dataclass(frozen=True)
class InputSpec:
    """The shape and type that an input of a model takes.

    Attributes
    ----------
    name : str
    shape : tuple of int or None
        Of a sample.
    floats : bool
        False for whole numbers: indices, not brightness.
    scaling : OwnScaling or None
        What the model does to the range by itself.
    """

    name: str
    shape: Shape
    floats: bool = True
    scaling: OwnScaling | None = None


@dataclass(frozen=True)
class Split:
    """Samples and, where there are any, their labels.

    Attributes
    ----------
    x : array of shape (samples, ...), or dict of them
        By the names of the inputs where a model takes several.
    y : array of shape (samples, ...) or None
    """

    x: Array | dict[str, Array]
    y: Array | None = None

    @property
    def arrays(self) -> list[Array]:
        """The samples for each input, in the order of the inputs."""
        return list(self.x.values()) if isinstance(self.x, dict) else [self.x]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take(self, index: Any) -> Split:
        """The samples at an index, labels with them."""
        part = self.given([data[index] for data in self.arrays])
        return replace(part, y=None if self.y is None else self.y[index])

    def given(self, arrays: Sequence[Array]) -> Split:
        """The same labels with other samples, in the order of the inputs."""
        several = isinstance(self.x, dict)
        return Split(dict(zip(self.x, arrays, strict=True)) if several else arrays[0], self.y)


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
    scale : {"auto", "none"}
        ``auto`` brings uint8 to [0, 1], but for inputs of whole numbers, for inputs that the
        model scales by itself, and where no value is greater than 1.
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
    notes = list(raw.notes)
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

    fit, validation = split(raw.train, VALIDATION_SHARE, seed)
    return Dataset(
        name=raw.name,
        sha256=raw.sha256,
        train=ready(fit),
        calibration=ready(fit.take(slice(calibration))),
        validation=ready(validation),
        test=ready(raw.test),
        fallback_from=raw.fallback_from,
        notes=tuple(notes),
        scales=tuple(scales),
        classes=raw.classes,
    )


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
    factor, why = _auto_factor(train, test, spec)
    scaled = scale == "auto" and factor != 1
    if scaled and (train.dtype == np.uint8) != (test.dtype == np.uint8):
        raise TfpruneError(
            f"data: expected x_train and x_test in one range, received {train.dtype} and "
            f"{test.dtype}; scale them yourself and say --scale none"
        )
    channel = (*shape, 1)
    if spec is None:
        add_axis = len(shape) == 2
    else:
        add_axis = len(spec.shape) == len(channel) and all(
            want in (None, size) for want, size in zip(spec.shape, channel, strict=True)
        )
    notes = [why] if why and scale == "auto" else []
    if add_axis:
        notes.append(f"channel axis added: {shape} to {channel}")

    def change(data: Array) -> Array:
        data = data[..., None] if add_axis else data
        return data.astype(np.float32) * np.float32(factor) if scaled else data

    used = InputScale(str(train.dtype), factor if scaled else 1.0, factor)
    return change, used, notes


def _auto_factor(train: Array, test: Array, spec: InputSpec | None) -> tuple[float, str]:
    """The factor that ``--scale auto`` takes for an input, and why, in words."""
    if np.uint8 not in (train.dtype, test.dtype):
        return 1.0, ""
    # Numbers that a model takes as integers are indices, not brightness.
    if spec is not None and not spec.floats:
        return 1.0, "uint8 left as it is, the model takes whole numbers"
    if max(train.max(), test.max()) <= 1:
        return 1.0, "not scaled, as no value of the uint8 data is greater than 1"
    own = None if spec is None else spec.scaling
    if own is not None and own.takes_raw(float(train[:MOST_FOR_SPREAD].std())):
        return 1.0, f"not scaled, as layer {own.layer} scales it"
    after = f" (layer {own.layer} goes on from there)" if own is not None else ""
    return 1 / 255, f"uint8 scaled from 0..255 to 0..1{after}"
