"""Parts of a data set as they are read: training and test samples, or all that are to be split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfprune.data.splits import Raw, Split, split
from tfprune.errors import TfpruneError
from tfprune.utils.streamed import concatenated, pieces

# Share of data that comes unsplit that is held back for the test.
TEST_SHARE = 1 / 5
# What parts are called: training and test samples, or all in one.
TRAIN, TEST, WHOLE = "x_train", "x_test", "x"

Parts = dict[str, Split]


def to_raw(
    path: object,
    parts: Mapping[str, Split],
    seed: int,
    name: str,
    sha256: str,
    *,
    notes: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Raw:
    """A data set of its parts; one part alone is split.

    Parameters
    ----------
    path : object
        What messages call it.
    parts : mapping of str to Split
        ``x_train`` and ``x_test``, or one of any name.
    seed : int
        Of the split.
    name, sha256, notes, classes
        See :class:`tfprune.data.splits.Raw`.

    Raises
    ------
    TfpruneError
        See :func:`check_part`.
    """
    said = list(notes)
    for part in parts.values():
        check_part(path, part)
    if len(parts) == 2:
        train, test = parts[TRAIN], parts[TEST]
        if (train.y is None) != (test.y is None):
            said.append("labels ignored: they are there for one of train and test only")
            train, test = replace(train, y=None), replace(test, y=None)
        alone = sorted(set(train.ys) ^ set(test.ys))
        if alone:
            said.append(
                f"labels of {', '.join(alone)} ignored: they are there for one of train and test "
                "only"
            )
            train, test = (
                replace(part, ys={name: y for name, y in part.ys.items() if name not in alone})
                for part in (train, test)
            )
    else:
        (whole,) = parts.values()
        train, test = split(whole, TEST_SHARE, seed)
        said.append(f"split by seed {seed}: {len(train):,} to train, {len(test):,} to test")
    return Raw(name, sha256, train, test, notes=tuple(said), classes=tuple(classes))


def joined(path: object, files: Sequence[Mapping[str, Split]]) -> Parts:
    """The parts of several files as those of one.

    Raises
    ------
    TfpruneError
        If they differ in what they hold.
    """
    made = {}
    for name in files[0]:
        try:
            same = [parts[name] for parts in files]
            arrays = [concatenated(each) for each in zip(*(p.arrays for p in same), strict=True)]
            labels = [p.y for p in same if p.y is not None]
            if len(labels) not in (0, len(files)) or any(set(p) != set(files[0]) for p in files):
                raise ValueError
            if any(set(p.ys) != set(same[0].ys) for p in same):
                raise ValueError
        except (KeyError, ValueError):
            raise TfpruneError(
                f"{path}: expected files that hold the same arrays, of the same shape, received "
                "different ones"
            ) from None
        made[name] = same[0].given(arrays).labelled_as(same)
    return made


def check_part(path: object, part: Split) -> None:
    """Refuses what are no samples, or labels that are not one for each of them.

    Raises
    ------
    TfpruneError
        Names ``path``.
    """
    for array in (*part.arrays, part.y, *part.ys.values()):
        if array is None:
            continue
        if array.dtype.kind not in "fiub":
            raise TfpruneError(f"{path}: expected numbers, received {array.dtype}")
        if array.ndim < 1:
            raise TfpruneError(f"{path}: expected arrays of samples, received a scalar")
        if array.dtype.kind == "f" and not all(np.isfinite(one).all() for one in pieces(array)):
            raise TfpruneError(f"{path}: expected finite numbers, received NaN or infinity")
    if not all(data.size for data in part.arrays):
        raise TfpruneError(f"{path}: expected at least one sample, received none")
    counts = [len(data) for data in part.arrays]
    if len(set(counts)) > 1:
        raise TfpruneError(
            f"{path}: expected as many samples for every input, received "
            f"{', '.join(map(str, counts))}"
        )
    for name, y in (("", part.y), *part.ys.items()):
        if y is not None and len(y) != len(part):
            of = f" of output {name}" if name else ""
            raise TfpruneError(
                f"{path}: expected a label{of} for each of {len(part)} samples, received {len(y)}"
            )
