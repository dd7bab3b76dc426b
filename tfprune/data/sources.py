"""Loads data sets, offline first: MNIST, scikit-learn's digits, a user's ``.npz``."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfprune.data.splits import Raw, Split, split
from tfprune.errors import TfpruneError
from tfprune.utils.archives import check_archive
from tfprune.utils.arrays import Array
from tfprune.utils.digests import file_digest, text_digest

# Share of data that comes unsplit that is held back for the test.
TEST_SHARE = 1 / 5
# Seconds without a byte after which a download is given up.
PATIENCE = 5.0
# What arrays of samples are called, alone or before _NAME; x alone is split by seed.
STEMS = ("x_train", "x_test", "x")


def load(
    dataset: str,
    data: str | None,
    seed: int,
    say: Callable[[str], None],
    inputs: Sequence[str] = (),
) -> Raw:
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
    inputs : sequence of str
        The names of the model's inputs, for a user's ``.npz``; none if the model takes any data.

    Raises
    ------
    TfpruneError
        If the data cannot be had or read.
    """
    if dataset == "digits":
        return digits(seed)
    if data is not None:
        if dataset != "mnist":
            return read_npz(Path(data), seed, inputs=inputs)
        raw = read_npz(Path(data), seed, "mnist")
        shape = raw.train.arrays[0].shape[1:]
        if shape not in ((28, 28), (28, 28, 1)):
            raise TfpruneError(
                f"--data {data}: expected MNIST's 28x28 images, received {shape}; "
                "use --dataset auto for data of your own"
            )
        return raw
    if dataset == "mnist":
        say = _nothing  # What fails says in one line where it looked.
    looked = []
    for where, path in _mnist_files():
        reason = "not set" if path == Path() else "no such file"
        if path.is_file():
            try:
                return read_npz(path, seed, "mnist")
            except TfpruneError as error:
                reason = f"no MNIST: {error}"
        if reason != "not set" and (path.is_file() or where != "Keras' cache"):
            say(f"{where}: {reason} ({path})")
        looked.append(f"{where} ({reason})")
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


def _nothing(line: str) -> None:
    pass


def _mnist_files() -> Iterator[tuple[str, Path]]:
    yield "TFPRUNE_MNIST", Path(os.environ.get("TFPRUNE_MNIST", ""))
    yield "Keras' cache", _keras_home() / "datasets" / "mnist.npz"


def _keras_home() -> Path:
    # Without a home it leads nowhere, and is no error.
    return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))  # noqa: PTH111


def _download() -> Path | None:
    """Lets Keras download MNIST, and gives up when nothing arrives for a while."""
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
        # Keras' own progress would stand among the lines of a command.
        with contextlib.redirect_stdout(io.StringIO()):
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
    train, test = split(Split(x, y), TEST_SHARE, seed)
    return Raw("digits", text_digest(x.tobytes() + y.tobytes()), train, test)


def read_npz(path: Path, seed: int, name: str | None = None, inputs: Sequence[str] = ()) -> Raw:
    """Reads ``x_train y_train x_test y_test``, or ``x y``, split by seed; labels are optional.

    Parameters
    ----------
    path : Path
    seed : int
    name : str, optional
        The file's own by default.
    inputs : sequence of str
        The names of the model's inputs; several have an array each, ``x_train_NAME`` and so on.

    Raises
    ------
    TfpruneError
        If the file cannot be read, is no ``.npz``, or has other arrays.
    """
    try:
        check_archive(path)
        # Opened here: np.load leaves the file open when it fails.
        with path.open("rb") as file, contextlib.ExitStack() as stack:
            archive = np.load(file, allow_pickle=False)
            if not hasattr(archive, "files"):
                raise ValueError("a single array, not an archive")
            stack.enter_context(archive)
            keys = archive.files
            known_keys = {"y_train", "y_test", "y", *STEMS}
            known_keys |= {f"{stem}_{name}" for stem in STEMS for name in inputs}
            arrays = {key: archive[key] for key in keys if key in known_keys}
    except TfpruneError:
        raise
    except FileNotFoundError:
        raise TfpruneError(f"{path}: no such file") from None
    except Exception as error:  # Truncated or foreign files fail in zipfile, zlib or numpy.
        message = str(error).splitlines()[0] if str(error) else repr(error)
        # Of any foreign file numpy says that it is pickled, and how to load it.
        why = "" if "allow_pickle" in message else f" ({message})"
        raise TfpruneError(
            f"{path}: expected a readable .npz file without pickles, received something else{why}"
        ) from None
    notes: list[str] = []
    parts, used = _parts(path, arrays, keys, inputs)
    unused = [key for key in keys if key not in used]
    if unused:
        notes.append(f"arrays not used: {', '.join(unused)}")
    for part in parts.values():
        _check_part(path, part)
    if len(parts) == 2:
        train, test = parts["x_train"], parts["x_test"]
        if (train.y is None) != (test.y is None):
            notes.append("labels ignored: they are there for one of train and test only")
            train, test = Split(train.x), Split(test.x)
    else:
        (whole,) = parts.values()
        train, test = split(whole, TEST_SHARE, seed)
        notes.append(f"split by seed {seed}: {len(train):,} to train, {len(test):,} to test")
    return Raw(name or path.stem, file_digest(path), train, test, notes=tuple(notes))


def _parts(
    path: Path, arrays: dict[str, Array], all_keys: Sequence[str], inputs: Sequence[str]
) -> tuple[dict[str, Split], set[str]]:
    """The parts that a file holds by what they are called: x_train and x_test, or one of all.

    And the names of the arrays that they are made of.
    """
    plain = not inputs or (len(inputs) == 1 and any(stem in arrays for stem in STEMS))
    ends = [""] if plain else [f"_{name}" for name in inputs]
    came = {key for key in all_keys if key == "x" or key.startswith("x_")}
    for stems in (("x_train", "x_test"), ("x",), ("x_train",)):
        keys = {stem + end for stem in stems for end in ends}
        if keys == came or (plain and keys < came):
            splits, used = {}, keys | {"y" + stem[1:] for stem in stems}
            for stem in stems:
                each = [arrays[stem + end] for end in ends]
                x = dict(zip(inputs, each, strict=True)) if len(each) > 1 else each[0]
                splits[stem] = Split(x, arrays.get("y" + stem[1:]))
            return splits, used
    expected = "x_train, y_train, x_test, y_test (or x, y)"
    if len(inputs) > 1:
        expected = (
            f"x_train_NAME and x_test_NAME (or x_NAME) for each input NAME of the model "
            f"({', '.join(inputs)}) and no other"
        )
    raise TfpruneError(
        f"{path}: expected arrays {expected}, received {', '.join(all_keys) or 'none'}"
    )


def _check_part(path: Path, part: Split) -> None:
    for array in (*part.arrays, part.y):
        if array is None:
            continue
        if array.dtype.kind not in "fiub":
            raise TfpruneError(f"{path}: expected numbers, received {array.dtype}")
        if array.ndim < 1:
            raise TfpruneError(f"{path}: expected arrays of samples, received a scalar")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise TfpruneError(f"{path}: expected finite numbers, received NaN or infinity")
    if not all(data.size for data in part.arrays):
        raise TfpruneError(f"{path}: expected at least one sample, received none")
    counts = [len(data) for data in part.arrays]
    if len(set(counts)) > 1:
        raise TfpruneError(
            f"{path}: expected as many samples for every input, received "
            f"{', '.join(map(str, counts))}"
        )
    if part.y is not None and len(part.y) != len(part):
        raise TfpruneError(
            f"{path}: expected a label for each of {len(part)} samples, received {len(part.y)}"
        )
