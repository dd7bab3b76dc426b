"""The model card, from manifests of what export made and of what it may make."""

from __future__ import annotations

import copy

from tfprune.job.model_card import card, licence


def test_every_export_has_a_card_of_its_figures(shipped):
    folder, manifest = shipped
    text = (folder / "cnn.md").read_text()
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert head == ["file", "variant", "scheme", "bytes", "accuracy %", "agreement %", "p10 us"]
    assert rows == [
        [
            f"`{entry['file']}`", entry["variant"], entry["scheme"], f"{entry['bytes']:,}",
            f"{100 * entry['accuracy']:.2f}", f"{100 * entry['agreement']:.2f}",
            f"{entry['latency_us']['p10']:.1f}",
        ]
        for entry in manifest["artifacts"]
    ]  # fmt: skip
    (layer,) = manifest["prune"]["layers"]
    gone = layer["units_before"] - layer["units_after"]
    assert f"{gone} of 32 units are gone (layers: hidden)" in text
    assert "1,318 samples to train, 1,318 of them to calibrate, 120 to choose, 359 to test" in text
    assert "CC BY 4.0" in text
    assert "UCI" in text
    assert f"`{manifest['test_data']['file']}` holds 60 of the test samples" in text
    assert "Not tried: `--c-array`" in text
    assert " ".join(manifest["command"]) in text


def test_licences_are_those_of_known_data_alone():
    assert "CC BY-SA 3.0" in licence("mnist", own=False)
    assert licence("mnist", own=True) is None
    assert licence("faces", own=False) is None


def test_what_is_not_known_is_said(shipped):
    manifest = copy.deepcopy(shipped[1])
    manifest["dataset"] |= {"name": "my | data\nset", "licence": None}
    manifest["prune"]["layers"] = []
    del manifest["test_data"]
    for entry in manifest["artifacts"]:
        entry.pop("accuracy")
    text = card(manifest)
    assert "- Licence: not known." in text
    assert r"my &#124; data&#92;nset" in text
    assert "accuracy" not in text
    assert "nothing was found to prune" in text
    assert "Digits are" not in text
    assert "data of your own" in text


def test_microcontrollers_have_their_lines(shipped):
    manifest = copy.deepcopy(shipped[1])
    file = manifest["artifacts"][3]["file"]
    manifest["artifacts"][3]["arena_bytes"] = 9_876
    tried = {"file": file, "samples": 16, "values": 160, "different": 2, "steps": 1.0}
    verdict = {"file": file, "verdict": "does not fit, 1 B of RAM too little"}
    manifest["microcontrollers"] = {
        "tflite_micro": "0.1",
        "files": [tried | {"kernels": "reference", "c_array": ["cnn_int8.h", "cnn_int8.cc"]}],
        "devices": [{"name": "b", "ram_bytes": 9_875, "flash_bytes": 10**6, "files": [verdict]}],
    }
    text = card(manifest)
    assert "2 of 160 values differ, by up to 1 steps" in text
    assert f"- `{file}` does not fit, 1 B of RAM too little." in text
    assert "| 9,876 |" in text
    assert '#include "cnn_int8.h"' in text
    assert "arena[CNN_INT8_ARENA_SIZE]" in text
