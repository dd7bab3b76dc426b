"""Writes the model card, which explains a folder of files, from the manifest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.tflite.schemes import SCHEMES
from tfprune.utils.escapes import code, markdown, plain
from tfprune.utils.figures import score_text

# By the names of data sets that the package knows.
LICENCES = {
    "mnist": "MNIST (Y. LeCun, C. Cortes, C. Burges), commonly given as CC BY-SA 3.0",
    "digits": "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine "
    "Learning Repository), CC BY 4.0, as scikit-learn brings it along",
}
_METRICS = {"accuracy": "accuracy %", "mse": "mse", "agreement": "agreement %"}


def licence(name: str, own: bool) -> str | None:
    """Under which licence data is, None where it is the user's own."""
    return None if own else LICENCES.get(name)


def card(manifest: dict[str, Any]) -> str:
    """A model card in Markdown.

    Parameters
    ----------
    manifest : dict
        As :func:`tfprune.job.manifest.manifest` makes it.
    """
    parts = [
        _what(manifest),
        *_warnings(manifest),
        _data(manifest),
        _figures(manifest),
        _on_computers(manifest),
        _on_microcontrollers(manifest),
        _limits(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _what(manifest: dict[str, Any]) -> str:
    prune, files = manifest["prune"], manifest["artifacts"]
    before = sum(layer["units_before"] for layer in prune["layers"])
    after = sum(layer["units_after"] for layer in prune["layers"])
    names = ", ".join(markdown(layer["name"]) for layer in prune["layers"])
    gone = f"{before - after} of {before} units are gone (layers: {names})"
    said = "nothing was found to prune" if not prune["layers"] else gone
    kinds = {"original": "as trained", "finetuned": "trained longer", "pruned": "smaller"}
    schemes: dict[str, list[str]] = {}
    for entry in files:
        schemes.setdefault(entry["variant"], []).append(entry["scheme"])
    text = [
        f"# {markdown(manifest['model']['name'])}",
        "A Keras model as TFLite files: "
        + "; ".join(f"`{name}` ({kinds[name]}): {', '.join(schemes[name])}" for name in schemes)
        + f". In the pruned one {said}: hidden units that do the same work as others, or nothing; "
        "the weights that read them are corrected.",
        f"Made by tfprune {manifest['versions']['tfprune']} on {manifest['created'][:10]} with\n\n"
        f"    {plain(' '.join(manifest['command']))}",
    ]
    return "\n\n".join(text)


def _warnings(manifest: dict[str, Any]) -> list[str]:
    warnings = manifest.get("warnings", ())
    lines = [f"- {markdown(one['message'])}." for one in warnings]
    return ["## Warnings\n\n" + "\n".join(lines)] if lines else []


def _data(manifest: dict[str, Any]) -> str:
    data = manifest["dataset"]
    lines = [
        "## Data",
        "",
        f"- {code(data['name'])}: {data['train']:,} samples to train, {data['calibration']:,} "
        f"of them to calibrate, {data['validation']:,} to choose, {data['test']:,} to test.",
        f"- Licence: {data.get('licence') or 'not known'}.",
        f"- SHA-256: `{data['sha256']}`.",
    ]
    return "\n".join(lines + [f"- {markdown(note)}." for note in data["notes"]])


def _figures(manifest: dict[str, Any]) -> str:
    files = manifest["artifacts"]
    metrics = [name for name in _METRICS if any(e.get(name) is not None for e in files)]
    arena = any(entry.get("arena_bytes") is not None for entry in files)
    head = ["file", "variant", "scheme", "bytes", *(_METRICS[name] for name in metrics)]
    head += ["p10 us", *["arena bytes"] * arena]
    rows = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for entry in files:
        p10 = entry["latency_us"].get("p10")
        rows.append(
            [code(entry["file"]), entry["variant"], entry["scheme"], f"{entry['bytes']:,}"]
            + [score_text(name, entry.get(name)) for name in metrics]
            + ["" if p10 is None else f"{p10:.1f}"]
            + ([_count(entry.get("arena_bytes"))] if arena else [])
        )
    table = "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)
    return (
        f"## Figures\n\n{table}\n\nScores are those of the files themselves in LiteRT, on all test "
        "data; agreement is the share of decisions (of a sample, or of every pixel or position of "
        "it) that are the unpruned float model's, or of values the share of their variance that "
        "is there. The 10th percentile of an invocation is that of one thread of the machine that "
        "made the files, not of a device."
    )


def _on_computers(manifest: dict[str, Any]) -> str:
    test = manifest.get("test_data")
    first = manifest["artifacts"][-1]["file"]
    samples = test["file"] if test else "test.npz"
    has = (
        f"{code(samples)} holds {test['samples']} of the test samples; `manifest.json` has the "
        "scores on them under `test_data`."
        if test
        else f"{code(samples)} is data of your own; `--test-data 100` would have put some here."
    )
    return "\n".join(
        [
            "## On a Raspberry Pi or another computer",
            "",
            "With numpy, `ai-edge-litert` and tfprune's `tools/run.py`, which needs nothing else:",
            "",
            f"    python run.py {plain(first)} --data {plain(samples)}",
            "",
            f"{has} tfprune's README says what a 32-bit system needs.",
            "",
            "## On a phone",
            "",
            "LiteRT runs the same files (`com.google.ai.edge.litert` on Android, `LiteRTSwift` or "
            "`TensorFlowLiteSwift` on iOS). Integer inputs are quantised by the scale and zero "
            "point that the file gives for them; outputs likewise.",
        ]
    )


def _on_microcontrollers(manifest: dict[str, Any]) -> str:
    head = "## On a microcontroller\n\n"
    micro = manifest.get("microcontrollers")
    if not micro:
        return head + (
            "Not tried: `--c-array` writes the int8 files as C for TensorFlow Lite Micro and "
            "measures the memory that they need, `--device` says whether they fit."
        )
    lines = [
        f"TensorFlow Lite Micro ({micro['tflite_micro']}) ran the int8 files on a PC, in the arena "
        "of the table, and was held against LiteRT:",
        "",
    ]
    for entry in micro["files"]:
        equal = f"{entry['values']} of {entry['values']} values are equal"
        apart = (
            f"{entry['different']} of {entry['values']} values differ, by up to "
            f"{entry['steps']:g} steps"
        )
        lines.append(
            f"- {code(entry['file'])}: {apart if entry['different'] else equal} "
            f"({entry['samples']} samples, {entry['kernels']} kernels)."
        )
    arrays = [entry["c_array"][0] for entry in micro["files"] if "c_array" in entry]
    if arrays:
        lines += ["", *_sketch(arrays[-1])]
    for device in micro["devices"]:
        lines += ["", f"{plain(device['name'])}, {device['ram_bytes']:,} B of RAM and "]
        lines[-1] += f"{device['flash_bytes']:,} B of flash (file and arena alone are counted):"
        lines.append("")
        lines += [f"- {code(file['file'])} {file['verdict']}." for file in device["files"]]
    return head + "\n".join(lines)


def _sketch(header: str) -> list[str]:
    name = Path(header).stem
    upper = name.upper()
    return [
        "```cpp",
        '#include "tensorflow/lite/micro/micro_interpreter.h"',
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
        f'#include "{header}"',
        "",
        f"alignas(16) static uint8_t arena[{upper}_ARENA_SIZE];",
        f"static tflite::MicroMutableOpResolver<{upper}_OPERATORS> resolver;",
        "",
        f"bool added = {upper}_ADD_OPERATORS(resolver);",
        f"static tflite::MicroInterpreter interpreter(tflite::GetModel({name}_data), resolver,",
        "                                             arena, sizeof arena);",
        "bool ready = added && interpreter.AllocateTensors() == kTfLiteOk;",
        "// Fill interpreter.input(0)->data.int8, call interpreter.Invoke(), read output(0).",
        "```",
    ]


def _limits(manifest: dict[str, Any]) -> str:
    lines = [
        "## Limits",
        "",
        "- The figures hold for data like the test data; nothing was tried on other data.",
        "- An int8 output may differ by a step from one processor to another.",
    ]
    if manifest["dataset"]["name"] in LICENCES and manifest["dataset"].get("licence"):
        lines.append(
            "- Digits are to be drawn bright on dark, centred, of 28x28 pixels, as in the data; "
            "a model always names one of ten digits, whatever the picture shows."
        )
    lines += [
        f"- Not written: {plain(one['variant'])} {plain(one['scheme'])}: {plain(one['reason'])}."
        for one in manifest.get("failed", [])
    ]
    micro = {name for name, scheme in SCHEMES.items() if scheme.micro_runs}
    refused = sorted({entry["scheme"] for entry in manifest["artifacts"]} - micro)
    if refused:
        lines.append(f"- TensorFlow Lite Micro cannot run these: {', '.join(refused)}.")
    return "\n".join(lines)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _cell(text: str) -> str:
    return text if text.startswith("`") else text.replace("|", "\\|")
