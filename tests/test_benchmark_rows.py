"""Rows of benchmarks, made by one process or shared out among several."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks.rows import Rows, add_workers, sharing
from tests.support.pieces import placed, squares

TASKS = [{"number": number} for number in range(6)]
EXPECTED = [{"number": n, "power": p, "value": n**p} for n in range(6) for p in (2, 3)]


def written(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("workers", [None, 2])
def test_rows_are_the_same_whoever_makes_them(workers, tmp_path):
    file = tmp_path / "made" / "rows.jsonl"
    rows = Rows(file, ("number", "power"))
    with sharing(workers) as share_out:
        share_out.add(rows, squares, TASKS)
    made = written(file)
    assert sorted(made, key=lambda row: (row["number"], row["power"])) == EXPECTED
    if workers is None:
        assert made == EXPECTED
    again = Rows(file, ("number", "power"))
    assert all(again.has(row["number"], row["power"]) for row in EXPECTED)
    assert again.like(number=3) == EXPECTED[6:8]


@pytest.mark.parametrize("workers", [None, 1])
def test_what_was_made_before_a_mistake_is_written(workers, tmp_path):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(SystemExit, match="no such number"), sharing(workers) as share_out:
        share_out.add(Rows(file, ("number", "power")), squares, [*TASKS[:2], {"number": -1}])
    assert written(file) == EXPECTED[:4]


def test_a_program_that_ends_is_told(monkeypatch):
    """As benchmarks do where a file is missing that a variable should name."""
    monkeypatch.delenv("TFPRUNE_TEST_PLACE", raising=False)
    for workers in (None, 1):
        with pytest.raises(SystemExit, match="set TFPRUNE_TEST_PLACE"), sharing(workers) as share:
            share.add(Rows(None, ["place"]), placed, [{}])


def test_workers_are_a_number_or_an_address(capsys):
    parser = argparse.ArgumentParser()
    add_workers(parser)
    assert [
        parser.parse_args(words).workers
        for words in ([], ["--workers", "2"], ["--workers", "tcp://10.0.0.1:8786"])
    ] == [None, 2, "tcp://10.0.0.1:8786"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--workers", "none"])
    assert "argument --workers: expected a whole number" in capsys.readouterr().err
