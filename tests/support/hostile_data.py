"""Data files that a stranger made."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np

X = np.zeros((4, 28, 28, 1), np.float32)


def npz(**members) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


def zipped(name: str, content: bytes, **settings) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def head(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


HOSTILE_DATA = {
    "objects": npz(x=np.array([{}, []], object)),
    "absurd shape": zipped("x.npy", head("(1000000000000, 28, 28, 1)")),
    "overflowing shape": zipped("x.npy", head("(4611686018427387904, 4)")),
    "negative shape": zipped("x.npy", head("(-1, 28)")),
    "no array": zipped("x.npy", b"\x93NUMPY"),
    "a bomb": zipped("x.npy", head("(500000000,)") + bytes(300 * 2**20)),
    "scoring is no JSON": npz(x_test=X, y_test=np.zeros(4), scoring="{"),
    "scoring is deep": npz(x_test=X, y_test=np.zeros(4), scoring="[" * 100_000),
    "scoring of no output": npz(
        x_test=X, y_test=np.zeros(4), scoring='{"metric": "accuracy", "output": 9}'
    ),
    "scoring is a list": npz(x_test=X, y_test=np.zeros(4), scoring="[1]"),
    "scoring is numbers": npz(x_test=X, y_test=np.zeros(4), scoring=np.arange(9.0)),
    "labels of another shape": npz(
        x_test=X, y_test=np.zeros((4, 3, 3)), scoring='{"metric": "mse", "output": 0}'
    ),
    "not even a zip": b"PK\x03\x04" + bytes(50),
}
