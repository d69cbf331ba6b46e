"""`pipeline/report.py`: one page that stands alone, says what the catalogue holds, and does without what is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.partitions import NotHats
from lightmill.catalogs.publish import publish
from lightmill.catalogs.receipts import FailedAttempt, Receipt, write_json, write_receipt
from lightmill.catalogs.release import open_release
from lightmill.catalogs.rows import (
    UNCLASSIFIED,
    commit,
    probability_columns,
    rejected_schema,
    row_schema,
    rows_table,
)
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline import report_examples as examples
from lightmill.pipeline import report_style
from lightmill.pipeline.recipe import load_recipe
from lightmill.pipeline.report import SHOWN, ReportError, percent, report
from lightmill.pipeline.report_catalogue import recipe_of
from lightmill.pipeline.report_counts import trim

ORDER = 2
N, SHORT = 60, 5  # light curves in the release; of these the last ones were rejected
LEAVES = ("nonvar", "EW", "RRab", "LPV")
FAILURE = FailedAttempt(2, 99, 1, "IO_TRANSIENT", "OSError: <b>cut short</b>", "failed")
SECTIONS = (
    "summary", "sky", "classes", "probabilities", "magnitudes", "images", "examples", "rejected", "timings",
    "failures", "provenance",
)  # fmt: skip


@dataclass
class Made:
    """A tiny release and the catalogue that a run would have made of it."""

    release: Path
    catalogue: Path
    stars: Any  #: conftest.Stars
    best: np.ndarray  #: (N − SHORT,) class of each
    best_prob: np.ndarray  #: (N − SHORT,)

    def counts(self) -> dict[str, int]:
        return {leaf: int((self.best == leaf).sum()) for leaf in LEAVES}


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    text: str
    ids: list[str] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)
    links: list[tuple[str, str]] = field(default_factory=list)  #: tag, and what it loads or points to
    alts: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self._cell = False
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags[tag] += 1
        self.ids += [given["id"]] if "id" in given else []
        self.links += [(tag, given[name]) for name in ("src", "href", "xlink:href", "data") if name in given]
        if given.get("role") == "img":
            self.alts.append(given.get("aria-label", ""))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._cell:
            self.tables[-1][-1][-1] += data.strip()

    def rows(self, first: str) -> dict[str, list[str]]:
        """The table whose first heading is this one: its rows by their first cell."""
        (table,) = [table for table in self.tables if table[0][0] == first]
        return {row[0]: row[1:] for row in table[1:]}


def probabilities(n: int, k: int, seed: int) -> np.ndarray:
    """(n, k) float32: the last class is never the most probable, the others take turns."""
    falling = np.sort(np.random.default_rng(seed).dirichlet([0.5] * k, n).astype(np.float32))[:, ::-1]
    turn = (np.arange(k - 1) + np.arange(n)[:, None]) % (k - 1)
    return np.take_along_axis(falling, np.column_stack([turn, np.full(n, k - 1)]), axis=1)


def make(
    tmp: Path,
    make_stars: Callable,
    write_hats: Callable,
    *,
    leaves: Sequence[str] = LEAVES,
    gate: bool = True,
    receipts: bool = True,
    periods: bool = True,
    unsure: int = 0,
    changes: dict[str, object] | None = None,
) -> Made:
    """Write the release and the catalogue, without Dask and without a network."""
    stars = make_stars(N, seed=3)
    release, folder = tmp / "release", CatalogueFolder(tmp / "catalogue").run("run-1")
    inside = write_hats(release, stars, order=ORDER)
    recipe = load_recipe("ztf-dr")
    record = {
        "release": str(release), "science": recipe.science(), "models": {"bundle": "0123abcd" * 8},
        "run_id": "run-1", "recipe": recipe.model_dump(mode="json"), "versions": {"schema": 1},
    }  # fmt: skip
    write_json(folder.record, record | (changes or {}))
    p = probabilities(N, len(leaves), seed=5)
    best, best_prob = np.array(leaves)[p.argmax(axis=1)].astype(object), p.max(axis=1)
    best[:unsure] = UNCLASSIFIED
    ra, dec = (np.float64(np.float32(x)) for x in (stars.ra, stars.dec))
    shift = 2 * (29 - ORDER)
    for pixel, index in inside.items():
        good, bad = index[index < N - SHORT], index[index >= N - SHORT]
        common = {
            "_healpix_29": pixel << shift,
            "objectid": stars.objectid,
            "ra": ra,
            "dec": dec,
            "filterid": stars.filterid,
        }
        mine = {name: np.broadcast_to(values, N)[good] for name, values in common.items()}
        mine |= {
            "n_good": [len(stars.t[i]) for i in good],
            "mag_mean": [np.mean(stars.mag[i]) for i in good],
            "amplitude": np.full(len(good), 0.1),
            "best_class": best[good].tolist(),
            "best_prob": best_prob[good],
            "margin": np.zeros(len(good)),
            "flags": (best[good] == "nonvar").astype(int) if gate else np.zeros(len(good), int),
            "bundle": ["0123abcd"] * len(good),
            "run_id": ["run-1"] * len(good),
        } | dict(zip(probability_columns(leaves), p[good].T, strict=True))
        if gate:
            mine["p_variable"] = 1 - p[good, 0]
        if periods:
            mine["period"] = np.where(best[good] == "RRab", 0.55, np.nan)
        size, _ = commit(rows_table(mine, row_schema(leaves)), folder.rows(ORDER, pixel), folder.scratch)
        refused = {name: np.broadcast_to(values, N)[bad] for name, values in common.items()}
        refused |= {
            "n_good": [7] * len(bad),
            "reason": ["too_few_epochs"] * len(bad),
            "run_id": ["run-1"] * len(bad),
        }
        commit(rows_table(refused, rejected_schema()), folder.rejected(ORDER, pixel), folder.scratch)
        write_receipt(
            folder.receipts,
            Receipt(
                ORDER, pixel, "f" * 64, len(index), len(good), {"too_few_epochs": len(bad)}, size, seconds=0.5,
                stages={"read": 0.1, "network": 0.4}, epochs=1000, peak_rss_bytes=2**30, host="node7",
                versions={"numpy": "2.4.6"}, finished="2026-01-01T00:00:00+00:00",
            ),
        )  # fmt: skip
    catalogue = folder.catalogue
    version = publish(catalogue, [folder], catalogue_name="tiny", provenance={"lightmill_recipe": "ztf-dr"})
    if not receipts:
        (version.root / "receipts.parquet").unlink()
    return Made(release, catalogue.root, stars, best[: N - SHORT], best_prob[: N - SHORT])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_stars: Callable, write_hats: Callable) -> Made:
    return make(tmp_path_factory.mktemp("report"), make_stars, write_hats)


@pytest.fixture(scope="module")
def page(made: Made) -> Page:
    written = report(made.catalogue)
    assert written == made.catalogue / "report.html"
    return Page(written.read_text(encoding="utf-8"))


def test_stands_alone(page: Page) -> None:
    """Nothing is loaded: links stay in the page, pictures are in it."""
    assert all(target.startswith(("#", "data:image/png;base64,")) for _, target in page.links)
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "img", "video", "audio"}
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "@import" not in page.text
    assert len(page.text) < 2_000_000


def test_is_whole_and_accessible(page: Page) -> None:
    assert set(SECTIONS) | {"periods"} <= set(page.ids)
    assert {target[1:] for tag, target in page.links if tag == "a"} == set(SECTIONS) | {"periods"}
    assert len(page.ids) == len(set(page.ids))
    # every reference inside a picture finds what it refers to
    assert {target[1:] for tag, target in page.links if tag == "use"} <= set(page.ids)
    assert len(page.alts) == page.tags["svg"] >= 10
    assert all(page.alts)
    assert "color-scheme: light dark" in page.text
    assert "@media print" in page.text


def test_counts_are_those_of_the_catalogue(made: Made, page: Page) -> None:
    found = page.rows("class")
    assert {name: int(row[1]) for name, row in found.items()} == made.counts()
    assert made.counts()["LPV"] == 0
    for name in ("nonvar", "EW", "RRab"):
        mean = made.best_prob[made.best == name].mean()
        assert float(found[name][4]) == pytest.approx(mean, abs=5.1e-4)
    assert page.rows("reason")["too_few_epochs"][1] == str(SHORT)
    by_filter = np.bincount(made.stars.filterid[: N - SHORT])
    assert {name: int(row[0]) for name, row in page.rows("filter").items()} == {
        "1 (g)": by_filter[1], "2 (r)": by_filter[2],
    }  # fmt: skip
    for label, count in (("light curves read", N), ("classified", N - SHORT), ("rejected", SHORT)):
        assert f"{label}{count}\n" in page.words


def test_provenance(made: Made, page: Page) -> None:
    for fact in (
        str(made.release),
        "ztf-dr",
        "0123abcd" * 8,
        "run-1",
        "node7",
        "numpy 2.4.6",
        "2026-01-01T00:00:00",
    ):
        assert fact in page.words
    assert "1,024 MiB" in page.words


def test_examples_are_the_most_probable(made: Made, page: Page) -> None:
    ids = np.array(made.stars.objectid[: N - SHORT])
    for name in ("nonvar", "EW", "RRab"):
        mine = made.best == name
        top = ids[mine][np.argsort(-made.best_prob[mine])][:SHOWN]
        assert all(str(identifier) in page.text for identifier in top)
    assert "55 of 55 light curves looked for were read" in page.words
    assert "phase, period 0.55 d" in page.text


def test_reads_the_light_curves_of_the_rows(made: Made) -> None:
    release, recipe = open_release(str(made.release)), load_recipe("ztf-dr")
    (part, *_) = release.table.partitions()
    inside = open_rows(made.catalogue, part.order, part.pixel)
    reading = examples.Reading(str(made.release))
    examples.stream(part, release, recipe, inside, reading)
    assert len(reading.found) == len(inside) > 3
    for example in reading.found:
        star = int(np.flatnonzero(made.stars.objectid == example.row["objectid"])[0])
        np.testing.assert_allclose(example.t, np.array(made.stars.t[star]) - made.stars.t[star][0])
        np.testing.assert_array_equal(example.mag, made.stars.mag[star])
        assert example.image.shape == recipe.dmdt.edges().shape


def open_rows(catalogue: Path, order: int, pixel: int) -> list[dict]:
    return pq.ParquetFile(CatalogueFolder(catalogue).run("run-1").rows(order, pixel)).read().to_pylist()


def test_reading_is_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    release, recipe = open_release(str(made.release)), load_recipe("ztf-dr")
    recipe = recipe.model_copy(
        update={"operational": recipe.operational.model_copy(update={"batch_epochs": 60})}
    )
    (part, *_) = release.table.partitions()
    monkeypatch.setattr(examples, "MAX_EPOCHS", 100)
    reading = examples.Reading(str(made.release))
    examples.stream(part, release, recipe, open_rows(made.catalogue, part.order, part.pixel), reading)
    assert 100 <= reading.epochs < 200


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures, where a test is about words: drawing takes most of the time."""
    monkeypatch.setattr(report_style, "svg", lambda figure: "<svg></svg>")


