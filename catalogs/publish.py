"""Publish: turn the partitions of a run into a HATS collection that LSDB opens."""

from __future__ import annotations

from collections.abc import Mapping

from hats.catalog import PartitionInfo
from hats.catalog.dataset.collection_properties import CollectionProperties

from lightmill.catalogs.finish import finish_catalog
from lightmill.catalogs.runfolder import CATALOG, RunFolder

__all__ = ["publish"]

DEFAULT_COLUMNS = (
    "objectid", "ra", "dec", "filterid", "n_good", "mag_mean", "amplitude", "p_variable", "best_class", "best_prob",
    "margin", "period", "flags",
)  # fmt: skip


def publish(folder: RunFolder, *, name: str, provenance: Mapping[str, str]) -> bool:
    """Write the catalogue's metadata over the partitions that have a receipt; False if none of them has a row.

    Parameters
    ----------
    name : of the catalogue
    provenance : further `key = value` lines of hats.properties
    """
    rows = {key: receipt.classified for key, receipt in folder.done().items() if receipt.classified}
    if not rows:
        return False
    if _is_published(folder, rows):
        return True
    finish_catalog(
        folder.objects,
        name=name,
        partitions=rows,
        ra_column="ra",
        dec_column="dec",
        default_columns=DEFAULT_COLUMNS,
        properties=provenance,
    )
    collection = CollectionProperties.model_validate(
        {"obs_collection": name, "hats_primary_table_url": CATALOG}
    )
    collection.to_properties_file(folder.out)
    return True


def _is_published(folder: RunFolder, rows: Mapping[tuple[int, int], int]) -> bool:
    """Whether the metadata are there, say the same, and are younger than every partition."""
    properties, collection = folder.objects / "hats.properties", folder.out / "collection.properties"
    if not (properties.exists() and collection.exists()):
        return False
    paths = [folder.rows(*key) for key in rows]
    listed = set((folder.objects / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    if listed != set(paths) or any(p.stat().st_mtime_ns > properties.stat().st_mtime_ns for p in paths):
        return False
    info = PartitionInfo.read_from_dir(folder.objects)
    return {(int(pixel.order), int(pixel.pixel)) for pixel in info.get_healpix_pixels()} == set(rows)
