"""Error classes and policies: which exception is what, and what is done about it."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import LayoutError
from lightmill.models.folder import BundleError
from lightmill.pipeline.failures import POLICIES, ErrorClass, InputError, decide, fault_of, reading


def read_error(error: Exception) -> Exception:
    """What becomes of an error that a source raises."""

    def source() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(InputError) as caught:
        list(reading(source()))
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LayoutError("no column objdec"), "SCHEMA"),
        (pa.ArrowInvalid("not a Parquet file"), "INPUT_CORRUPT"),
        (OSError("Couldn't deserialize thrift: TProtocolException"), "INPUT_CORRUPT"),
        (FileNotFoundError(errno.ENOENT, "gone"), "INPUT_CORRUPT"),
        (EOFError("short"), "INPUT_CORRUPT"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "IO_TRANSIENT"),
        (OSError(errno.EIO, "input/output error"), "IO_TRANSIENT"),
        (TimeoutError("no answer"), "IO_TRANSIENT"),
        (PermissionError(errno.EACCES, "denied"), "IO_TRANSIENT"),
        (MemoryError(), "OOM"),
        (pa.ArrowMemoryError("malloc"), "OOM"),
        (KeyError("x"), "BUG"),
    ],
)
def test_of_the_input(error: Exception, expected: str) -> None:
    fault = fault_of(read_error(error))
    assert fault.error_class == expected
    assert fault.error.startswith(type(error).__name__)
    assert not fault.stops
    assert pickle.loads(pickle.dumps(fault)) == fault


@pytest.mark.parametrize(
    ("error", "expected", "stops"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "IO_TRANSIENT", True),
        (PermissionError(errno.EACCES, "denied"), "IO_TRANSIENT", True),
        (OSError(errno.EIO, "input/output error"), "IO_TRANSIENT", False),
        (BundleError("changed"), "MODEL", False),
        (pa.ArrowInvalid("ours"), "BUG", False),
        (ZeroDivisionError("division by zero"), "BUG", False),
    ],
)
def test_of_our_own(error: Exception, expected: str, stops: bool) -> None:
    fault = fault_of(error)
    assert (fault.error_class, fault.stops) == (expected, stops)


def test_real_damage_is_told_from_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": list(range(100_000))}), path)
    whole = bytearray(path.read_bytes())
    whole[200:4000] = b"\xff" * 3800

    def batches(data: bytes) -> Iterator[object]:
        yield from pq.ParquetFile(pa.BufferReader(data)).iter_batches()

    for damaged in (bytes(whole[:-100]), bytes(whole)):
        with pytest.raises(InputError) as caught:
            list(reading(batches(damaged)))
        assert fault_of(caught.value).error_class == "INPUT_CORRUPT"


def test_policies() -> None:
    """Every class has one, and each unit is given up at last."""
    assert set(POLICIES) == set(ErrorClass)
    for kind, policy in POLICIES.items():
        names = [decide(kind, k, 1000).name for k in range(1, policy.tries + 1)]
        assert names[-1] == ("quarantine" if policy.quarantine else "failed")
        assert not set(names[:-1]) & {"quarantine", "failed"}
    assert [decide(ErrorClass.IO_TRANSIENT, k, 1).wait for k in (1, 2, 3)] == [2, 4, 8]
    assert [decide(ErrorClass.OOM, k, 1000).batch_epochs for k in (1, 2)] == [500, 500]
    assert decide(ErrorClass.OOM, 1, 1).batch_epochs == 1
    bystander = decide(ErrorClass.WORKER_LOST, 0, 7, to_blame=False)
    assert (bystander.name, bystander.alone, bystander.batch_epochs) == ("alone", True, 7)
