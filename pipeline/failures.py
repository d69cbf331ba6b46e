"""What can go wrong with a unit, and what is done about it: each error has a class, each class a policy."""

from __future__ import annotations

import errno
import resource
import socket
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import pyarrow as pa

from lightmill.catalogs import storage
from lightmill.catalogs.lightcurves import LayoutError
from lightmill.models.folder import BundleError

__all__ = ["POLICIES", "ErrorClass", "Fault", "InputError", "Policy", "decide", "fault_of", "reading"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM)


class ErrorClass(StrEnum):
    """Kinds of failure."""

    INPUT_CORRUPT = "INPUT_CORRUPT"  #: what is there cannot be read
    SCHEMA = "SCHEMA"  #: it can, but has other columns
    OOM = "OOM"  #: needs more memory than a worker has
    WORKER_LOST = "WORKER_LOST"  #: its worker died
    IO_TRANSIENT = "IO_TRANSIENT"  #: a file system or network did not answer as it should
    MODEL = "MODEL"  #: a bundle is not what was planned
    BUG = "BUG"  #: anything else: ours
    TIMEOUT = "TIMEOUT"  #: not done in the time allowed


@dataclass(frozen=True)
class Policy:
    """What is done about a class of errors."""

    tries: int  #: that may fail so, before the unit is given up
    backoff: float = 0.0  #: before the second try [s]; twice as long before each further one
    halve: bool = False  #: the next try holds half as many epochs in memory
    alone: bool = False  #: the next try runs when nothing else does
    quarantine: bool = True  #: given up, later runs leave it alone until it changes or is released


POLICIES: dict[ErrorClass, Policy] = {
    ErrorClass.INPUT_CORRUPT: Policy(tries=1),
    ErrorClass.SCHEMA: Policy(tries=1),
    ErrorClass.OOM: Policy(tries=3, halve=True, alone=True),
    ErrorClass.WORKER_LOST: Policy(tries=3, alone=True),  # counted alone: in company nobody is blamed
    ErrorClass.IO_TRANSIENT: Policy(tries=4, backoff=2.0, quarantine=False),
    ErrorClass.MODEL: Policy(tries=1, quarantine=False),
    ErrorClass.BUG: Policy(tries=2),
    ErrorClass.TIMEOUT: Policy(tries=2, alone=True),
}


@dataclass(frozen=True)
class Fault:
    """An error as a worker tells it: plain words, because not every exception can be sent."""

    error_class: ErrorClass
    error: str  #: class and message, one line
    host: str = ""
    peak_rss_bytes: int = 0
    stops: bool = False  #: every other unit would fail too: no room to write, or no permission
    trace: str = ""  #: where it happened

    def __str__(self) -> str:
        return f"{self.error_class}: {self.error}"


class InputError(Exception):
    """An error while the input was read; `__cause__` is what it was."""


Item = TypeVar("Item")


def reading(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; an error of their source becomes an InputError, so that it is not taken for one of ours."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            raise InputError(str(error)) from error
        yield item


def fault_of(error: BaseException) -> Fault:
    """The error class of an exception, and the rest of what the driver should know."""
    cause = error.__cause__ if isinstance(error, InputError) and error.__cause__ else error
    text = " ".join(str(cause).split()) or "no message"
    stops = not isinstance(error, InputError) and getattr(cause, "errno", None) in (*NO_ROOM, *NO_PERMISSION)
    return Fault(
        error_class=_class_of(cause, of_input=isinstance(error, InputError)),
        error=f"{type(cause).__name__}: {text}"[:2000],
        host=socket.gethostname(),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        stops=stops,
        trace="".join(traceback.format_exception(error))[-8000:],
    )


def _class_of(error: BaseException, of_input: bool) -> ErrorClass:
    if isinstance(error, MemoryError):  # Arrow's too
        return ErrorClass.OOM
    if isinstance(error, LayoutError):
        return ErrorClass.SCHEMA
    if isinstance(error, BundleError):
        return ErrorClass.MODEL
    if of_input and isinstance(error, pa.ArrowException | FileNotFoundError | EOFError | UnicodeDecodeError):
        return ErrorClass.INPUT_CORRUPT
    if isinstance(error, TimeoutError | ConnectionError):
        return ErrorClass.IO_TRANSIENT
    if isinstance(error, OSError):
        # Arrow tells of a damaged page by an OSError without a number
        return ErrorClass.IO_TRANSIENT if error.errno or not of_input else ErrorClass.INPUT_CORRUPT
    return ErrorClass.IO_TRANSIENT if storage.of_network(error) else ErrorClass.BUG


@dataclass(frozen=True)
class Decision:
    """What happens next to a unit that failed."""

    name: str  #: "retry", "halve", "alone", "quarantine", "failed"
    wait: float = 0.0  #: before it is tried again [s]
    batch_epochs: int = 0
    alone: bool = False

    @property
    def again(self) -> bool:
        """Whether it is tried again."""
        return self.name in ("retry", "halve", "alone")


def decide(error_class: ErrorClass, failed_so: int, batch_epochs: int, *, to_blame: bool = True) -> Decision:
    """What is done about a unit that failed.

    Parameters
    ----------
    failed_so : tries of this unit that failed with this class and were to blame for it, this one included
    batch_epochs : that it was tried with
    to_blame : False for who was with a worker that died, among others: tried again alone, and not counted
    """
    policy = POLICIES[error_class]
    if not to_blame:
        return Decision("alone", batch_epochs=batch_epochs, alone=True)
    if failed_so >= policy.tries:
        return Decision("quarantine" if policy.quarantine else "failed")
    wait = policy.backoff * 2 ** (failed_so - 1)
    half = max(batch_epochs // 2, 1) if policy.halve else batch_epochs
    name = "halve" if policy.halve else "alone" if policy.alone else "retry"
    return Decision(name, wait=wait, batch_epochs=half, alone=policy.alone)