@pytest.mark.usefixtures("undrawn")
def test_without_the_release(made: Made, tmp_path: Path) -> None:
    """The page says what is missing and holds the rest, the failed partitions too."""
    failure = CatalogueFolder(made.catalogue).run("run-1").failure(2, 99, 1)
    write_json(failure, asdict(FAILURE))
    try:
        out = tmp_path / "new" / "a.html"
        page = Page(report(made.catalogue, out, release="gone").read_text(encoding="utf-8"))
    finally:
        failure.unlink()
    assert [path.name for path in out.parent.iterdir()] == ["a.html"]
    assert page.words.count("could not be read here") == 2
    assert "gone is not a HATS catalogue" in page.words
    assert set(SECTIONS) <= set(page.ids)
    assert {name: int(row[1]) for name, row in page.rows("class").items()} == made.counts()
    assert "1 partition failed" in page.words
    assert "Norder=2/Npix=99OSError: <b>cut short</b>" in page.words.replace("\n", "")
    assert page.tags["b"] == 0  # the error stands there as text


@pytest.mark.usefixtures("undrawn")
def test_finds_the_release_where_it_is_now(made: Made, tmp_path: Path) -> None:
    away = made.release.with_name("moved")
    made.release.rename(away)
    try:
        page = Page(
            report(made.catalogue, tmp_path / "b.html", release=str(away)).read_text(encoding="utf-8")
        )
    finally:
        away.rename(made.release)
    assert "could not be read" not in page.words
    assert "55 of 55" in page.words
    assert str(away) in page.words


