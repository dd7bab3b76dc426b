"""``python -m benchmarks.attack``: damaged and hostile files through every reader.

Each mutant of a good file has to be read, or refused with the one error of this package, within a
few seconds and a bounded amount of memory. ``--mutants N`` sets how many each reader gets,
``--seed N`` which ones, ``--models N`` how many mutants of model files there are, ``--kills N`` how
often an export and an update of a baseline, and half as often a sweep, are killed at a random
time, ``--fuzz SECONDS`` lets Atheris search by coverage where it is installed.
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
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.attack_kills import (
    EXAMPLE,
    ROOT,
    Tally,
    full_disk,
    killed_exports,
    killed_sweeps,
    killed_updates,
)
from tfprune.data.array_files import read_npz
from tfprune.errors import TfpruneError
from tfprune.gate import history
from tfprune.gate import limits as budgets
from tfprune.gate.sizes import read_side
from tfprune.micro import boards
from tfprune.sweep.results_log import ResultsLog, Row
from tfprune.tflite.reader import operator_types, operator_versions, shares
from tools import compare, run

# Seconds of the processor that no reader may take for a file of kilobytes.
SLOW = 5.0
# What numbers and words may become in a text.
WORDS = (
    "NaN", "-Infinity", "1e400", "9" * 400, "-1", "0.5", "true", "null", "[]", "{}", '""', "²",
    "\\0", '"../../a.tflite"', '"/a.tflite"', '"::error::"', "\u202e", "\x1b[2J", "`|<img>`",
    "\ud800", "[" * 900, "{" * 900, '{"a":' * 500, "=", "\n", "[[models]]", "#", "'''", '"""',
)  # fmt: skip
EXTREMES = (0, 1, -1, 2**31 - 1, -(2**31), 2**16, 255, 0x7F7F7F7F)


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
        ResultsLog(path)

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


def model_files(folder: Path) -> list[Subject]:
    """Readers of model files, which need TensorFlow: a configuration, an archive, an HDF5 file."""
    from tfprune.utils.console import quiet

    with quiet():
        import keras

        from tfprune.data.built_in import cnn
        from tfprune.data.networks import load_model

    model = cnn((16, 16, 1), 3, 4)
    model.compile("adam", "sparse_categorical_crossentropy")
    made = {}
    for suffix in (".keras", ".h5"):
        with warnings.catch_warnings(action="ignore"), quiet():
            model.save(folder / f"good{suffix}")
        made[suffix] = (folder / f"good{suffix}").read_bytes()
    with zipfile.ZipFile(io.BytesIO(made[".keras"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def configured(path: Path) -> object:
        """A mutant of the configuration, in an archive with all that belongs to it."""
        whole = path.with_name("whole.keras")
        with zipfile.ZipFile(whole, "w") as archive:
            for name, content in (members | {"config.json": path.read_bytes()}).items():
                archive.writestr(name, content)
        return load_model(whole)

    def loaded(path: Path) -> None:
        before = keras.config.floatx(), keras.config.backend()
        load_model(path)
        if (keras.config.floatx(), keras.config.backend()) != before:
            raise AssertionError("a file changed the settings of Keras")

    return [
        Subject("configuration of a model", members["config.json"], ".json", configured, text=True),
        Subject("bytes of a .keras", made[".keras"], ".keras", loaded),
        Subject("bytes of a .h5", made[".h5"], ".h5", loaded),
    ]


def fuzz(seconds: int) -> None:
    """Searches by coverage with Atheris, in the reader of ``.tflite`` files."""
    try:
        import atheris
    except ImportError:
        print("attack: --fuzz needs Atheris: pip install atheris", file=sys.stderr)
        return
    # Imported once more, with its branches counted.
    sys.modules.pop("tfprune.tflite.reader")
    with atheris.instrument_imports(include=["tfprune"]):
        tflite = importlib.import_module("tfprune.tflite.reader")

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


def campaign(mutants: int, seed: int, kills: int = 0, models: int = 0) -> dict[str, Tally]:
    """All subjects, by name."""
    with tempfile.TemporaryDirectory() as folder:
        tallies = {s.name: attack(s, mutants, seed) for s in subjects(Path(folder))}
        if models:
            made = model_files(Path(folder))
            tallies |= {s.name: attack(s, models, seed) for s in made}
    if kills:
        tallies["killed updates of a baseline"] = killed_updates(kills, seed)
        tallies["killed exports"] = killed_exports(kills, seed)
        tallies["killed sweeps"] = killed_sweeps(-(-kills // 2), seed)
        tallies["full disk"] = full_disk(seed)
    return tallies


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what was tried; 1 if anything ended in another way than it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--models", type=int, default=0)
    parser.add_argument("--fuzz", type=int, default=0, metavar="SECONDS")
    flags = parser.parse_args(argv)
    if flags.fuzz:
        fuzz(flags.fuzz)
        return 0
    tallies = campaign(flags.mutants, flags.seed, flags.kills, flags.models)
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
