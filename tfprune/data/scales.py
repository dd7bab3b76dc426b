"""Brings samples to the range that a model was trained on: the modes of ``--scale``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array

Shape = tuple[int | None, ...]
Number = float | tuple[float, ...]

# Of brightness from 0 to 255, as Keras' preprocess_input has them: factor, then offset, for the
# channels red, green and blue; caffe takes blue first.
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEANS = (103.939, 116.779, 123.68)
BRIGHTNESS: dict[str, tuple[Number, Number]] = {
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
    "imagenet-caffe": (1.0, tuple(-mean for mean in CAFFE_MEANS)),
    "imagenet-torch": (
        tuple(1 / (255 * deviation) for deviation in DEVIATIONS),
        tuple(-mean / deviation for mean, deviation in zip(MEANS, DEVIATIONS, strict=True)),
    ),
}
MEAN_STD = "mean-std"
SCALES = ("auto", "none", *BRIGHTNESS, MEAN_STD)
# Samples whose spread tells their range.
MOST_FOR_SPREAD = 1000
# Samples whose mean is summed at once, and of large samples so many values.
AT_ONCE, VALUES_AT_ONCE = 1000, 2**24


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
    """How the samples of one input were scaled for the model: ``x * factor + offset``.

    Attributes
    ----------
    dtype : str
        Of the array as it came.
    factor : float, or tuple of float for each channel
        That it was multiplied by.
    auto : float
        The factor that ``--scale auto`` takes for it by the model alone.
    offset : float, or tuple of float for each channel
        That was added then.
    reverse : bool
        Whether the channels were put in reverse order before.
    """

    dtype: str
    factor: Number = 1.0
    auto: float = 1.0
    offset: Number = 0.0
    reverse: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether samples are left as they are."""
        return self.factor == 1 and self.offset == 0 and not self.reverse

    def scaled(self, data: Array) -> Array:
        """Samples in the model's range."""
        if self.unchanged:
            return data
        turned = data[..., ::-1] if self.reverse else data
        made = turned.astype(np.float32) * np.asarray(self.factor, np.float32)
        if self.offset != 0:
            made += np.asarray(self.offset, np.float32)
        return made

    def raw(self, data: Array) -> Array:
        """Samples in the model's range as they came, but for rounding."""
        if self.unchanged:
            return data
        made = (data - np.asarray(self.offset, np.float32)) / np.asarray(self.factor, np.float32)
        return made[..., ::-1] if self.reverse else made

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain data, for the manifest; an offset and an order where there are any."""
        made: dict[str, Any] = {"dtype": self.dtype, "factor": self.factor, "auto": self.auto}
        if self.offset != 0:
            made["offset"] = self.offset
        return made | ({"reverse": True} if self.reverse else {})

    def __str__(self) -> str:
        def said(value: Number) -> str:
            if isinstance(value, tuple):
                return (
                    f"({', '.join(f'{one:.4g}' for one in value[:4])}{', ...' * (len(value) > 4)})"
                )
            return f"{value:.4g}"

        offset = f" plus {said(self.offset)}" if self.offset != 0 else ""
        return f"{self.dtype} times {said(self.factor)}{offset}" + ", BGR" * self.reverse


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
    family : tuple of str, or None
        If the model is called as one of keras.applications, its name, and the mode of ``--scale``
        that this family is trained with.
    """

    name: str
    shape: Shape
    floats: bool = True
    scaling: OwnScaling | None = None
    family: tuple[str, str] | None = None


