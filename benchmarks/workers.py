"""What workers save on a sweep: ``python -m benchmarks.workers``.

The same sweep by one worker and by several, TensorFlow and linear algebra with one thread each; its
tables have to be the same to the byte. The network is trained before, so that no time is its.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tfprune.workers.answering import THREADS

# 34 points: the unpruned model, 18 at shares, 15 at degrees.
GRID = (
    "--selections", "effect,angle", "--shares", "25%,50%,75%", "--degrees", "30,40,50",
    "--refit", "0,100",
)  # fmt: skip


def sweep(folder: Path, environment: dict[str, str], *words: str) -> float:
    """Seconds that a sweep takes into a folder."""
    command = [sys.executable, "-m", "tools.sweep", "--dataset", "digits", *words]
    begun = time.perf_counter()
    subprocess.run(
        [*command, "--output", str(folder)], env=environment, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begun


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,2", help="numbers of workers; 0 is without")
    parser.add_argument("--schemes", default="float32,int8")
    parser.add_argument("--small", action="store_true", help="7 points in place of 34")
    parser.add_argument("--heal", help="epochs; every point once more, healed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        environment = {
            **os.environ, **dict.fromkeys(THREADS, "1"), "TFPRUNE_CACHE": str(home / "cache"),
        }  # fmt: skip
        sweep(home / "trained", environment, "--shares", "50%", "--degrees", "none",
              "--selections", "random", "--folds", "drop", "--schemes", "float32")  # fmt: skip
        grid = [*GRID, "--schemes", asked.schemes]
        if asked.small:
            grid[3], grid[5] = "50%", "none"
        grid += ["--heal", asked.heal] if asked.heal else []
        rows, first, table = [], 0.0, b""
        for count in map(int, asked.workers.split(",")):
            words = ["--workers", str(count)] if count else []
            seconds = sweep(home / f"by{count}", environment, *grid, *words)
            made = (home / f"by{count}" / "sweep.csv").read_bytes()
            first, table = first or seconds, table or made
            rows.append([count or "none", seconds, first / seconds, made == table])
        points = len(table.splitlines()) - 1
    print(f"{points} files on {os.cpu_count()} cores, a thread each")
    heads = ["workers", "seconds", "times faster", "the same table"]
    print(tabulate(rows, heads, "github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
