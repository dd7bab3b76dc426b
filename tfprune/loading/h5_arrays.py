"""Reads HDF5 files as data: checks that they hold nothing but arrays of numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from tfprune.errors import TfpruneError

# What arrays may unpack to: so many times the file's bytes, and so many more. Keras itself writes
# them as they are; a file compressed afterwards, with many zeros, comes to 10 times.
TIMES = 32
MORE = 32 * 2**20
MOST_OBJECTS = 200_000
MOST_NAMES = 1_000_000
# Filters that are part of HDF5 or h5py; others are libraries that would be loaded.
FILTERS = {
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SCALEOFFSET, h5py.h5z.FILTER_NBIT,
}  # fmt: skip


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Within the block, errors of h5py for damaged files become :class:`TfpruneError`."""
    try:
        yield
    except TfpruneError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split()).strip(" '\"")
        raise TfpruneError(f"it is a damaged HDF5 file ({reason})") from None


def check_arrays(file: h5py.File, size: int) -> int:
    """Raises unless a file holds nothing but arrays of numbers, all within it.

    Links to other files, arrays stored in or put together from other files, links that go round,
    and arrays of more bytes than the file can reasonably hold are refused without reading one.

    Parameters
    ----------
    file : h5py.File
    size : int
        Its bytes.

    Returns
    -------
    int
        The numbers in all arrays together.

    Raises
    ------
    TfpruneError
    """
    total = numbers = 0
    limit = TIMES * size + MORE
    for name, dataset in _datasets(file):
        if dataset.external:
            raise TfpruneError(f"{name} lies in another file ({dataset.external[0][0]!r})")
        if dataset.is_virtual:
            raise TfpruneError(f"{name} is put together from other files (a virtual dataset)")
        plist = dataset.id.get_create_plist()
        filters = {plist.get_filter(at)[0] for at in range(plist.get_nfilters())}
        if not filters <= FILTERS:
            raise TfpruneError(f"{name} is packed by a filter that is not part of HDF5")
        if not _holds_numbers(dataset):
            continue  # Text, such as a version; it is not read.
        # A part that is unpacked as one may be larger than the array.
        length = max(math.prod(dataset.shape or ()), math.prod(dataset.chunks or ()))
        numbers += length
        total += length * dataset.dtype.itemsize
        if total > limit:
            raise TfpruneError(
                f"its arrays declare more than {limit:,} bytes, where the file has {size:,}"
            )
    return numbers


def read_all(file: h5py.File) -> None:
    """Reads every array and every attribute of a group, and forgets it."""
    for _, dataset in _datasets(file):
        if _holds_numbers(dataset):
            dataset[()]
        if dataset.parent != file:
            _read_attributes(dataset.parent)
    _read_attributes(file)


def _read_attributes(group: h5py.Group) -> None:
    for key in group.attrs:
        if math.prod(group.attrs.get_id(key).shape or ()) <= MOST_NAMES:
            group.attrs[key]


def _holds_numbers(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind in "biufV" and dataset.dtype.fields is None


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """All arrays in a file, no link followed out of it and none twice."""
    seen: set[Any] = set()
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    while groups:
        path, group = groups.pop()
        for key in group:
            name = f"{path}/{key}"
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                raise TfpruneError(f"{name} is a link ({kind}), which Keras never writes")
            entry = group[key]
            # Two hard links may name one group, also one above it.
            address = h5py.h5o.get_info(entry.id).addr
            if address in seen:
                raise TfpruneError(f"{name} stands twice in the file")
            seen.add(address)
            if len(seen) > MOST_OBJECTS:
                raise TfpruneError(f"expected at most {MOST_OBJECTS:,} arrays and groups")
            if isinstance(entry, h5py.Dataset):
                yield name, entry
            elif isinstance(entry, h5py.Group):
                groups.append((name, entry))
            else:
                raise TfpruneError(f"{name} is neither an array nor a group")


def text_attribute(attributes: Any, name: str) -> str | None:
    """A text, or None where it is not."""
    if name not in attributes:
        return None
    value = attributes[name]
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise TfpruneError(f"its {name} is not UTF-8") from None
    if not isinstance(value, str):
        raise TfpruneError(f"expected {name} to be text, received {type(value).__name__}")
    return value


def names_in(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras splits over several attributes where it is long."""
    keys = [name] if name in group.attrs else []
    while not keys or keys[-1] != name:
        key = f"{name}{len(keys)}"
        if key not in group.attrs:
            break
        keys.append(key)
    names: list[str] = []
    for key in keys:
        identifier = group.attrs.get_id(key)
        if math.prod(identifier.shape or ()) > MOST_NAMES:
            raise TfpruneError(f"expected at most {MOST_NAMES:,} names in {key}")
        for value in np.ravel(group.attrs[key]):
            names.append(value.decode("utf-8") if isinstance(value, bytes) else str(value))
    return names