def test_with_little_to_go_on(tmp_path: Path, make_stars: Callable, write_hats: Callable) -> None:
    """No gate, no receipts, no periods, a recipe of another version, no release."""
    made = make(
        tmp_path, make_stars, write_hats, leaves=("EW", "RRab"), gate=False, receipts=False, periods=False,
        changes={"recipe": {"name": "old", "unknown": 1}},
    )  # fmt: skip
    page = Page(report(made.catalogue).read_text())
    assert "periods" not in page.ids
    assert "There was no gate" in page.words
    assert "No receipt could be read" in page.words
    assert "not one that this version" in page.words
    assert sum(int(row[1]) for row in page.rows("class").values()) == N - SHORT


@pytest.mark.parametrize("unsure", [7, N - SHORT])
def test_the_unclassified_have_their_row(
    tmp_path: Path, make_stars: Callable, write_hats: Callable, unsure: int
) -> None:
    """Some of them, and all: no row of the catalogue is missing from the page."""
    made = make(tmp_path, make_stars, write_hats, unsure=unsure)
    page = Page(report(made.catalogue).read_text())
    found = page.rows("class")
    assert int(found[UNCLASSIFIED][1]) == unsure
    assert found[UNCLASSIFIED][0] == "too uncertain or too strange for a class"
    assert {name: int(row[1]) for name, row in found.items() if name != UNCLASSIFIED} == made.counts()
    assert sum(int(row[1]) for row in found.values()) == N - SHORT
    for label, count in (("light curves read", N), ("classified", N - SHORT), ("rejected", SHORT)):
        assert f"{label}{count}\n" in page.words
    assert "The receipts count" not in page.words


