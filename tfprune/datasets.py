"""Arrays in, offline first: MNIST, scikit-learn's digits, a user's ``.npz``.

Every source ends as a :class:`Dataset`, whose parts share no sample: what a model is trained on,
what choices are made on (validation), and what figures are reported on (test). Calibration data is
a part of the training data.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.digest import file_digest, text_digest
from tfprune.errors import TfpruneError

Array = npt.NDArray[Any]

# Share of the training data that is held back for choices, and of (x, y) for the test.
VALIDATION_SHARE = 1 / 12
TEST_SHARE = 1 / 5
# Seconds without a byte after which a download is given up.
PATIENCE = 5.0


@dataclass(frozen=True)
class Part:
    """Samples and, where there are any, their labels."""

    x: Array
    y: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Any) -> Part:
        """The samples at an index, labels with them."""
        return Part(self.x[index], None if self.y is None else self.y[index])


@dataclass(frozen=True)
class Dataset:
    """Data in disjoint parts.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the file it came from; of the arrays where there is no file.
    train, calibration, validation, test : Part
        ``calibration`` is drawn from ``train``; the others share nothing.
    fallback_from : str or None
        The data set that was wanted and could not be had.
    notes : tuple of str
        What was done to the data, for the user to know.
    """

    name: str
    sha256: str
    train: Part
    calibration: Part
    validation: Part
    test: Part
    fallback_from: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Raw:
    """A data set as it came: training and test arrays, nothing scaled yet."""

    name: str
    sha256: str
    train: Part
    test: Part
    fallback_from: str | None = None
    notes: tuple[str, ...] = field(default=())


def load(dataset: str, data: str | None, seed: int, say: Callable[[str], None]) -> Raw:
    """Finds a data set.

    Parameters
    ----------
    dataset : {"auto", "mnist", "digits"}
    data : str or None
        A user's ``.npz``, first choice of ``auto`` and ``mnist``.
    seed : int
        Splits data that comes unsplit.
    say : callable
        Is told, in a line, what the user should know at once.

    Raises
    ------
    TfpruneError
        If the data cannot be had or read.
    """
    if dataset == "digits":
        return digits(seed)
    if data is not None:
        raw = read_npz(Path(data), seed, "mnist" if dataset == "mnist" else None)
        if dataset == "mnist" and raw.train.x.shape[1:] not in ((28, 28), (28, 28, 1)):
            raise TfpruneError(
                f"--data {data}: expected MNIST's 28x28 images, received {raw.train.x.shape[1:]}; "
                "use --dataset auto for data of your own"
            )
        return raw
    looked = []
    for where, path in _mnist_files():
        if path.is_file():
            try:
                return read_npz(path, seed, "mnist")
            except TfpruneError as error:
                say(f"{where} is no MNIST: {error}")
        elif path != Path() and where != "Keras' cache":
            say(f"{where}: no such file {path}")
        looked.append(f"{where} ({'not set' if path == Path() else 'no such file'})")
    say("MNIST is not on this machine; trying Keras' download")
    fetched = _download()
    if fetched is not None:
        return read_npz(fetched, seed, "mnist")
    looked.append("Keras' download (no answer)")
    if dataset == "mnist":
        raise TfpruneError(
            f"MNIST was not found; looked at --data (not given), {', '.join(looked)}; "
            "give --data FILE.npz, or use --dataset digits"
        )
    say("MNIST could not be had: FALLING BACK to scikit-learn's 1,797 handwritten digits")
    return replace(digits(seed), fallback_from="mnist")


def _mnist_files() -> Iterator[tuple[str, Path]]:
    yield "TFPRUNE_MNIST", Path(os.environ.get("TFPRUNE_MNIST", ""))
    yield "Keras' cache", _keras_home() / "datasets" / "mnist.npz"


def _keras_home() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))


def _download() -> Path | None:
    """Lets Keras fetch MNIST, and gives up when nothing has come for a while."""
    import socket

    import keras

    done: list[bool] = []

    def fetch() -> None:
        # Whatever goes wrong with a download means the same here: no data.
        with contextlib.suppress(Exception):
            keras.datasets.mnist.load_data()
            done.append(True)

    target = _keras_home() / "datasets"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            thread = threading.Thread(target=fetch, daemon=True)
            thread.start()
            size, since = -1, time.monotonic()
            while thread.is_alive() and time.monotonic() - since < PATIENCE:
                thread.join(0.1)
                now = sum(f.stat().st_size for f in target.glob("mnist.npz*"))
                if now > max(size, 0):
                    size, since = now, time.monotonic()
    finally:
        socket.setdefaulttimeout(before)
    path = target / "mnist.npz"
    return path if done and path.is_file() else None


def digits(seed: int) -> Raw:
    """scikit-learn's 1,797 handwritten digits, brought from 8x8 to 28x28x1."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Bilinear to 20x20 in a margin of 4, as MNIST's digits lie in their images.
    images = zoom(bunch.images / 16.0, (1, 2.5, 2.5), order=1, grid_mode=True, mode="nearest")
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))
    x = np.round(255 * images.clip(0, 1)).astype(np.uint8)[..., None]
    y = bunch.target.astype(np.uint8)
    train, test = _split(Part(x, y), TEST_SHARE, seed)
    return Raw("digits", text_digest(x.tobytes() + y.tobytes()), train, test)


