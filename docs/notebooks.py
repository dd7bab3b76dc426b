"""Runs the tutorials from start to end and keeps what they show: ``python -m docs.notebooks``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted(Path(__file__).parent.glob("*.ipynb"))
# A cell that takes longer hangs.
SECONDS = 300


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run in a folder, which gets all the files it writes.

    The package is that of this checkout, and so is the command ``tfprune``.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    programs = folder / "bin"
    programs.mkdir()
    command = programs / "tfprune"
    call = "import sys; from tfprune.cli.main import main; sys.exit(main())"
    command.write_text(f"#!{sys.executable}\n{call}\n", encoding="utf-8")
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        # Nothing of the settings and start-up files that the user has for programs of their own.
        "IPYTHONDIR": str(folder / "ipython"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TFPRUNE_CACHE": str(folder / "cache"),
    }
    # Figures are shown in the notebook, whatever programs without a screen were told.
    environment.pop("MPLBACKEND", None)
    client = NotebookClient(
        notebook, timeout=SECONDS, startup_timeout=SECONDS, coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute(env=environment)
    return notebook


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what differs between machines: times, warnings, their paths."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for data in (out.data for out in cell.outputs if "data" in out):
                if len(data) > 1:  # A table or a figure needs no text beside it.
                    data.pop("text/plain", None)
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"},
    }  # fmt: skip
    return notebook


def main() -> None:
    """Runs all, and writes them back."""
    named = [path for path in TUTORIALS if path.name in sys.argv[1:]]
    for path in named or TUTORIALS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(cleaned(executed(path, Path(folder))), path)


if __name__ == "__main__":
    main()
