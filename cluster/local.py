"""A Dask cluster of processes on this machine: one thread a worker, reachable from this machine only.

Workers are forked by a server process that has imported what they need, and does nothing else: it runs no thread and no
network when it forks. A worker is there in a fraction of a second, also after one was lost, and all share the memory
of the libraries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

__all__ = ["available_cores", "local_cluster"]

CONFIG = {
    # one partition is one task: a task that moved to another worker would be read twice
    "distributed.scheduler.work-stealing": False,
    # a partition that kills its worker is told apart by the driver, which tries again on its own terms
    "distributed.scheduler.allowed-failures": 0,
    # never "fork": what the driver runs (threads, TensorFlow) does not survive it
    "distributed.worker.multiprocessing-method": "forkserver",
    # partitions are large: memory that Python holds back is no reason to pause a worker
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

ENVIRONMENT = {
    # one process a core: libraries that start threads of their own would only get in each other's way
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


@contextmanager
def local_cluster(workers: int, memory: int | None = None, imports: Sequence[str] = ()) -> Iterator[Client]:
    """A client of a cluster of `workers` processes, which end with the context.

    Parameters
    ----------
    memory : of each worker [bytes]; None: its share of this machine's
    imports : modules that the workers need, imported once for all of them. The first cluster of a process decides;
        workers of later ones import what is missing.
    """
    environment = dask.config.get("distributed.nanny.pre-spawn-environ", {}) | ENVIRONMENT
    with dask.config.set({**CONFIG, "distributed.nanny.pre-spawn-environ": environment}):
        get_mp_context().set_forkserver_preload(["distributed", *imports])
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=memory if memory is not None else "auto",
                processes=True,
                host="127.0.0.1",
                # any free port: None means 8787, and a warning where another run on this host has it
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
                # as it is now, not as it was when the server of forks began
                env=os.environ | environment,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
