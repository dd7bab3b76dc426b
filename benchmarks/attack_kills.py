"""Commands killed at random times, and updates on a full disk, for benchmarks.attack."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.sweep.results_log import ResultsLog
from tfprune.utils.digests import file_digest

ROOT = Path(__file__).parent.parent

EXAMPLE = ROOT / "exported" / "example"


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


def killed(
    words: Sequence[str],
    folder: Path,
    *,
    kills: int,
    rng: random.Random,
    fresh: Callable[[], None],
    broken: Callable[[Path], str],
) -> Tally:
    """Kills a command at random times; the folder that it writes has to be whole afterwards.

    Parameters
    ----------
    words : sequence of str
        The command, which runs whole once to see how long it takes.
    folder : Path
    fresh : callable
        Makes the folder as it was before the command.
    broken : callable
        Says what is wrong with the folder, nothing if it is whole.
    """
    from tfprune.output_folder.staging import finish

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    tally = Tally()
    begin = time.perf_counter()
    if start().wait():
        raise TfpruneError(f"{' '.join(words)}: expected it to work")
    usual = time.perf_counter() - begin
    for number in range(kills):
        fresh()
        process = start()
        # Mostly near the end, where files are moved.
        time.sleep(usual * rng.choice((rng.random(), rng.uniform(0.85, 1.02))))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        try:
            finish(folder, "--output")
            problem = broken(folder)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            tally.faults.append(f"kill {number}: {problem}")
        else:
            tally.read += 1
    return tally


def unlike_manifest(folder: Path) -> str:
    """In what a folder is not as its manifest says, empty if it is."""
    manifest = json.loads((folder / "manifest.json").read_text())
    known = {entry["file"]: entry["sha256"] for entry in manifest["artifacts"]}
    there = {path.name: file_digest(path) for path in folder.glob("*.tflite")}
    return "" if known == there else f"manifest of {sorted(known)}, files {sorted(there)}"


def killed_exports(kills: int, seed: int) -> Tally:
    """Kills ``tools.export`` where files of another run lie already."""
    with tempfile.TemporaryDirectory() as place:
        base, work = Path(place, "base"), Path(place, "work")
        words = [sys.executable, "-m", "tools.export", "--dataset", "digits", "--epochs", "1"]
        words += ["--units", "8", "--schemes", "float32"]
        first = subprocess.run(
            [*words, "--output", str(base)], cwd=ROOT, capture_output=True, check=False
        )
        if first.returncode:
            raise TfpruneError(f"tools.export: {first.stderr.decode()[-200:]}")

        def fresh() -> None:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)

        fresh()
        again = [*words, "--remove", "50%", "--output", str(work)]
        return killed(
            again, work, kills=kills, rng=random.Random(seed), fresh=fresh, broken=unlike_manifest
        )


def killed_sweeps(kills: int, seed: int) -> Tally:
    """Kills ``tools.sweep``; the rows that it had measured have to be there for the next run."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place, "sweep")
        words = [sys.executable, "-m", "tools.sweep", "--dataset", "digits", "--selections"]
        words += ["effect", "--shares", "50%", "--degrees", "30", "--schemes", "float32"]

        def fresh() -> None:
            shutil.rmtree(work, ignore_errors=True)

        def unreadable(folder: Path) -> str:
            """A row that is cut off is taken away; others have to be whole."""
            rows = folder / "sweep.jsonl"
            if rows.exists():
                ResultsLog(rows)
            left = [path.name for path in folder.glob(".tfprune-*") if path.is_dir()]
            return f"left behind: {left}" if left else ""

        words += ["--output", str(work)]
        return killed(
            words, work, kills=kills, rng=random.Random(seed), fresh=fresh, broken=unreadable
        )


def full_disk(seed: int) -> Tally:
    """Updates a baseline where no file may have over some kilobytes; the folder has to stay."""
    import resource

    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        old, new = Path(place, "old"), Path(place, "new")
        shutil.copytree(EXAMPLE, old)
        shutil.copytree(EXAMPLE, new)
        shutil.copy(EXAMPLE / "cnn_float32.tflite", new / "one_more.tflite")
        before = snapshot(old)
        words = [sys.executable, "-m", "tools.compare", "--baseline", str(old)]
        words += ["--candidate", str(new), "--update"]
        for _ in range(5):
            limit = rng.randrange(1, 60) * 1024

            def limited(limit: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

            done = subprocess.run(
                words, cwd=ROOT, capture_output=True, text=True, preexec_fn=limited, check=False
            )
            if done.returncode == 2 and snapshot(old) == before and "Traceback" not in done.stderr:
                tally.refused += 1
            else:
                tally.faults.append(f"limit {limit}: code {done.returncode}, {done.stderr[-150:]}")
    return tally


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
