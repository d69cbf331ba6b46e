"""What is written: examples run, every command shows one, and every public name says what it is."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lightmill.pipeline.cli import app

ROOMS = ("pipeline", "catalogs", "models", "cluster")


def modules() -> list[str]:
    found = []
    for room in ROOMS:
        package = importlib.import_module(f"lightmill.{room}")
        found += [f"lightmill.{room}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    return sorted(found)


MODULES = modules()
COMMANDS = sorted(get_command(app).commands)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = [
        example
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(examples) >= 3


@pytest.mark.parametrize("name", MODULES)
def test_public_names_say_what_they_are(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_exported_is_there(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    assert [public for public in exported if not hasattr(module, public)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command):
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"lightmill {command}" in get_command(app).commands[command].help


def test_the_commands_are_listed():
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    assert {"import", "simulate", "train", "evaluate", "run", "query", "report"} <= set(COMMANDS)
    for command in COMMANDS:
        assert command in done.output
