"""A short run of the campaign of damaged and hostile files; the long one is benchmarks.attack."""

from __future__ import annotations

import random

import pytest

from benchmarks.attack import Subject, attack, campaign, mutant
from benchmarks.attack_kills import killed_updates
from tfprune.errors import TfpruneError


def test_every_reader_reads_or_refuses(tmp_path):
    tallies = campaign(mutants=150, seed=11)
    assert {name: tally.faults for name, tally in tallies.items() if tally.faults} == {}
    # Both happen, or the mutants are too wild or too tame to try anything.
    assert all(tally.refused and tally.read for tally in tallies.values())


def test_an_update_that_is_killed_leaves_a_whole_folder():
    assert killed_updates(kills=3, seed=11).faults == []


@pytest.mark.slow
def test_every_reader_reads_or_refuses_at_length():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)  # noqa: T201
    tallies = campaign(mutants=10_000, seed=seed, kills=20)
    assert {name: tally.faults for name, tally in tallies.items() if tally.faults} == {}


def test_what_a_reader_raises_beside_its_error_is_counted():
    def reader(path):
        content = path.read_bytes()
        if b"0" in content:
            raise KeyError("0")
        if len(content) < 50:
            raise TfpruneError("short")

    tally = attack(Subject("x", b"1" * 60, ".txt", reader, text=True), 300, 0)
    assert tally.tried == 300
    assert tally.read
    assert tally.refused
    assert any("KeyError" in fault for fault in tally.faults)


def test_mutants_follow_their_seed():
    first, second = (mutant(b"a" * 100, random.Random("5"), text=True) for _ in range(2))
    assert first == second != b"a" * 100
