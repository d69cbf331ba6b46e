"""A few fields of very many receipts: of a run that has ended by columns of its one file, with no object for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightmill.catalogs import storage
from lightmill.catalogs.runfolder import RunFolder, read_index_table

__all__ = ["proven_fields", "receipt_fields"]


def receipt_fields(folder: RunFolder, *names: str) -> Iterator[tuple[Any, ...]]:
    """Plain fields (numbers and words) of all receipts of a run, in no order."""
    if not folder.is_sealed():
        for receipt in folder.read_receipts():
            yield tuple(getattr(receipt, name) for name in names)
        return
    table = read_index_table(folder.index, sorted(set(names)))
    yield from zip(*(table.column(name).to_pylist() for name in names), strict=True)


def proven_fields(folder: RunFolder, *names: str) -> Iterator[tuple[Any, ...]]:
    """The same, of those whose Parquet file is there with its size, as `RunFolder.done` has them."""
    sizes = storage.sizes(folder.objects / "dataset", ".parquet")
    for order, pixel, size, *found in receipt_fields(folder, "order", "pixel", "bytes", *names):
        if sizes.get((order, pixel), 0) == size:
            yield tuple(found)
