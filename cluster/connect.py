"""A Dask cluster that somebody else started, reached by the address of its scheduler or its scheduler file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, Scheduler

from lightmill.cluster.local import local_cluster

__all__ = ["cluster"]

TIMEOUT = 60.0  #: for the scheduler, and for its first worker [s]


@contextmanager
def cluster(
    workers: int, scheduler: str | None = None, memory: int | None = None, imports: Sequence[str] = ()
) -> Iterator[Client]:
    """A client of a cluster of our own with so many workers, or of the one at an address.

    Parameters
    ----------
    memory : of each worker of our own [bytes]; None: its share of this machine's
    imports : modules that workers of our own need, see `local.local_cluster`
    scheduler : tcp://host:port, tls://host:port, or the path of a scheduler file; None: processes of this machine

    Raises
    ------
    OSError, TimeoutError
        if nobody answers there, or no worker comes.
    """
    if scheduler is None:
        with local_cluster(workers, memory, imports) as client:
            yield client
        return
    given = {"address": scheduler} if "://" in scheduler else {"scheduler_file": str(Path(scheduler))}
    with Client(**given, timeout=TIMEOUT, set_as_default=False) as client:
        client.run_on_scheduler(_ours)
        client.wait_for_workers(1, timeout=TIMEOUT)
        yield client


def _ours(dask_scheduler: Scheduler) -> None:
    """What `local.CONFIG` says, of a scheduler that is there already."""
    dask_scheduler.allowed_failures = 0
    stealing = dask_scheduler.extensions.get("stealing")
    if stealing is not None:
        dask_scheduler.loop.add_callback(stealing.stop)
