"""Partitions: a HATS catalogue, local or behind any fsspec URL, and the files of each of its HEALPix pixels."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from hats import read_hats
from hats.catalog import CatalogCollection
from hats.catalog.healpix_dataset.healpix_dataset import HealpixDataset
from hats.io.file_io import get_upath
from hats.io.paths import pixel_catalog_file
from hats.pixel_math import HealpixPixel
from mocpy import MOC
from upath import UPath

from lightmill.catalogs.listing import File, files_at, files_in

__all__ = ["Box", "Cone", "File", "HatsTable", "NotHats", "Partition", "Region", "open_hats"]

PER_FOLDER = 10_000  #: pixels in a folder `Dir=…`
FEW = 8  #: partitions of a folder that are looked up one by one rather than by listing it


class NotHats(ValueError):
    """What was given is not a HATS catalogue, or cannot be read as one."""


@dataclass(frozen=True)
class Cone:
    """All that is closer to a point than a radius."""

    ra: float  #: [deg]
    dec: float  #: [deg]
    radius: float  #: [deg]


@dataclass(frozen=True)
class Box:
    """A zone of right ascension (the first edge may be the larger: it then crosses 0) and declination."""

    ra: tuple[float, float]  #: [deg]
    dec: tuple[float, float]  #: [deg]


Region: TypeAlias = Cone | Box | MOC


@dataclass(frozen=True)
class Partition:
    """One HEALPix pixel of a release: the Parquet files that hold it, one or more."""

    order: int
    pixel: int
    files: tuple[File, ...]
    protocol: str  #: of fsspec: "" or "file" is local
    options: str  #: fsspec's storage options, as JSON

    def __str__(self) -> str:
        return f"Norder={self.order}/Npix={self.pixel}"

    @property
    def urls(self) -> tuple[str, ...]:
        """The files with their protocol, as fsspec and DuckDB take them."""
        if self.is_local:
            return tuple(file.path for file in self.files)
        return tuple(
            f"{self.protocol}://{file.path.removeprefix(f'{self.protocol}://')}" for file in self.files
        )

    @property
    def is_local(self) -> bool:
        """Whether the files are on a file system of this machine."""
        return self.protocol in ("", "file", "local")

    @property
    def bytes(self) -> int:
        """Size of the files [bytes]."""
        return sum(file.size for file in self.files)

    def identity(self) -> str:
        """sha256 of the names, sizes and stamps of the files: changes when the input does."""
        facts = [(file.path.rsplit("/", 1)[-1], file.size, file.stamp) for file in self.files]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def open(self, file: File) -> pq.ParquetFile:
        """One of its files, ready to be read; close it."""
        if self.is_local:
            return pq.ParquetFile(file.path)
        filesystem = UPath(file.path, protocol=self.protocol, **json.loads(self.options)).fs
        return pq.ParquetFile(filesystem.open(file.path, "rb"), pre_buffer=True)


@dataclass(frozen=True)
class HatsTable:
    """A HATS catalogue: properties and partitions, no data."""

    url: str
    name: str
    catalog: HealpixDataset  #: as hats sees it
    root: UPath  #: folder of the (main) catalogue

    def pixels(self) -> tuple[tuple[int, int], ...]:
        """(order, pixel) of all partitions, in HEALPix order."""
        return tuple((int(pixel.order), int(pixel.pixel)) for pixel in self.catalog.get_healpix_pixels())

    def partitions(self, region: Region | None = None) -> tuple[Partition, ...]:
        """The partitions that overlap a region (None: all), in HEALPix order; their files are looked up, not opened."""
        catalog = self.catalog if region is None else _within(self.catalog, region)
        return self.partitions_of((int(p.order), int(p.pixel)) for p in catalog.get_healpix_pixels())

    def partitions_of(self, pixels: Iterable[tuple[int, int]]) -> tuple[Partition, ...]:
        """The partitions of these (order, pixel), in that order, whether or not the catalogue lists them.

        Files are looked up a folder at a time where there is more than a handful in it, else one by one.
        """
        keys = list(pixels)
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for order, pixel in keys:
            groups.setdefault((order, pixel // PER_FOLDER), []).append((order, pixel))
        self.root.fs.invalidate_cache()  # an object store's listing may be remembered from before
        found: dict[tuple[int, int], tuple[File, ...]] = {}
        alone: list[tuple[int, int]] = []
        for group in groups.values():
            if len(group) <= FEW or self.root.protocol in ("http", "https"):
                alone += group
            else:
                found |= self._listed(group)
        if alone:
            with ThreadPoolExecutor(max_workers=16) as pool:
                found |= zip(alone, pool.map(self._looked_up, alone), strict=True)
        protocol, options = self.root.protocol, self._options()
        return tuple(Partition(*key, found[key], protocol, options) for key in keys)

    def _options(self) -> str:
        return json.dumps(dict(self.root.storage_options), default=str, sort_keys=True)

    def _path(self, key: tuple[int, int]) -> UPath:
        return pixel_catalog_file(
            self.root, HealpixPixel(*key), npix_suffix=self.catalog.catalog_info.npix_suffix
        )

    def _looked_up(self, key: tuple[int, int]) -> tuple[File, ...]:
        return tuple(files_at(self._path(key), is_folder=self.catalog.catalog_info.npix_suffix == "/"))

    def _listed(self, group: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[File, ...]]:
        """The files of partitions that share a folder `Norder=…/Dir=…`."""
        first = self._path(group[0])
        inside = files_in(first.fs, str(first.parent.path))
        suffix = first.name.removeprefix(f"Npix={group[0][1]}")
        return {key: inside.get(f"Npix={key[1]}{suffix}", ()) for key in group}

    def schema(self) -> pa.Schema:
        """The columns: of `_common_metadata`, or where there is none of the first file that can be read."""
        if self.catalog.schema is not None:
            return self.catalog.schema
        last: Exception | None = None
        for pixel in self.catalog.get_healpix_pixels():
            key = int(pixel.order), int(pixel.pixel)
            partition = Partition(*key, self._looked_up(key), self.root.protocol, self._options())
            for file in partition.files:
                try:
                    with partition.open(file) as parquet:
                        return parquet.schema_arrow
                except (OSError, pa.ArrowInvalid) as error:
                    last = error  # one damaged file must not keep the others from being read
        pixels = len(self.catalog.get_healpix_pixels())
        raise NotHats(
            f"{self.url} lists {pixels} partitions but has no Parquet file that can be read"
            + (f": {last}" if last else "")
        )


def open_hats(url: str) -> HatsTable:
    """Open a HATS catalogue, or the main catalogue of a collection.

    `url` is a local path or an fsspec URL; endpoints come from fsspec's own configuration (FSSPEC_S3_ENDPOINT_URL),
    credentials too, or as AWS's tools find them; without any, a bucket is read as a public one.

    Raises
    ------
    NotHats
        if it is none, or has no partition.
    """
    with warnings.catch_warnings():
        # hats warns that a catalogue without _common_metadata has no schema: `schema` asks the first file then
        warnings.filterwarnings("ignore", message=".*_common_metadata.*", category=UserWarning)
        try:
            root = _root(url)
            catalog = read_hats(root)
        except FileNotFoundError as error:
            if "://" not in str(url) and not UPath(url).exists():
                raise NotHats(f"{url} is not a HATS catalogue: no such file or folder") from error
            raise NotHats(
                f"{url} is not a HATS catalogue: there is no hats.properties or collection.properties in it. "
                "Bulk Parquet files become one with: lightmill import FILE… --out RELEASE"
            ) from error
        except ImportError as error:
            scheme = url.partition("://")[0]
            extra = {"s3": "s3", "http": "http", "https": "http"}.get(scheme)
            raise NotHats(
                f"{url} needs a package for {scheme}:// ({error})"
                + (f": pip install 'lightmill[{extra}]'" if extra else "")
            ) from error
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise NotHats(f"{url} cannot be read as a HATS catalogue: {error}") from error
    if isinstance(catalog, CatalogCollection):
        root, catalog = catalog.main_catalog_dir, catalog.main_catalog
    if not isinstance(catalog, HealpixDataset):
        raise NotHats(f"{url} is a HATS {type(catalog).__name__}, not a catalogue of objects")
    if not catalog.get_healpix_pixels():
        raise NotHats(f"{url} has no partitions: nothing to read")
    return HatsTable(url=str(url), name=catalog.catalog_name, catalog=catalog, root=root)


def _root(url: str) -> UPath:
    """The catalogue's place as hats opens it, but for one thing: hats reads S3 anonymously, whatever is configured."""
    path = get_upath(url)
    if path.protocol in ("s3", "s3a"):
        given = fsspec.config.conf.get("s3", {}).keys() & {"anon", "key", "secret", "token", "profile"}
        if given or os.environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"}:
            return UPath(url, **{key: value for key, value in path.storage_options.items() if key != "anon"})
    return path


def _within(catalog: HealpixDataset, region: Region) -> HealpixDataset:
    if isinstance(region, Cone):
        if region.radius > 150:
            return catalog  # mocpy loses a sixth of the sky from cones of nearly all of it
        return catalog.filter_by_cone(region.ra, region.dec, region.radius * 3600)
    if isinstance(region, Box):
        return catalog.filter_by_box(region.ra, region.dec)
    return catalog.filter_by_moc(region)
