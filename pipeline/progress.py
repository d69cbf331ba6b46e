"""Progress of long work on standard error: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["RunProgress", "bar"]

LOG_EVERY = 10.0  #: seconds between lines where there is no terminal


@dataclass
class RunProgress:
    """Watches a run: partitions done, light curves a second, time left (by bytes of input)."""

    console: Console
    quiet: bool = False
    _bar: Progress | None = None
    _facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        """What `run` calls with each event."""
        if not self.quiet:
            getattr(self, f"_{event}", lambda facts: None)(facts)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _planned(self, facts: dict[str, Any]) -> None:
        self._facts = {
            "todo": facts["todo"],
            "bytes": facts["bytes"],
            "done": 0,
            "done_bytes": 0,
            "curves": 0,
        }
        why = ", ".join(f"{n} {reason}" for reason, n in facts["reasons"].items())
        done = facts["partitions"] - facts["todo"] - facts["quarantined"]
        kept_out = f", {facts['quarantined']} in quarantine" if facts["quarantined"] else ""
        self.console.print(
            f"{facts['partitions']} partitions: {done} done before{kept_out}, {facts['todo']} to do"
            + (f" ({why})" if why else "")
        )

    def _resuming(self, facts: dict[str, Any]) -> None:
        if facts["todo"] != self._facts["todo"]:
            self.console.print(f"{self._facts['todo'] - facts['todo']} of these are done already in this run")
        self._facts |= {"todo": facts["todo"], "bytes": facts["bytes"]}

    def _waiting(self, facts: dict[str, Any]) -> None:
        self.console.print(
            f"{facts['holder']} holds this run: watching for {facts['seconds']:.0f} s whether it lives …",
            markup=False,
        )

    def _warning(self, facts: dict[str, Any]) -> None:
        self.console.print(facts["text"], style="yellow", markup=False, soft_wrap=True)

    def _stopping(self, facts: dict[str, Any]) -> None:
        self.console.print(
            f"{facts['signal']}: what is under way is finished first; once more stops at once", markup=False
        )

    def _starting(self, facts: dict[str, Any]) -> None:
        where = f" at {facts['scheduler']}" if facts["scheduler"] else ""
        self.console.print(f"starting {facts['workers']} workers{where} …")

    def _started(self, facts: dict[str, Any]) -> None:
        self._facts |= {"start": time.monotonic(), "logged": time.monotonic()}
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("classifying"), BarColumn(), TextColumn("{task.fields[partitions]}"),
                TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                console=self.console,
            )  # fmt: skip
            self._task = self._bar.add_task("run", total=self._facts["bytes"], **self._texts())
            self._bar.start()

    def _done(self, facts: dict[str, Any]) -> None:
        self._facts["curves"] += facts["receipt"].rows_in
        self._advance(facts["bytes"])

    def _failed(self, facts: dict[str, Any]) -> None:
        failure = facts["failure"]
        self.console.print(
            f"Norder={failure.order}/Npix={failure.pixel}, try {failure.attempt}: {failure.error_class}: "
            f"{failure.error} → {failure.decision}",
            style="red" if facts["final"] else "yellow",
            markup=False,
            soft_wrap=True,
        )
        if facts["final"]:
            self._advance(facts["bytes"])

    def _publishing(self, facts: dict[str, Any]) -> None:
        self.close()
        self.console.print(f"publishing {facts['partitions']} partitions …")

    def _advance(self, done: int) -> None:
        self._facts["done"] += 1
        self._facts["done_bytes"] += done
        if self._bar is not None:
            self._bar.update(self._task, completed=self._facts["done_bytes"], **self._texts())
        elif time.monotonic() - self._facts["logged"] > LOG_EVERY:
            self._facts["logged"] = time.monotonic()
            share = self._facts["done_bytes"] / max(self._facts["bytes"], 1)
            left = (time.monotonic() - self._facts["start"]) * (1 - share) / max(share, 1e-9)
            texts = self._texts()
            self.console.print(f"{texts['partitions']}, {texts['rate']}, {left:.0f} s left")

    def _texts(self) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._facts["start"], 1e-3)
        return {
            "partitions": f"{self._facts['done']}/{self._facts['todo']} partitions",
            "rate": f"{self._facts['curves'] / seconds:,.0f} light curves/s",
        }


@contextmanager
def bar(console: Console, what: str, quiet: bool = False) -> Iterator[Any]:
    """A bar for work that reports (done, total); gives the function to report with."""
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
