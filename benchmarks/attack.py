"""``python -m benchmarks.attack``: damaged and hostile files through every reader.

Each mutant of a good file has to be read, or refused with the one error of this package, within a
few seconds and a bounded amount of memory. ``--mutants N`` sets how many each reader gets,
``--seed N`` which ones, ``--kills N`` how often an update of a baseline is killed at a random time,
``--fuzz SECONDS`` lets Atheris search by coverage where it is installed (pip install atheris).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from tfprune import boards, budgets, history
from tfprune.datasets import read_npz
from tfprune.errors import TfpruneError
from tfprune.journal import Journal, Row
from tfprune.sizes import read_side
from tfprune.tflite import operator_types, operator_versions, shares
from tools import compare, run

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "exported" / "example"
# Seconds of the processor that no reader may take for a file of kilobytes.
SLOW = 5.0
# What numbers and words may become in a text.
WORDS = (
    "NaN", "-Infinity", "1e400", "9" * 400, "-1", "0.5", "true", "null", "[]", "{}", '""', "²",
    "\\0", '"../../a.tflite"', '"/a.tflite"', '"::error::"', "\u202e", "\x1b[2J", "`|<img>`",
    "\ud800", "[" * 900, "{" * 900, '{"a":' * 500, "=", "\n", "[[models]]", "#", "'''", '"""',
)  # fmt: skip
EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 2**16, 255, 0x7F7F7F7F)


