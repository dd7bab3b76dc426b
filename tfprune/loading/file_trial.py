"""Reads a model file to its end in a process of its own, before this one does.

HDF5 is a library of C that loops for ever on some damaged files, and may crash on others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.utils.child_process import ending

# Seconds, and bytes for which there is another one.
SECONDS = 30
BYTES = 10 * 2**20
# Of address space, for Python and its libraries.
MEMORY = 4 * 2**30
REFUSED = 3
Key = tuple[Path, int, int]
CODE = "from tfprune.loading import file_trial; "


# Files that were read so in this process, which a command reads up to three times.
_passed: set[Key] = set()


def key_of(path: Path) -> Key:
    """What tells a file from others, and from itself changed."""
    status = path.stat()
    return path.resolve(), status.st_size, status.st_mtime_ns


def check(path: Path) -> None:
    """Reads a file in another process, once.

    Parameters
    ----------
    path : Path

    Raises
    ------
    TfpruneError
        With what is wrong with it; also where reading it crashes or does not end.
    """
    known = key_of(path)
    if known in _passed:
        return
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); {CODE}file_trial.main()"
    limit = SECONDS + path.stat().st_size / BYTES
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TfpruneError(
            f"reading it took more than {limit:.0f} seconds; it is damaged"
        ) from None
    if done.returncode == REFUSED:
        raise TfpruneError(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode:
        how = ending(done.returncode, done.stderr.decode("utf-8", "replace"))
        raise TfpruneError(f"reading it ends the process ({how}); it is damaged")
    _passed.add(known)


def main() -> None:
    """Reads the file that the command line names, all of it."""
    import io

    import h5py

    from tfprune.loading import h5_arrays, keras_archive

    path = Path(sys.argv[1])
    size = path.stat().st_size
    _limit_memory(h5_arrays.TIMES * size + h5_arrays.MORE)
    try:
        with h5_arrays.reading():
            content: Path | io.BytesIO = path
            if not h5py.is_hdf5(path):
                content = io.BytesIO(keras_archive.read(path).weights)
            with h5py.File(content, "r") as file:
                h5_arrays.check_arrays(file, size)
                h5_arrays.read_all(file)
    except TfpruneError as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "replace"))
        sys.exit(REFUSED)


def _limit_memory(size: int) -> None:
    """So many bytes for a file, beside what Python and its libraries take, where that can be."""
    try:
        import resource
    except ImportError:  # Windows.
        return
    limit = size + MEMORY
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
