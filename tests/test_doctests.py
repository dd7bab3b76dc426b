"""The examples of the docstrings: each public name has one that runs by itself."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import warnings
from importlib import import_module

import pytest

import tfprune
from tests.support.paths import ROOT
from tfprune.graph import user_rules

PUBLIC = [*tfprune.__all__, "Pruner.prune"]
CORE = sorted(module.name for module in pkgutil.iter_modules([str(ROOT / "tfprune" / "core")]))
HEADING = "Examples\n--------\n"


def holds(test: doctest.DocTest) -> None:
    """Runs a docstring's examples, in which nothing may warn."""
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfprune.PruningWarning)
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def alone(value: object, name: str) -> doctest.DocTest:
    """The examples of one docstring, which know no name that they do not import."""
    (test,) = doctest.DocTestFinder(recurse=False).find(value, name, globs={})
    return test


@pytest.fixture
def _own_rules(monkeypatch):
    """Layers that an example registers are forgotten after it."""
    monkeypatch.setattr(user_rules, "USER_RULES", dict(user_rules.USER_RULES))


@pytest.mark.usefixtures("_own_rules")
@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_has_an_example_that_holds(name):
    value = tfprune
    for part in name.split("."):
        value = getattr(value, part)
    test = alone(value, name)
    assert test.examples, f"{name} has no example"
    assert HEADING in inspect.cleandoc(test.docstring)
    assert not any(doctest.SKIP in example.options for example in test.examples)
    holds(test)


def test_the_example_of_the_package_holds():
    test = alone(tfprune, "tfprune")
    assert test.examples
    assert not any(doctest.SKIP in example.options for example in test.examples)
    holds(test)


@pytest.mark.parametrize("name", CORE)
def test_the_examples_of_the_core_hold(name):
    module = import_module(f"tfprune.core.{name}")
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        holds(test)


def test_the_core_has_examples():
    tests = {
        name: doctest.DocTestFinder().find(import_module(f"tfprune.core.{name}")) for name in CORE
    }
    shown = {name for name, found in tests.items() if any(test.examples for test in found)}
    assert shown >= {"fold", "moments", "selection", "unit_group"}
