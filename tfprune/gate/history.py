"""Records sizes over time, a line of JSON for each run, and draws them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.gate.sizes import Side
from tfprune.output_folder.staging import WAIT, writing
from tfprune.utils.escapes import plain
from tfprune.utils.files import write_whole
from tfprune.utils.git import git_state
from tfprune.utils.untrusted import parse_json, read_text

# Years of runs.
LARGEST_HISTORY = 256 * 2**20


def append(path: Path, side: Side) -> None:
    """Adds a run: commit, date, and for each model its bytes and accuracy.

    Raises
    ------
    TfpruneError
        If the folder cannot be written.
    """
    state = git_state()
    entry = {
        "commit": state["commit"] if state else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": [
            {"model": model.name, "bytes": model.bytes, "accuracy": model.accuracy}
            for model in side.models.values()
        ],
    }
    with writing(path.parent, "--history", wait=WAIT):
        known = path.read_bytes() if path.is_file() else b""
        start = b"\n" if known and not known.endswith(b"\n") else b""
        write_whole(path, known + start + json.dumps(entry).encode() + b"\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All runs.

    Raises
    ------
    TfpruneError
        If the file cannot be read, is empty, or a line is none of ours; names the line.
    """
    called = f"--history {path}"
    runs = []
    for number, line in enumerate(read_text(path, called, LARGEST_HISTORY).splitlines(), 1):
        try:
            run = parse_json(line, f"{called}, line {number}")
            sizes = {str(model["model"]): model["bytes"] for model in run["models"]}
            labels = [str(run.get(key) or "") for key in ("commit", "date")]
            if any(type(size) is not int or size < 0 for size in sizes.values()):
                raise ValueError("bytes")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TfpruneError(
                f"{called}, line {number}: expected a run of tools.compare --history"
            ) from None
        runs.append({"label": plain(labels[0] or labels[1])[:7], "models": sizes})
    if not runs:
        raise TfpruneError(f"--history {path}: expected at least one run, received none")
    return runs


def literal(text: str) -> str:
    """Text that matplotlib draws as it is: no formula, and not left out of the legend."""
    shown = plain(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def plot(path: Path, picture: Path) -> None:
    """Draws the bytes of every model over the runs.

    Raises
    ------
    TfpruneError
        If the history cannot be read, or the picture's ending is none that matplotlib draws.
    """
    from matplotlib.figure import Figure

    runs = read(path)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    kind, kinds = picture.suffix[1:].lower(), sorted(figure.canvas.get_supported_filetypes())
    if kind not in kinds:
        raise TfpruneError(f"--output {picture}: expected one of .{', .'.join(kinds)}")
    axes = figure.subplots()
    for name in sorted({name for run in runs for name in run["models"]}):
        places = [number for number, run in enumerate(runs) if name in run["models"]]
        sizes = [runs[number]["models"][name] / 1024 for number in places]
        axes.plot(places, sizes, "o-", markersize=4, label=literal(name))
    step = max(1, -(-len(runs) // 12))
    ticks = range(0, len(runs), step)
    labels = [literal(runs[number]["label"]) for number in ticks]
    axes.set_xticks(list(ticks), labels, rotation=45, ha="right")
    axes.set(xlabel="commit", ylabel="KiB", title="model sizes", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left")
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format=kind)
    write_whole(picture, drawn.getvalue())
