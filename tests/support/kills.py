"""A change of a folder cut short at every call of the system, each time in a process of its own.

Run by test_staging.py as ``python -m tests.support.kills FOLDER how``; prints how many calls there
were, or fails with an AssertionError. Processes are forked, so this must not have threads: it stays
away from TensorFlow.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from functools import partial
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.output_folder import transaction
from tfprune.output_folder.staging import staging, writing

# What a change of a folder consists of.
CALLS = ("replace", "link", "symlink", "unlink", "mkdir", "rmdir", "fsync", "open", "ftruncate")
MANIFEST = "manifest.json"

OLD = {
    "cnn.tflite": "old", "cnn_int8.tflite": "old", "gone.tflite": "old", "plots/hidden.png": "old",
    "older/picture.png": "old", "notes.txt": "the user's", MANIFEST: "old",
}  # fmt: skip
NEW = {
    "cnn.tflite": "new", "cnn_int8.tflite": "new", "fresh.tflite": "new", "plots/hidden.png": "new",
    "plots/second.png": "new", "c/array.h": "new", "notes.txt": "the user's", MANIFEST: "new",
}  # fmt: skip
OBSOLETE = ("gone.tflite", "older/picture.png", "never.tflite", "../outside.txt")


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path, hidden: bool = False) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in files
        if hidden or ".tfprune-" not in str(path.relative_to(folder))
    }


def change(folder: Path) -> None:
    with staging(folder, MANIFEST, ["plots/x.png"], lambda written: OBSOLETE) as stage:
        fill(stage, {name: text for name, text in NEW.items() if name != "notes.txt"})


def disturbed(folder: Path, number: int, how: str) -> int:
    """Changes the folder in a child that is disturbed at a call; returns the child's status.

    9 if it was killed, else 0 if it came to the end, 1 if it failed in a line, 2 if interrupted.
    """
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    count = 0

    def wrapped(call):
        def counted(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number and how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if count == number and how == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if count == number and how == "fail":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
            return call(*args, **kwargs)

        return counted

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    code = 3
    try:
        change(folder)
        code = 0
    except (TfpruneError, OSError):
        code = 1
    except KeyboardInterrupt:
        code = 2
    finally:
        # Nothing was done to it, so there are no more calls.
        os._exit(50 if code == 0 and count < number else code)


def main(base: Path, how: str) -> None:
    number, outcomes, late = 0, [], 0
    while True:
        number += 1
        folder = base / f"{how}{number}"
        fill(folder, OLD)
        (folder.parent / "outside.txt").write_text("outside")
        (folder / "cnn_int8.tflite").chmod(0o444)
        code = disturbed(folder, number, how)
        where = f"{how} at call {number}"
        if code == 50:
            break
        assert code == {"kill": 9}.get(how, code) != 3, f"{where}: {code}"
        # Whoever only reads sees one of the two, or is told to wait.
        try:
            seen = transaction.read_settled(folder, "it", partial(content, folder))
            assert seen in (OLD, NEW), where
            assert not transaction.unfinished(folder), where
        except TfpruneError as error:
            assert "cut short" in str(error), where
            seen = None
        if how == "interrupt":
            # Held back until all is done, or heard before anything was.
            assert code in (0, 2), where
            assert seen in (OLD, NEW), where
            assert code == 2 or seen == NEW, where
            assert ".tfprune-" not in str(sorted(folder.rglob("*"))), where
        with writing(folder):
            pass
        after = content(folder, hidden=True)
        assert after in (OLD, NEW), f"{where}: {after}"
        assert seen is None or after == seen, where
        assert not list(folder.rglob(".tfprune-*")), where
        assert how != "kill" or (folder / "older").exists() == (after == OLD), where
        outcomes.append("old" if after == OLD else "new")
        if how == "fail":
            assert code == 1 or after == NEW, where
            late += code == 1 and after == NEW
    assert (base / "outside.txt").read_text() == "outside"
    assert {"old", "new"} <= set(outcomes)
    # Only to take the journal away can fail when all is in its place.
    assert late <= 1
    sys.stdout.write(f"{number}\n")


if __name__ == "__main__":
    transaction.TRIES, transaction.PATIENCE = 1, 0.0
    # A process that is killed loses nothing of what it wrote; only a computer does.
    os.fsync = lambda descriptor: None
    main(Path(sys.argv[1]), sys.argv[2])
