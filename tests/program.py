"""The program in a process of its own, as a user starts it: forked from one that has imported what it needs.

A process that begins with an interpreter takes seconds to import everything, a hundred times in the tests. What a
command does not import is tested in interpreters of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lightmill.pipeline.execute import IMPORTS

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["distributed", *IMPORTS, "lightmill.pipeline.cli"])


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """Call a function of a module that can be imported in a new process; its exit code."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def lightmill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program with these arguments."""
    command = ["lightmill", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        code = forked(_main, command, str(out), str(err), dict(os.environ))
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


def _main(command: list[str], out: str, err: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for target, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), target)
    sys.argv = command
    from lightmill.pipeline.cli import main

    main()


def publish_and_die(step: str, when: str, root: str) -> None:
    """Publish the newest run of a catalogue; SIGKILL before or after a step of it: its name, or name:which call."""
    import signal

    from lightmill.catalogs import publish as publishing
    from lightmill.catalogs.runfolder import CatalogueFolder

    step, _, which = step.partition(":")
    real, calls = getattr(publishing, step), []

    def die(*arguments: Any, **keywords: Any) -> Any:
        calls.append(step)
        if len(calls) < int(which or 1):
            return real(*arguments, **keywords)
        if when == "after":
            real(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(publishing, step, die)
    catalogue = CatalogueFolder.at(root)
    publishing.publish(catalogue, catalogue.runs()[:1], catalogue_name="tiny", provenance={})
