"""How the benchmarks' figures are shown (tests/bench/table.py)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

TABLE = runpy.run_path(str(Path(__file__).parent / "bench" / "table.py"))
MACHINE = {
    "cpu": "Abacus 3",
    "cores": 2,
    "load": 0.25,
    "python": "3.11.9",
    "versions": {"numpy": "2.4.6", "nifty-ls": "1.1.0"},
}


def row(**other):
    return {
        "what": "period search",
        "n": 300,
        "ours_s": 0.0005,
        "peer": "nifty-ls",
        "peer_s": 0.021,
        "times_faster": 42.0,
        "bar": 40.0,
        "clock": "process_time",
    } | other


@pytest.fixture
def report():
    """What pytest-benchmark writes, as much as is read of it."""
    records = [
        {
            "class": "EA",
            "n": 88,
            "ours": 0.9545,
            "nifty_ls": 0.7614,
            "exact_ours": 0.375,
            "exact_nifty_ls": 0.02,
        }
    ]
    return {
        "machine_info": {
            "cpu": {"brand_raw": "Abacus 3", "count": 2},
            "processor": "x",
            "python_version": "3.11.9",
        },
        "benchmarks": [
            {"extra_info": {"rows": [row(n=30, bar=None), row()]}},
            {"extra_info": {}},
            {"extra_info": {"rows": [row(times_faster=1.234, clock="perf_counter")], "recovered": records}},
        ],
    }


def test_figures_of_all_benchmarks_in_their_order(report):
    machine = TABLE["machine_of"](report, 0.2512, MACHINE["versions"])
    found = TABLE["figures"](report, machine)
    assert found["machine"] == MACHINE
    assert [(one["n"], one["times_faster"]) for one in found["rows"]] == [
        (30, 42.0),
        (300, 42.0),
        (300, 1.234),
    ]
    assert [one["class"] for one in found["recovered"]] == ["EA"]
    assert json.loads(json.dumps(found)) == found


def test_markdown(report):
    assert TABLE["markdown"](TABLE["figures"](report, MACHINE)).splitlines() == [
        "Abacus 3, 2 cores, load 0.25 before; Python 3.11.9, numpy 2.4.6, nifty-ls 1.1.0.",
        "",
        "| what | n | ours, a curve | peer | peer, a curve | times faster | bar | clock |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
        "| period search | 30 | 500 µs | nifty-ls | 21 ms | 42.0 |  | CPU time |",
        "| period search | 300 | 500 µs | nifty-ls | 21 ms | 42.0 | 40, met | CPU time |",
        "| period search | 300 | 500 µs | nifty-ls | 21 ms | 1.23 | 40, missed | wall time |",
        "",
        "Stars found within 1 % of P, P/2 or 2P, and of P alone (exact); nifty-ls: its highest peak.",
        "",
        "| class | n | ours, % | nifty-ls, % | exact, ours, % | exact, nifty-ls, % |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| EA | 88 | 95.5 | 76.1 | 37.5 | 2.0 |",
    ]


def test_no_second_table_without_periods(report):
    del report["benchmarks"][2]
    assert "class" not in TABLE["markdown"](TABLE["figures"](report, MACHINE))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.374e-6, "1.37 µs"), (5.45e-4, "545 µs"), (0.0395, "39.5 ms"), (1.5, "1500 ms")],
)
def test_quantity(seconds, text):
    assert TABLE["quantity"](seconds) == text


def test_what_fails_is_told_and_nothing_is_on_stdout(monkeypatch, capfd):
    # main's own namespace: run_path returns a copy
    monkeypatch.setitem(TABLE["main"].__globals__, "_measure", lambda arguments: (None, 4))
    assert TABLE["main"](["-k", "nothing"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "nothing was measured" in err


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 1)])
def test_a_failed_benchmark_is_the_exit_code_and_the_rest_is_shown(monkeypatch, capfd, report, code, status):
    monkeypatch.setitem(TABLE["main"].__globals__, "_measure", lambda arguments: (report, code))
    assert TABLE["main"](["--format", "json"]) == status
    assert [one["n"] for one in json.loads(capfd.readouterr().out)["rows"]] == [30, 300, 300]