def scale_of(
    name: str, train: Array, test: Array, spec: InputSpec | None, add_axis: bool = False
) -> tuple[InputScale, list[str]]:
    """How the samples of one input are scaled, in figures and in words.

    Parameters
    ----------
    name : str
        One of :data:`SCALES`.
    train, test : array of shape (samples, ...)
        As they came.
    spec : InputSpec or None
        What the input takes; None if the model is made for the data.
    add_axis : bool
        Whether a channel axis will be added behind.

    Raises
    ------
    TfpruneError
        If the samples are not of the range, or have not the channels, that a mode is of.
    """
    factor, why = _auto_factor(train, test, spec)
    plain = InputScale(str(train.dtype), auto=factor)
    if name == "none" or (name == "auto" and factor == 1):
        return plain, [why] if why and name == "auto" else []
    if spec is not None and not spec.floats:
        return plain, ["left as it is, the model takes whole numbers"]
    if (train.dtype == np.uint8) != (test.dtype == np.uint8):
        raise TfpruneError(
            f"data: expected x_train and x_test in one range, received {train.dtype} and "
            f"{test.dtype}; scale them yourself and say --scale none"
        )
    if name == "auto":
        family = None if spec is None or spec.scaling else spec.family
        if family is None or add_axis or train.ndim != 4 or train.shape[-1] != 3:
            return replace(plain, factor=factor), [why]
        name, lead = family[1], f"as keras.applications has it for {family[0]}: "
    else:
        lead = ""
    if name == MEAN_STD:
        mean, deviation = _mean_and_deviation(train, add_axis)
        made = replace(plain, factor=_divided(1.0, deviation), offset=_divided(mean, deviation, -1))
        return made, ["scaled to a mean of 0 and a standard deviation of 1 (of the training data)"]
    top = _top(name, train, test)
    by, plus = BRIGHTNESS[name]
    if isinstance(plus, tuple) and (add_axis or train.ndim < 2 or train.shape[-1] != len(plus)):
        raise TfpruneError(
            f"--scale {name}: expected samples of {len(plus)} channels, received {train.shape[1:]}"
        )
    # Brightness from 0 to 1 is first brought to 255.
    by = tuple(one * 255 / top for one in by) if isinstance(by, tuple) else by * 255 / top
    made = replace(plain, factor=by, offset=plus, reverse=name == "imagenet-caffe")
    return made, [f"{lead}scaled from 0..{top} by {name} ({made})"]


def _top(name: str, train: Array, test: Array) -> int:
    """What the brightest value of a kind of pictures is: 255 or 1."""
    low = min(float(part.min()) for part in (train, test))
    high = max(float(part.max()) for part in (train, test))
    if low < 0 or high > 255:
        raise TfpruneError(
            f"--scale {name}: expected brightness from 0 to 255, or from 0 to 1, received values "
            f"from {low:.4g} to {high:.4g}; say --scale {MEAN_STD} or none"
        )
    return 1 if high <= 1 and train.dtype != np.uint8 else 255


def _mean_and_deviation(data: Array, add_axis: bool) -> tuple[Number, Number]:
    """Of every channel, or column; of all values where there is no axis of channels."""
    channels = 1 if add_axis or data.ndim < 2 else data.shape[-1]
    step = max(min(AT_ONCE, VALUES_AT_ONCE * len(data) // data.size), 1)

    def parts() -> Iterator[Array]:
        for start in range(0, len(data), step):
            yield np.asarray(data[start : start + step]).reshape(-1, channels)

    mean = np.zeros(channels)
    for rows in parts():
        mean += rows.sum(axis=0, dtype=np.float64)
    count = data.size / channels
    mean /= count
    squares = np.zeros(channels)
    for rows in parts():
        squares += ((rows - mean) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / count)
    # What never changes is left in its scale.
    deviation[deviation <= 1e-6 * np.maximum(abs(mean), 1)] = 1
    if channels == 1:
        return float(mean[0]), float(deviation[0])
    return tuple(map(float, mean)), tuple(map(float, deviation))


def _divided(value: Number, by: Number, sign: int = 1) -> Number:
    made = sign * np.asarray(value) / np.asarray(by)
    return tuple(map(float, made)) if made.ndim else float(made)


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
    if own is not None and own.takes_raw(float(np.asarray(train[:MOST_FOR_SPREAD]).std())):
        return 1.0, f"not scaled, as layer {own.layer} scales it"
    after = f" (layer {own.layer} goes on from there)" if own is not None else ""
    return 1 / 255, f"uint8 scaled from 0..255 to 0..1{after}"
