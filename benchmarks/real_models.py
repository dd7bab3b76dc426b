"""Models that others made, or of the field's own designs, with data that fits them.

TFPRUNE_MODELS and TFPRUNE_DATA name the folders of the files. Where a model comes without data,
samples of its shape are made of other real data or at random, and the score is how far its answers
stay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from benchmarks.mnist import Array
from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune
    from tfprune.data.networks import load_model

KWS_EPOCHS, MOBILENET_EPOCHS = 30, 30
RATE, BATCH = 0.003, 64
# Samples that MobileNetV2's statistics are measured on: its momentum of 0.999 is for trainings of
# many more steps, and left it at 33 % of the test images in place of 57 %.
MEASURED = 2_000


@dataclass(frozen=True, eq=False)
class Case:
    """A model, unlabelled samples to prune and heal on, and samples that say what it is worth.

    Attributes
    ----------
    model : keras.Model
    x, x_test : array of shape (samples, ...)
    y_test : array or None
        Classes; None where there are no labels.
    """

    model: keras.Model
    x: Array
    x_test: Array
    y_test: Array | None = None

    @property
    def metric(self) -> str:
        """``accuracy``, or the share of the outputs' ``variance`` that is kept."""
        return "variance" if self.y_test is None else "accuracy"

    def score(self, outputs: Array) -> float:
        """In percent."""
        if self.y_test is not None:
            return 100 * float(np.mean(outputs.argmax(axis=1) == self.y_test))
        goal = self.model.predict(self.x_test, 500, verbose=0)
        spread = float(np.mean((goal - goal.mean(axis=0)) ** 2))
        return 100 * (1 - float(np.mean((outputs - goal) ** 2)) / spread)


def case(name: str, folder: Path) -> Case:
    """One of :data:`CASES`; models that are trained here are kept in the folder."""
    return CASES[name](folder)


def _file(variable: str, name: str) -> Path:
    file = Path(os.environ.get(variable, "")) / name
    if not file.is_file():
        sys.exit(f"expected the environment variable {variable} to name {name}'s folder")
    return file


def _published(name: str) -> keras.Model:
    return load_model(_file("TFPRUNE_MODELS", name))


def _arrays(name: str, *keys: str) -> list[Array]:
    with np.load(_file("TFPRUNE_DATA", name)) as arrays:
        return [arrays[key] for key in keys]


def _cifar(samples: int) -> tuple[Array, Array, Array, Array]:
    x, y, x_test, y_test = _arrays("cifar10.npz", "x_train", "y_train", "x_test", "y_test")
    x, x_test = (part.astype("float32") for part in (x[:samples], x_test))
    return x, y[:samples].ravel(), x_test, y_test.ravel()


def resnet8(_folder: Path) -> Case:
    """MLPerf Tiny's image classifier on CIFAR-10 decoded from JPEG."""
    x, _, x_test, y_test = _cifar(10_000)
    return Case(_published("resnet8_cifar10.h5"), x, x_test, y_test)


def hand_keypoints(_folder: Path) -> Case:
    """A classifier of gestures on its author's data, a quarter of it for tests."""
    table = np.loadtxt(_file("TFPRUNE_DATA", "hand_keypoints.csv"), delimiter=",")
    table = np.random.default_rng(0).permutation(table)
    cut = 3 * len(table) // 4
    x, y = table[:, 1:].astype("float32"), table[:, 0].astype(int)
    return Case(_published("hand_keypoints.hdf5"), x[:cut], x[cut:], y[cut:])


def autoencoder(_folder: Path) -> Case:
    """MLPerf Tiny's anomaly detector, on smooth random spectra in decibels, five frames each.

    Their level, -29 dB, is the one at which the first BatchNormalization was trained: what reaches
    it is then nearest to its means.
    """
    rng = np.random.default_rng(0)
    count, bands = 3_000, 128
    level = -29 + rng.normal(0, 8, (count, 1))
    tilt = rng.normal(12, 6, (count, 1)) * np.linspace(1, -1, bands)
    shape = gaussian_filter1d(rng.normal(0, 1, (count, bands)), 6, axis=1)
    spectra = level + tilt + 4 * shape / shape.std()
    frames = spectra[:, None] + rng.normal(0, 2, (count, 5, bands))
    x = frames.reshape(count, -1).astype("float32")
    return Case(_published("autoencoder_toycar.h5"), x[:2_400], x[2_400:])


