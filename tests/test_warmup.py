"""`pipeline/warmup.py`: kernels compiled by two processes."""

from __future__ import annotations

import subprocess
import sys

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


def test_where_the_other_process_fails(monkeypatch):
    monkeypatch.setattr(warmup, "COMPILING", -1)
    monkeypatch.setattr(warmup, "ELSEWHERE", "raise SystemExit(1)")
    assert warmup.warm_up() >= 0
