"""`pipeline/warmup.py`: kernels compiled by two processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightmill.pipeline import warmup

WORK = """
import numpy as np
from numba.core.registry import CPUDispatcher
from lightmill import pipeline
from lightmill.models import choice
from lightmill.pipeline import candidates, warmup
from lightmill.pipeline.choose import Finder
from lightmill.pipeline.clean import clean
from lightmill.pipeline.features import statistics
from lightmill.pipeline.full import FULL
from lightmill.pipeline.represent import represent
from tests.test_kernels import kernels

compiled = {name: list(kernel.signatures) for name, kernel in kernels().items()}
assert not any(compiled.values())
warmup.warm_up()
warm = {name: list(kernel.signatures) for name, kernel in kernels().items()}
assert sum(map(len, warm.values())) > 15, warm
rng = np.random.default_rng(1)
offsets = np.array([0, 30, 190, 200, 500])
t, mag, magerr = rng.uniform(0, 900, 500), rng.normal(17, 0.2, 500), rng.uniform(0.01, 0.1, 500).astype(np.float32)
good = clean(t, mag.astype(np.float32), magerr, rng.integers(0, 2, 500).astype(np.int32) * 32768, offsets)
epochs = good.t, good.mag, good.magerr, good.offsets
known = statistics(*epochs)
chosen = Finder({}, choice.load(choice.SHIPPED, candidates.COLUMNS))(*epochs, known)
represent(*epochs, needs=("folded", "scalars", "features", "image:paper"), statistics=known, chosen=chosen,
          features=FULL, dt_edges=[0, 1, 8], dm_edges=[-8, 0, 8])
late = {name: kernel.signatures for name, kernel in kernels().items() if list(kernel.signatures) != warm[name]}
assert not late, late
"""


def test_the_other_half():
    subprocess.run([sys.executable, "-c", warmup.ELSEWHERE], check=True)


def test_workers_compile_nothing_after_it():
    """A worker's kernels, by their argument types, are those that the warm-up has compiled or loaded."""
    subprocess.run([sys.executable, "-c", WORK], check=True, cwd=Path(__file__).parents[1])


def test_with_and_without_another_process(monkeypatch, tmp_path):
    assert warmup.warm_up() >= 0
    # nothing is imported from where one happens to be
    (tmp_path / "numpy.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    started = []
    original = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(original(*a, **k)) or started[0])
    monkeypatch.setattr(warmup, "COMPILING", -1)
    assert warmup.warm_up() >= 0
    (process,) = started
    assert process.returncode == 0


def test_one_process_compiles_and_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (tmp_path / warmup.LOCK.format(os.getuid())).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(warmup.warm_up)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=3)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.result(timeout=300) >= 3


DIES = """
import os, sys, tempfile, time
from lightmill.pipeline import warmup
tempfile.tempdir, warmup.COMPILING, os.sched_getaffinity = sys.argv[1], -1, lambda process: {0, 1}
warmup.ELSEWHERE = "import time; print(1, file=open('started', 'w')); time.sleep(3)"
def die(*given, **named):
    while not os.path.exists("started"):
        time.sleep(0.01)
    os._exit(9)
warmup.represent = die
warmup.warm_up()
"""


def test_nobody_compiles_beside_what_a_dead_process_has_started(tmp_path):
    dead = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], cwd=tmp_path, check=False)
    assert dead.returncode == 9
    with (tmp_path / warmup.LOCK.format(os.getuid())).open("a") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it has ended


def test_where_there_can_be_no_lock(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert warmup.warm_up() >= 0


def test_where_the_other_process_fails(monkeypatch):
    monkeypatch.setattr(warmup, "COMPILING", -1)
    monkeypatch.setattr(warmup, "ELSEWHERE", "raise SystemExit(1)")
    assert warmup.warm_up() >= 0
