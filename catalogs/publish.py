"""Publish: turn the partitions of a run into a HATS collection that LSDB opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hats.catalog import PartitionInfo
from hats.catalog.dataset.collection_properties import CollectionProperties

from lightmill.catalogs.finish import finish_catalog, partition_path
from lightmill.catalogs.receipts import Receipt

__all__ = ["CATALOG", "publish"]

CATALOG = "objects"  #: folder of the main table within the collection

DEFAULT_COLUMNS = (
    "objectid", "ra", "dec", "filterid", "n_good", "mag_mean", "amplitude", "p_variable", "best_class", "best_prob",
    "margin", "period", "flags",
)  # fmt: skip


def publish(out: Path, *, name: str, receipts: Sequence[Receipt], provenance: Mapping[str, str]) -> bool:
    """Write the catalogue's metadata over the partitions that have a receipt; False if none of them has a row.

    Parameters
    ----------
    out : folder of the collection; its main table lies in `out/objects`
    name : of the catalogue
    receipts : of the partitions to publish
    provenance : further `key = value` lines of hats.properties
    """
    rows = {receipt.key: receipt.classified for receipt in receipts if receipt.classified}
    if not rows:
        return False
    if _is_published(out, rows):
        return True
    finish_catalog(
        out / CATALOG,
        name=name,
        partitions=rows,
        ra_column="ra",
        dec_column="dec",
        default_columns=DEFAULT_COLUMNS,
        properties=provenance,
    )
    collection = CollectionProperties(obs_collection=name, hats_primary_table_url=CATALOG)
    collection.to_properties_file(out)
    return True


def _is_published(out: Path, rows: Mapping[tuple[int, int], int]) -> bool:
    """Whether the metadata are there, say the same, and are younger than every partition."""
    properties, collection = out / CATALOG / "hats.properties", out / "collection.properties"
    if not (properties.exists() and collection.exists()):
        return False
    paths = [partition_path(out / CATALOG, *key) for key in rows]
    listed = set((out / CATALOG / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    if listed != set(paths) or any(p.stat().st_mtime_ns > properties.stat().st_mtime_ns for p in paths):
        return False
    info = PartitionInfo.read_from_dir(out / CATALOG)
    return {(int(pixel.order), int(pixel.pixel)) for pixel in info.get_healpix_pixels()} == set(rows)