def read_npz(path: Path, seed: int, name: str | None = None) -> Raw:
    """Reads ``x_train y_train x_test y_test``, or ``x y`` (then split by seed); labels may lack.

    Raises
    ------
    TfpruneError
        If the file cannot be read, is no ``.npz``, or has other arrays.
    """
    try:
        # Opened here: np.load leaves the file open when it fails.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise ValueError("a single array, not an archive")
            wanted = ("x_train", "y_train", "x_test", "y_test", "x", "y")
            arrays = {key: archive[key] for key in wanted if key in archive.files}
            found = archive.files
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None
    except Exception as error:  # Truncated or foreign files fail in zipfile, zlib or numpy.
        raise TfpruneError(
            f"{path}: expected a readable .npz file without pickles, "
            f"received something else ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from None
    notes: list[str] = []
    if "x_train" in arrays and "x_test" in arrays:
        train = Part(arrays["x_train"], arrays.get("y_train"))
        test = Part(arrays["x_test"], arrays.get("y_test"))
        for part in (train, test):
            _check_part(path, part)
        if (train.y is None) != (test.y is None):
            notes.append("labels ignored: they are there for one of train and test only")
            train, test = Part(train.x), Part(test.x)
    elif "x" in arrays or "x_train" in arrays:
        suffix = "" if "x" in arrays else "_train"
        whole = Part(arrays["x" + suffix], arrays.get("y" + suffix))
        _check_part(path, whole)
        train, test = _split(whole, TEST_SHARE, seed)
        notes.append(f"split by seed {seed}: {len(train):,} to train, {len(test):,} to test")
    else:
        raise TfpruneError(
            f"{path}: expected arrays x_train, y_train, x_test, y_test (or x, y), "
            f"received {', '.join(found) or 'none'}"
        )
    return Raw(name or path.stem, file_digest(path), train, test, notes=tuple(notes))


def _check_part(path: Path, part: Part) -> None:
    for array in (part.x, part.y):
        if array is None:
            continue
        if array.dtype.kind not in "fiub":
            raise TfpruneError(f"{path}: expected numbers, received {array.dtype}")
        if array.ndim < 1:
            raise TfpruneError(f"{path}: expected arrays of samples, received a scalar")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TfpruneError(f"{path}: expected finite numbers, received NaN or infinity")
    if not part.x.size:
        raise TfpruneError(f"{path}: expected at least one sample, received none")
    if part.y is not None and len(part.y) != len(part.x):
        raise TfpruneError(
            f"{path}: expected a label for each of {len(part.x)} samples, received {len(part.y)}"
        )


def _split(whole: Part, share: float, seed: int) -> tuple[Part, Part]:
    """Two disjoint parts in random order, the second one the share of the whole."""
    if len(whole) < 2:
        raise TfpruneError(f"data: expected at least 2 samples to split, received {len(whole)}")
    order = np.random.default_rng(seed).permutation(len(whole))
    cut = len(whole) - min(max(round(share * len(whole)), 1), len(whole) - 1)
    return whole.take(order[:cut]), whole.take(order[cut:])


def prepare(
    raw: Raw, scale: str, wanted: tuple[int | None, ...] | None, calibration: int, seed: int
) -> Dataset:
    """Scales, adds the channel axis, and draws the disjoint parts.

    Parameters
    ----------
    raw : Raw
    scale : {"auto", "none"}
        ``auto`` brings uint8 to [0, 1].
    wanted : tuple or None
        The shape of one sample as the model takes it; None if the model is made for the data.
    calibration : int
        How many training samples to measure activations on.
    seed : int
    """
    notes = list(raw.notes)
    train, test = raw.train, raw.test
    if train.x.shape[1:] != test.x.shape[1:]:
        raise TfpruneError(
            f"data: expected training and test samples of one shape, received "
            f"{train.x.shape[1:]} and {test.x.shape[1:]}"
        )
    if (train.x.dtype == np.uint8) != (test.x.dtype == np.uint8) and scale == "auto":
        raise TfpruneError(
            f"data: expected x_train and x_test in one range, received {train.x.dtype} and "
            f"{test.x.dtype}; scale them yourself and say --scale none"
        )
    shape = train.x.shape[1:]
    channel = (*shape, 1)
    if wanted is None:
        add_axis = len(shape) == 2
    else:
        add_axis = len(wanted) == len(channel) and all(
            want in (None, size) for want, size in zip(wanted, channel, strict=True)
        )
    as_uint8 = train.x.dtype == np.uint8 and scale == "auto"
    if as_uint8:
        notes.append("uint8 scaled from 0..255 to 0..1")
    if add_axis:
        notes.append(f"channel axis added: {shape} to {channel}")

    def ready(part: Part) -> Part:
        x = part.x[..., None] if add_axis else part.x
        return Part((x.astype(np.float32) / 255) if as_uint8 else x, part.y)

    fit, validation = _split(train, VALIDATION_SHARE, seed)
    return Dataset(
        name=raw.name,
        sha256=raw.sha256,
        train=ready(fit),
        calibration=ready(fit.take(slice(calibration))),
        validation=ready(validation),
        test=ready(test),
        fallback_from=raw.fallback_from,
        notes=tuple(notes),
    )