def test_recipe_with_fields_of_another_version(made: Made) -> None:
    run = CatalogueFolder(made.catalogue).run("run-1").facts()
    run["recipe"]["operational"]["gone_since"] = 1
    recipe = recipe_of(run)
    assert recipe is not None
    assert recipe.science() == load_recipe("ztf-dr").science()


def test_refuses_what_is_no_catalogue(made: Made, tmp_path: Path, write_catalogue: Callable) -> None:
    with pytest.raises(NotHats, match="no such folder"):
        report(tmp_path / "nothing")
    with pytest.raises(NotHats, match="not a HATS catalogue"):
        report(tmp_path)
    with pytest.raises(ReportError, match="not made by lightmill run"):
        report(made.release)
    write_catalogue(tmp_path / "other", np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    with pytest.raises(ReportError, match=r"has no versions/NAME/version\.json"):
        report(tmp_path / "other" / "versions" / "v1" / "objects")
    with pytest.raises(ReportError, match="is a folder"):
        report(made.catalogue, tmp_path)


def test_says_why_nothing_is_published(tmp_path: Path) -> None:
    folder = CatalogueFolder(tmp_path).run("r")
    write_json(folder.record, {"release": "x"})
    write_receipt(folder.receipts, Receipt(2, 1, "f" * 64, 9, 0, {"too_few_epochs": 9}, 0, 0.1))
    with pytest.raises(ReportError, match="9 too_few_epochs"):
        report(tmp_path)


def test_chooses_few_partitions_for_all_classes() -> None:
    offers = {f"file{i}": {"EW": 30, "RRab": 2} for i in range(50)} | {
        "rare": {"CEP": 1},
        "rarer": {"LPV": 1, "EW": 1},
    }
    chosen = examples.choose(offers)
    assert {"rare", "rarer"} <= set(chosen)
    assert len(chosen) == examples.MAX_PARTITIONS
    assert examples.choose({"one": {"EW": 3000}}) == ["one"]
    assert examples.choose({}) == []


def test_thresholds_keep_enough_examples() -> None:
    # 1,000 of them between 0.9 and 1, 9,000 below: 5 % are 500
    many, few = np.zeros((2, 1000), int)
    many[100], many[900:], few[500] = 9000, 10, 3
    assert examples.thresholds({"EW": many, "EA": few}) == {"EW": 0.95, "EA": 0.5}


def test_bins_keep_every_row() -> None:
    counts = {"EW": np.zeros(20, int), "EA": np.zeros(20, int)}
    counts["EW"][[0, 3, 10]] = 1, 5000, 5000
    counts["EA"][19] = 1
    first, stop, kept = trim(counts)
    assert (first, stop) == (3, 11)
    assert kept["EW"].tolist() == [5001, 0, 0, 0, 0, 0, 0, 5000]
    assert kept["EA"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert trim(counts, tail=0)[:2] == (0, 20)
    assert trim(counts, whole=5)[:2] == (0, 15)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (6.27e-5, "0.0063 %"), (0.00999, "1 %"), (0.0215, "2.1 %"), (1, "100 %")]
)
def test_shares_are_readable(share: float, text: str) -> None:
    assert percent(share) == text
