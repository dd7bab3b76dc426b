"""``python -m tools.example``: makes the small set of files that the repository brings along."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tfprune.cli.command import main

# What stands in exported/example/: the file to compare with and the smallest.
KEPT = (("original", "float32"), ("pruned", "int8"))
COMMAND = (
    "python -m tools.export --prune 30 --dataset mnist --seed 0 --schemes float32,int8 "
    "--test-data 100 --device arduino-uno-r4,raspberry-pi-pico,stm32-blue-pill"
)


def options() -> type[Any]:
    """The table of the options."""
    from dataclasses import dataclass

    from tfprune.utils.checks import text
    from tfprune.utils.option_table import COMMON, option

    @dataclass(frozen=True)
    class ExampleConfig:
        data: str | None = option(
            None, text, COMMON, "FILE.npz", "MNIST, else TFPRUNE_MNIST, Keras' cache or a download."
        )
        output: str = option("exported/example", text, COMMON, "FOLDER", "The folder to write to.")

    return ExampleConfig


def example(config: Any, command: list[str]) -> None:
    """Exports the built-in CNN on MNIST, and keeps two files, 100 samples, manifest and card.

    Needs MNIST and requirements-tflm.txt.
    """
    import json
    import tempfile
    from dataclasses import replace
    from pathlib import Path

    from tfprune.cli.flags import read
    from tfprune.errors import TfpruneError
    from tfprune.job.config import JobConfig
    from tfprune.output_folder.run_files import MANIFEST, leftovers, listed
    from tfprune.output_folder.staging import staging
    from tfprune.utils.console import quiet
    from tfprune.utils.environment import start_keras

    job = read(JobConfig, COMMAND.split()[3:], "tools.export")
    job = replace(job, data=config.data).validate()
    start_keras()
    with quiet():
        from tfprune.job.pipeline import run
    from tfprune.job.model_card import card

    folder = Path(config.output)

    def obsolete(written: Sequence[str]) -> list[str]:
        return leftovers(folder, written, _say)

    with (
        tempfile.TemporaryDirectory() as made,
        staging(folder, MANIFEST, obsolete=obsolete) as stage,
    ):
        outcome = run(replace(job, output=made), COMMAND.split(), _say)
        if outcome.failed:
            raise TfpruneError(f"not written: {outcome.failed[0]}")
        manifest = kept(json.loads(Path(made, MANIFEST).read_text(encoding="utf-8")))
        names = [entry["file"] for entry in manifest["artifacts"]]
        for name in (*names, manifest["test_data"]["file"]):
            (stage / name).write_bytes(Path(made, name).read_bytes())
        (stage / f"{manifest['model']['name']}.md").write_text(
            card(manifest), encoding="utf-8", errors="backslashreplace"
        )
        manifest["files"] = listed(stage)
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def kept(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the files that stay."""
    artifacts = [e for e in manifest["artifacts"] if (e["variant"], e["scheme"]) in KEPT]
    names = {entry["file"] for entry in artifacts}
    test, micro = manifest["test_data"], manifest["microcontrollers"]
    scores = {file: score for file, score in test["scores"].items() if file in names}

    def among(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry for entry in entries if entry["file"] in names]

    more: dict[str, Any] = {}
    if "classes" in manifest:
        right = manifest["classes"]["right"]
        right = {file: counts for file, counts in right.items() if file in names}
        more["classes"] = {**manifest["classes"], "right": right}
    return {
        **manifest,
        **more,
        "artifacts": artifacts,
        "test_data": {**test, "scores": scores},
        "microcontrollers": {
            **micro,
            "files": among(micro["files"]),
            "devices": [{**one, "files": among(one["files"])} for one in micro["devices"]],
        },
    }


def _say(line: str) -> None:
    print(f"tfprune: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(example, options, None, "tools.example"))
