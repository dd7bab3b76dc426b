"""The tables of options: what ``--help``, the docs and the messages say of them."""

from __future__ import annotations

import re

import pytest

from tfprune.cli import export, sweep
from tfprune.cli.flags import help_text, read
from tfprune.errors import TfpruneError
from tfprune.job.config import JobConfig
from tfprune.sweep.config import SweepConfig
from tfprune.utils.option_table import COMMON, GROUPS, options
from tools import options_table

TABLES = options_table.TABLES
RANGE = "expected a number of degrees between 0 and 90, received '95'"


def test_the_docs_are_those_of_the_tables():
    expected = "written by python -m tools.options_table"
    assert options_table.PAGE.read_text(encoding="utf-8") == options_table.page(), expected


@pytest.mark.parametrize("name", TABLES)
def test_every_option_is_described(name):
    for option in options(TABLES[name]):
        assert option.group in GROUPS
        assert re.fullmatch(r"\S.*\.", option.help)
        # A value that is right already stays as it is.
        if option.default not in (None, ()):
            assert option.check(option.default, option.flag) == option.default


@pytest.mark.parametrize(("command", "table"), [(export, JobConfig), (sweep, SweepConfig)])
def test_help_shows_flags_as_they_are_typed(command, table, capsys):
    name = command.__name__.replace("tfprune.cli", "tools")
    assert command.main(["--help"], name) == command.main(["--prun", "-h"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: python -m {name} [NAME|FILE] [flags]\n")
    assert f"\nUsage: tfprune {name.removeprefix('tools.')} [NAME|FILE] [flags]\n" in shown
    typed = re.findall(r"(?m)^  (--\S+)", shown[: len(shown) // 2])
    assert sorted(typed) == sorted(option.flag for option in options(table))
    assert not any("_" in flag for flag in typed)


def test_help_begins_with_what_most_people_need():
    shown = help_text(JobConfig, "What it does.", "export")
    places = [shown.index(f"\n{group}:\n") for group in GROUPS if f"\n{group}:\n" in shown]
    assert places == sorted(places)
    common = [option.flag for option in options(JobConfig) if option.group == COMMON]
    assert re.findall(r"(?m)^  (--\S+)", shown)[: len(common)] == common
    assert {"--prune", "--remove", "--model", "--data"} <= set(common)


def test_values_behind_a_space_or_an_equals_sign():
    words = ["--target_bytes=20000", "--compat", "--layers", "a,b", "--json", "FALSE"]
    config = read(JobConfig, [*words, "--output", "-", "--data=--x=y"], "export")
    assert (config.target_bytes, config.compat, config.json) == ("20000", "true", "FALSE")
    assert (config.layers, config.output, config.data) == ("a,b", "-", "--x=y")
    right = config.validate()
    assert (right.target_bytes, right.compat, right.json) == (20000, True, False)
    assert right.layers == ("a", "b")
    assert right.validate() == right


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prune": "95"}, f"--prune: {RANGE}"),
        ({"schemes": "int3"}, "--schemes: expected some of float32"),
        ({"centre": "middle"}, "--centre: expected auto"),
        ({"select": "best"}, "--select: expected one of angle, span"),
        ({"select": "effect"}, "--select effect: needs a share to remove"),
        ({"max_drop": "1", "select": "span"}, "--select: --max-drop knows effect only"),
        ({"max_drop": "1", "fold": "scaled"}, "--fold: .* with --max-drop, received 'scaled'"),
        ({"target_macs": "2k"}, "--target-macs: expected a share such as 50%"),
        ({"test_data": "0"}, "--test-data: expected a whole number from 1 "),
        ({"json": "yes"}, "--json: expected true or false, received 'yes'"),
    ],
)
def test_messages_name_what_was_typed(asked, said):
    with pytest.raises(TfpruneError, match=f"^{said}"):
        JobConfig(**asked).validate()
    with pytest.raises(TfpruneError, match=f"^--degrees: {RANGE}"):
        SweepConfig(degrees="10,95").validate()


def test_the_search_for_a_drop_knows_no_target():
    prune_options = JobConfig(max_drop="0.5", heal=3).validate().options
    assert (prune_options.max_drop, prune_options.target) == (0.5, None)
    assert (prune_options.select, prune_options.by_count) == ("effect", True)
