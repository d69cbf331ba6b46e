"""The program in a process of its own, as a user starts it: forked from one that has imported what it needs.

A process that begins with an interpreter takes seconds to import everything, a hundred times in the tests. What a
command does not import is tested in interpreters of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from lightmill import catalogs, models, pipeline
from lightmill.pipeline.execute import IMPORTS

OWN = [
    module.name
    for package in (catalogs, models, pipeline)
    for module in iter_modules(package.__path__, f"{package.__name__}.")
    if "cuda" not in module.name and not module.ispkg
]
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["distributed", *IMPORTS, *OWN])


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """Call a function of a module that can be imported in a new process; its exit code."""
    (code,) = all_at_once(function, [arguments])
    return code


def all_at_once(function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list[int]:
    """Call a function in a new process for each list of arguments; their exit codes."""
    environment = dict(os.environ)  # forks have that of the process that they are forked from
    processes = [CONTEXT.Process(target=_call, args=(environment, function, *call)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [-255 if process.exitcode is None else process.exitcode for process in processes]


def lightmill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program with these arguments."""
    command = ["lightmill", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        code = forked(_main, command, str(out), str(err))
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


def _call(environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _main(command: list[str], out: str, err: str) -> None:
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


def open_ledger_once(url: str, folder: str) -> None:
    """Open a ledger and close it; a warning is an error."""
    import warnings

    from lightmill.catalogs.ledger import open_ledger
    from lightmill.catalogs.runfolder import CatalogueFolder

    warnings.simplefilter("error")
    open_ledger(url, CatalogueFolder.at(folder)).close()


def write_units(url: str, folder: str, run_id: str, own: int, facts: dict[str, Any]) -> None:
    """Tell a ledger of 400 units of a run, four at a time; a warning is an error."""
    import warnings

    from lightmill.catalogs.ledger import open_ledger
    from lightmill.catalogs.receipts import FailedAttempt, Receipt
    from lightmill.catalogs.runfolder import CatalogueFolder

    warnings.simplefilter("error")
    with open_ledger(url, CatalogueFolder.at(folder)) as ledger:
        ledger.start_run(facts | {"run_id": run_id}, folder, 400)
        for i in range(0, 400, 4):
            mine = [Receipt(5, own * 1000 + i + k, "f", 1, 1, {}, 1, 1.0, run_id=run_id) for k in range(4)]
            ledger.record(run_id, mine, [FailedAttempt(5, own * 1000 + i, 1, "BUG", "x", "retry")])
        ledger.end_run(run_id, "complete", {"done": 400})
