"""`pipeline/warmup.py`: kernels compiled by two processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightmill.pipeline import warmup


def test_the_other_half():
    subprocess.run([sys.executable, "-c", warmup.ELSEWHERE], check=True)


def test_with_and_without_another_process(monkeypatch):
    assert warmup.warm_up() >= 0
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


def test_where_there_can_be_no_lock(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert warmup.warm_up() >= 0


def test_where_the_other_process_fails(monkeypatch):
    monkeypatch.setattr(warmup, "COMPILING", -1)
    monkeypatch.setattr(warmup, "ELSEWHERE", "raise SystemExit(1)")
    assert warmup.warm_up() >= 0