@dataclass
class Tally:
    """What became of the mutants of one subject.

    Attributes
    ----------
    read, refused : int
    faults : list of str
        A line for each mutant that did something else: another exception, too slow.
    """

    read: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many mutants there were."""
        return self.read + self.refused + len(self.faults)


@dataclass(frozen=True)
class Subject:
    """A reader, a good file for it, and what it raises to refuse one."""

    name: str
    seed: bytes
    suffix: str
    reader: Callable[[Path], object]
    text: bool = False
    refuses: tuple[type[Exception], ...] = (TfpruneError,)


def mutant(content: bytes, rng: random.Random, text: bool) -> bytes:
    """A good file with some damage; in texts mostly words and brackets."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(made) + 1)
        choice = rng.random()
        if text and choice < 0.7:
            word = rng.choice(WORDS).encode(errors="surrogatepass")
            made[place : place + rng.choice((0, 1, 4, 12))] = word
        elif choice < 0.75 and len(made) >= 8:
            # Offsets, counts and indices of a flatbuffer lie at multiples of four.
            at = 4 * rng.randrange(len(made) // 4)
            made[at : at + 4] = struct.pack("<i", rng.choice(EXTREMES) & 0x7FFFFFFF)
        elif choice < 0.85:
            made[place : place + 1] = bytes([rng.randrange(256)])
        elif choice < 0.92:
            end = min(place + rng.randrange(64), len(made))
            made[place:place] = made[place:end] * rng.choice((1, 3))
        elif choice < 0.97:
            del made[place : place + rng.randrange(64)]
        else:
            del made[place:]
    return bytes(made)


def attack(subject: Subject, mutants: int, seed: int) -> Tally:
    """Sends mutants through a reader."""
    tally = Tally()
    rng = random.Random(f"{seed} {subject.name}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"m{subject.suffix}")
        for number in range(mutants):
            path.write_bytes(mutant(subject.seed, rng, subject.text))
            start = time.process_time()
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    subject.reader(path)
                tally.read += 1
            except subject.refuses:
                tally.refused += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                tally.faults.append(f"mutant {number}: {type(error).__name__}: {error}"[:200])
            if (taken := time.process_time() - start) > SLOW:
                tally.faults.append(f"mutant {number}: {taken:.1f} s")
    return tally


def subjects(folder: Path) -> list[Subject]:
    """All readers of files that strangers may have made, with a good file for each."""
    tflite = (EXAMPLE / "cnn_prune30_int8.tflite").read_bytes()
    manifest = (EXAMPLE / "manifest.json").read_bytes()
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    np.savez_compressed(stream, x=rng.random((8, 3, 3)), y=np.arange(8))
    limits = (ROOT / "sizes" / "sizes.toml").read_bytes()
    line = {"commit": "a" * 40, "date": "2026-01-01", "models": [{"model": "a", "bytes": 5}]}
    board = b'name = "my board"\nram = "64 KiB"\nflash = "256 KiB"\nram-taken = "20 KiB"\n'
    good = folder / "good.json"
    good.write_bytes(manifest)

    def whole(path: Path) -> None:
        """A mutant through the command itself; 1 is for limits that are broken."""
        words = ["--baseline", str(good), "--candidate", str(path), "--format", "markdown"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = compare.main(words)
        lines = (out.getvalue() + err.getvalue()).splitlines()
        if any(text.strip().startswith("::") or "##[" in text for text in lines):
            raise AssertionError("a line that CI takes for a command")
        if code == 2:
            if len(err.getvalue().splitlines()) != 1 or "unexpected" in err.getvalue():
                raise AssertionError(err.getvalue())
            raise TfpruneError(err.getvalue())

    def rows(path: Path) -> None:
        Journal(path)

    row = Row("k", "angle", 30.0, "degrees", "drop", 0, 0, "int8", "accuracy", 0.9, 0.8, 100)
    kept = (json.dumps(asdict(row)) + "\n").encode()
    refused = (TfpruneError, run.RunError, struct.error, IndexError)
    return [
        Subject("bytes of a .tflite", tflite, ".tflite", shares),
        Subject("its operators", tflite, ".tflite", lambda path: operators(path.read_bytes())),
        Subject(
            "run.py's check", tflite, ".tflite", lambda path: run.check_graph(path.read_bytes()),
            refuses=refused,
        ),
        Subject("manifest", manifest, ".json", lambda p: read_side(p, "--candidate"), text=True),
        Subject("tools.compare", manifest, ".json", whole, text=True),
        Subject("sizes.toml", limits, ".toml", budgets.load, text=True),
        Subject("history", (json.dumps(line) + "\n").encode(), ".jsonl", history.read, text=True),
        Subject("board", board, ".toml", lambda path: boards.boards([str(path)]), text=True),
        Subject("rows of a sweep", kept, ".jsonl", rows, text=True),
        Subject("data", stream.getvalue(), ".npz", lambda path: read_npz(path, 0)),
        Subject(
            "run.py's data", stream.getvalue(), ".npz", run.arrays_of,
            refuses=(run.RunError, OSError),
        ),
    ]  # fmt: skip


def operators(content: bytes) -> None:
    """What a file says of its operators."""
    operator_versions(content)
    operator_types(content)


def killed_updates(kills: int, seed: int) -> Tally:
    """Kills ``tools.compare --update`` at random times; the next run has to find a whole folder."""
    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        old, new, work = Path(place, "old"), Path(place, "new"), Path(place, "work")
        for folder, number in ((old, 1), (new, 2)):
            folder.mkdir()
            for name in range(40):
                content = (EXAMPLE / "cnn_prune30_int8.tflite").read_bytes() + bytes(4 * number)
                (folder / f"m{name}.tflite").write_bytes(content)
        words = [sys.executable, "-m", "tools.compare", "--baseline", str(work)]
        words += ["--candidate", str(new), "--update", "--max-increase", "100%"]
        wholes = [snapshot(old), snapshot(new)]
        start = time.perf_counter()
        shutil.copytree(old, work)
        subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
        usual = time.perf_counter() - start
        for number in range(kills):
            shutil.rmtree(work)
            shutil.copytree(old, work)
            process = subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(rng.uniform(0.4, 1.0) * usual)
            process.send_signal(signal.SIGKILL)
            process.wait()
            # The next update completes or takes back what was begun; this one changes nothing.
            again = [*words[:5], "--candidate", str(work), "--update"]
            done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode == 0 and snapshot(work) in wholes:
                tally.read += 1
            else:
                tally.faults.append(f"kill {number}: code {done.returncode}, {done.stderr[-150:]}")
    return tally


def snapshot(folder: Path) -> dict[str, int]:
    """The names of a folder's files and their sizes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def fuzz(seconds: int) -> None:
    """Searches by coverage with Atheris, in the reader of ``.tflite`` files."""
    try:
        import atheris
    except ImportError:
        print("attack: --fuzz needs Atheris: pip install atheris", file=sys.stderr)
        return
    # Imported once more, with its branches counted.
    sys.modules.pop("tfprune.tflite")
    with atheris.instrument_imports(include=["tfprune"]):
        tflite = importlib.import_module("tfprune.tflite")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.tflite")

        def once(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(TfpruneError):
                tflite.shares(path)

        corpus = Path(folder, "corpus")
        corpus.mkdir()
        shutil.copy(EXAMPLE / "cnn_prune30_int8.tflite", corpus)
        limits = [f"-max_total_time={seconds}", "-max_len=32768"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], once)
        atheris.Fuzz()


def campaign(mutants: int, seed: int, kills: int = 0) -> dict[str, Tally]:
    """All subjects, by name."""
    with tempfile.TemporaryDirectory() as folder:
        tallies = {s.name: attack(s, mutants, seed) for s in subjects(Path(folder))}
    if kills:
        tallies["killed updates of a baseline"] = killed_updates(kills, seed)
    return tallies


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what was tried; 1 if anything ended in another way than it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--fuzz", type=int, default=0, metavar="SECONDS")
    flags = parser.parse_args(argv)
    if flags.fuzz:
        fuzz(flags.fuzz)
        return 0
    tallies = campaign(flags.mutants, flags.seed, flags.kills)
    rows = [
        [name, tally.tried, tally.read, tally.refused, len(tally.faults)]
        for name, tally in tallies.items()
    ]
    print(tabulate(rows, ["reader", "tried", "read", "refused", "anything else"], tablefmt="pipe"))
    kinds: Counter[str] = Counter()
    for name, tally in tallies.items():
        for fault in tally.faults[:5]:
            print(f"{name}: {fault}", file=sys.stderr)
        kinds[name] += len(tally.faults)
    return int(any(kinds.values()))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