def person_detector(_folder: Path) -> Case:
    """MLPerf Tiny's MobileNetV1 of width 0.25, on CIFAR-10 enlarged to 96x96."""
    x, _, x_test, _ = _cifar(3_000)
    large = [
        np.concatenate([
            keras.ops.convert_to_numpy(keras.ops.image.resize(part[n : n + 500], (96, 96))) / 255
            for n in range(0, len(part), 500)
        ])
        for part in (x, x_test[:1_000])
    ]  # fmt: skip
    return Case(_published("mobilenetv1_vww.h5"), *large)


def wake_word(_folder: Path) -> Case:
    """MLPerf Tiny's streaming detector: mixtures of its real samples, shifted in time."""
    with np.load(_file("TFPRUNE_MODELS", "streaming_wakeword_samples.npz")) as arrays:
        specs = arrays["specs"].astype("float32")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(specs))

    def mixed(places: Array, count: int) -> Array:
        share = rng.uniform(0, 1, (count, 1, 1, 1)).astype("float32") ** 2
        one, other = (specs[rng.choice(places, count)] for _ in range(2))
        made = (1 - share) * one + share * other
        shifts = rng.integers(-6, 7, count)
        return np.stack([np.roll(one, by, axis=0) for one, by in zip(made, shifts, strict=True)])

    model = _published("streaming_wakeword.h5")
    return Case(model, mixed(order[:30], 2_400), mixed(order[30:], 600))


def keyword_spotter(folder: Path) -> Case:
    """MLPerf Tiny's depthwise separable network, trained here on spoken digits."""
    x, y, x_test, y_test = _arrays("fsdd.npz", "x_train", "y_train", "x_test", "y_test")

    def build() -> keras.Model:
        block = [kl.BatchNormalization, kl.ReLU]
        layers = [kl.Conv2D(64, (10, 4), 2, "same"), *(one() for one in block), kl.Dropout(0.2)]
        for _ in range(4):
            layers += [kl.DepthwiseConv2D(3, padding="same"), *(one() for one in block)]
            layers += [kl.Conv2D(64, 1), *(one() for one in block)]
        layers += [kl.Dropout(0.4), kl.GlobalAveragePooling2D(), kl.Dense(10, "softmax")]
        return keras.Sequential([keras.Input((49, 10, 1)), *layers], name="kws")

    model = _trained(folder / "kws.keras", build, x, y, KWS_EPOCHS)
    return Case(model, x, x_test, y_test)


def mobilenet(folder: Path) -> Case:
    """MobileNetV2 of width 0.35 on CIFAR-10 at 64x64, trained here with flips."""
    x, y, x_test, y_test = _cifar(10_000)

    def build() -> keras.Model:
        network = keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classes=10)
        data = keras.Input((32, 32, 3))
        scaled = kl.Rescaling(1 / 127.5, -1)(kl.UpSampling2D(2)(data))
        return keras.Model(data, network(scaled), name="mobilenet")

    both = np.concatenate([x, x[:, :, ::-1]])
    epochs = MOBILENET_EPOCHS // 2
    file = folder / "mobilenet.keras"
    model = _trained(file, build, both, np.tile(y, 2), epochs, measured=MEASURED)
    return Case(model, x, x_test, y_test)


def _trained(
    file: Path,
    build: Callable[[], keras.Model],
    x: Array,
    y: Array,
    epochs: int,
    *,
    measured: int = 0,
) -> keras.Model:
    """From the file if it is there, else trained along a cosine and kept.

    BatchNormalization's statistics are measured on the first samples, so many, at the end.
    """
    if not file.exists():
        keras.utils.set_random_seed(0)
        model = build()
        steps = epochs * -(-len(x) // BATCH)
        rate: Any = keras.optimizers.schedules.CosineDecay(RATE, steps)
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        model.fit(x, y, BATCH, epochs, verbose=0)
        if measured:
            model = tfprune.adapt(model, x[:measured])
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.keras")
        model.save(part)
        part.rename(file)
    return load_model(file)


CASES: dict[str, Callable[[Path], Case]] = {
    "resnet8": resnet8,
    "kws": keyword_spotter,
    "mobilenetv2": mobilenet,
    "mobilenetv1_vww": person_detector,
    "streaming_wakeword": wake_word,
    "autoencoder_toycar": autoencoder,
    "hand_keypoints": hand_keypoints,
}
