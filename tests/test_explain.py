"""`pipeline/explain.py`, its page and its command: what is explained is what a run would say, and all of it is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lightmill.catalogs.release import open_release, read_batches
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.models import bundle as bundles
from lightmill.models import choice as choices
from lightmill.models import trees
from lightmill.models.bundle import Parts
from lightmill.models.calibration import softmax
from lightmill.models.experts import NetworkExpert, TreesExpert
from lightmill.models.manifest import CombinerPart, GatePart, Manifest, NetworkPart, PeriodPart, TreesPart
from lightmill.models.novelty import fit_novelty
from lightmill.pipeline.answer import answer
from lightmill.pipeline.asking import asking_of, finder_of
from lightmill.pipeline.clean import clean
from lightmill.pipeline.cli import app
from lightmill.pipeline.dmdt import GRIDS
from lightmill.pipeline.explain import explain, overview
from lightmill.pipeline.explain_json import as_json, overview_as_json
from lightmill.pipeline.explain_page import overview_page, page
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.report import report
from lightmill.pipeline.represent import REPRESENTATION

CLASSES = ("EW", "RRab", "LPV")
FEATURES = ("log_period", "amplitude_1", "eta", "second_ratio")
STATISTICS = ("mad_over_err", "stetson_k")
GRID = GRIDS["mahabal2017"]
PERIOD = {"mode": "on", "fmin": 0.01, "fmax": 5.0, "candidates": 4}
SHORT, FLAGGED = 3, 8  #: light curves that are rejected


def recipe_for(folder: Path, **tables: object) -> Recipe:
    return Recipe.model_validate(
        {"name": "tried", "model": {"bundle": str(folder)}, "period": PERIOD} | tables
    )


def make_bundle(folder: Path, *, gate: bool) -> Path:
    """Small experts of all kinds with random weights: what they say is arbitrary, but theirs."""
    rng, used = np.random.default_rng(4), recipe_for(folder)
    parts = (
        TreesPart(name="trees"),
        NetworkPart(
            name="folded", architecture="folded", inputs={"folded": "folded", "scalars": "scalars"},
            shapes={"folded": (64, 6), "scalars": (4,)},
        ),
        NetworkPart(
            name="dmdt", architecture="dmdt", inputs={"image": "image:count"}, shapes={"image": GRID.shape}
        ),
        NetworkPart(
            name="paper", architecture="mahabal2017", inputs={"image": "image:paper"}, shapes={"image": GRID.shape},
            parameters={"filters": 4, "dense": 8},
        ),
    )  # fmt: skip
    table = rng.normal(size=(300, len(FEATURES)))
    fitted = trees.fit_classes(
        table, np.digitize(table[:, 0] + table[:, 1], [-0.5, 0.5]), 3, rounds=8, columns_per_tree=1.0
    )
    experts = tuple(
        TreesExpert(part, fitted) if isinstance(part, TreesPart) else NetworkExpert.fresh(part, len(CLASSES))
        for part in parts
    )
    golden = {
        "features": table[:5].astype(np.float32),
        "folded": rng.normal(size=(5, 64, 6)).astype(np.float32),
        "scalars": rng.normal(size=(5, 4)).astype(np.float32),
        "image:count": rng.integers(0, 40, (5, *GRID.shape)).astype(np.float32),
        "image:paper": rng.integers(0, 20, (5, *GRID.shape)).astype(np.float32),
    }
    last = experts[1].answers(golden)[1]
    even = {"temperatures": {}}
    manifest = Manifest(
        name="tried", classes=CLASSES, dt_edges=GRID.dt_edges, dm_edges=GRID.dm_edges, representation=REPRESENTATION,
        features=FEATURES, experts=parts, priors=(0.5, 0.3, 0.2), novelty=("folded",),
        period=PeriodPart(choice=choices.read_manifest("period-choice").digest, limits=used.period.limits()),
        combiners={
            "dmdt+folded+paper+trees": CombinerPart(weights=(0.6, 0.3, 0.2, 0.1), **even),
            "trees": CombinerPart(weights=(0.5,), **even),
        },
        gate=GatePart(statistics=STATISTICS, slope=1.0, intercept=0.0, threshold=0.5) if gate else None,
        training={"recipe": "tried", "science": used.science()},
    )  # fmt: skip
    judged = None
    if gate:
        stats = rng.uniform(0, 6, size=(300, 2))
        judged = trees.fit(stats, stats[:, 0] > 2, rounds=10, depth=2)
    bundles.save(
        folder, manifest, Parts(experts, judged, fit_novelty(last, np.array([0, 0, 1, 1, 2]))), card="# tried\n",
        golden_inputs=golden, golden_statistics=rng.uniform(0, 6, (4, 2)) if gate else None,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "plain", gate=False)


@pytest.fixture(scope="module")
def gated(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "gated", gate=True)


@pytest.fixture(scope="module")
def stars(make_stars):
    made = make_stars(30, seed=6)
    cut = {name: [list(x) for x in getattr(made, name)] for name in ("t", "mag", "magerr", "flags")}
    for name in cut:
        cut[name][SHORT] = cut[name][SHORT][:7]
    cut["flags"][FLAGGED] = [32768] * len(cut["flags"][FLAGGED])
    return replace(made, **cut)


@pytest.fixture(scope="module")
def release(tmp_path_factory, stars, write_hats) -> str:
    root = tmp_path_factory.mktemp("releases") / "release"
    write_hats(root, stars)
    return str(root)


def expert_of(bundle, name: str):
    (expert,) = [one for one in bundle.parts.experts if one.part.name == name]
    return expert


def ids(stars, *index: int) -> list[str]:
    return [str(stars.objectid[i]) for i in index]


@pytest.fixture(scope="module")
def explained(bundle, release, stars):
    return explain(bundle, release, [*ids(stars, 2, 11, SHORT, 20, FLAGGED), "12"])


@pytest.fixture(scope="module")
def explained_with_gate(gated, release, stars):
    return explain(gated, release, ids(stars, 0, 1, 2, 5), recipe=recipe_for(gated))


def answers_of(folder: Path, release: str, recipe: Recipe):
    """What `answer` says of whole partitions, by objectid."""
    bundle, opened = bundles.load(folder), open_release(release)
    found = {}
    for partition in opened.table.partitions():
        for batch in read_batches(partition, opened.layout, 10**6):
            good = clean(batch.t, batch.mag, batch.magerr, batch.flags, batch.offsets)
            said = answer(good, bundle, asking_of(recipe), finder=finder_of(recipe))
            novelty = np.full(len(good.accepted), np.nan)
            novelty[said.passed] = said.novelty if said.novelty is not None else []
            period = np.full(len(good.accepted), np.nan)
            period[said.passed] = 1 / said.chosen.frequency[:, 0]
            for i, at in enumerate(good.accepted):
                found[int(batch.objectid[at])] = (said.probabilities[i], novelty[i], period[i])
    return found


def test_it_says_what_a_run_says(bundle, release, explained):
    wanted = answers_of(bundle, release, recipe_for(bundle))
    assert len(explained.found) == 3
    for one in explained.found:
        p, novelty, period = wanted[one.objectid]
        np.testing.assert_allclose(list(one.probabilities.values()), p, atol=1e-5)
        assert tuple(one.probabilities) == CLASSES
        assert one.novelty == pytest.approx(novelty, abs=1e-5)
        assert one.period == pytest.approx(period)
        assert (one.best, one.second) == tuple(leaf for leaf, _ in one.ranked[:2])
        assert one.p_variable is None
        assert one.gate is None


def test_the_gate_is_obeyed_and_explained(gated, release, explained_with_gate):
    found = explained_with_gate
    assert {one.passed for one in found.found} == {True, False}
    wanted, loaded = answers_of(gated, release, recipe_for(gated)), found.bundle
    for one in found.found:
        p, novelty, _ = wanted[one.objectid]
        np.testing.assert_allclose(list(one.probabilities.values()), p, atol=1e-5)
        assert tuple(one.probabilities) == ("nonvar", *CLASSES)
        assert one.passed == bool(one.p_variable >= 0.5)
        # the run does not ask the experts about what the gate stops, the explanation does
        assert np.isnan(novelty) != one.passed
        assert one.novelty is not None
        values, adds = one.gate
        assert adds.sum() == pytest.approx(float(loaded.parts.gate.margin(values[None])[0]), abs=1e-4)
        assert loaded.gate(values[None])[0] == pytest.approx(one.p_variable, abs=1e-6)
        assert one.best in CLASSES


def test_what_each_expert_says_adds_up(explained):
    loaded = explained.bundle
    for one in explained.found:
        best, second = CLASSES.index(one.best), CLASSES.index(one.second)
        assert [look.name for look in one.looks] == ["trees", "folded", "dmdt", "paper"]
        assert [look.weight for look in one.looks] == [0.6, 0.3, 0.2, 0.1]
        for look in one.looks:
            logits = expert_of(loaded, look.name).answers({k: v[None] for k, v in look.given.items()})[0][0]
            # a combiner of one expert is known for the trees alone
            alone = (
                softmax(logits[None])[0]
                if look.name != "trees"
                else softmax(0.5 * np.log(softmax(logits[None])))[0]
            )
            np.testing.assert_allclose(look.probabilities, alone, atol=1e-4)
            if look.name == "trees":
                assert look.speaks["features"].sum() + look.base[0] == pytest.approx(logits[best], abs=1e-4)
                rather = look.instead["features"].sum() + look.base[1]
                assert rather == pytest.approx(logits[best] - logits[second], abs=1e-4)
                assert look.seen is None
                continue
            for source, given in look.given.items():
                assert look.speaks[source].shape == look.instead[source].shape == given.shape
                assert np.abs(look.speaks[source]).max() > 0
            assert look.seen.shape == ((64,) if look.name == "folded" else GRID.shape)


def test_who_is_missing_and_why(explained, release, stars):
    short, flagged = ids(stars, SHORT, FLAGGED)
    assert explained.missing == {
        "12": f"not in {release}",
        short: "not classified: too_few_epochs (7 good epochs)",
        flagged: "not classified: flagged (0 good epochs)",
    }


def test_nothing_can_be_explained(bundle, release, stars):
    with pytest.raises(
        ValueError, match=rf"12: not in .*; {ids(stars, SHORT)[0]}: not classified: too_few_epochs"
    ):
        explain(bundle, release, ["12", *ids(stars, SHORT)])


def test_a_place_off_the_sky_is_said(bundle, tmp_path, make_stars, write_hats):
    made = make_stars(4, seed=6)
    write_hats(tmp_path / "release", made)
    files = sorted((tmp_path / "release").rglob("*.parquet"))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(files[0], partitioning=None)
    lost = str(table["objectid"][0].as_py())
    at = table.schema.get_field_index("objdec")
    pq.write_table(table.set_column(at, "objdec", pa.array([99.0] * len(table), pa.float32())), files[0])
    with pytest.raises(ValueError, match=f"{lost}: .*bad_position"):
        explain(bundle, str(tmp_path / "release"), [lost])


def test_a_recipe_that_does_not_fit_is_refused(bundle, release, stars):
    with pytest.raises(ValueError, match="needs periods"):
        explain(bundle, release, ids(stars, 1), recipe=recipe_for(bundle, period={"mode": "off"}))


def test_one_expert_alone(bundle, release, stars):
    only = recipe_for(bundle, classes={"experts": ["trees"]})
    (one,) = explain(bundle, release, ids(stars, 1), recipe=only).found
    assert [look.name for look in one.looks] == ["trees"]
    assert one.novelty is None


def test_what_a_run_leaves_unclassified_is_said(bundle, release, stars, explained):
    assert {one.unsure for one in explained.found} == {""}
    (sure, *_) = explained.found
    (_, first), (_, second), *_ = sure.ranked
    strict = recipe_for(
        bundle, classes={"least_margin": min(1.0, first - second + 0.01), "most_novelty": 0.0}
    )
    found = explain(bundle, release, [sure.identifier], recipe=strict)
    assert found.found[0].unsure.startswith(f"margin {first - second:.3f} below")
    assert ("novelty" in found.found[0].unsure) == (sure.novelty > 0)
    assert "a run calls it unclassified: margin" in stands_alone(page(found)).words


@pytest.fixture(scope="module")
def seen(bundle):
    return overview(bundle)


def test_what_a_bundle_looks_for(seen):
    assert set(seen.liked) == set(seen.start) == {"dmdt", "paper"}
    for name, one in seen.liked.items():
        assert one.images.shape == (3, *GRID.shape)
        assert (one.after >= one.before).all()
        p = softmax(expert_of(seen.bundle, name).network.logits({"image": one.images}))
        np.testing.assert_allclose(np.diag(p), one.after, atol=1e-4)
    (shares,) = seen.used.values()
    # the classes were made of these two
    assert list(shares)[:2] in (["log_period", "amplitude_1"], ["amplitude_1", "log_period"])
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


# ---- the page


class Page(HTMLParser):
    """Tags that load something, identifiers, names of pictures, and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [given[name] for name in ("src", "href", "xlink:href", "data") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        self.alts += [given["aria-label"]] if given.get("role") == "img" else []

    def handle_data(self, data):
        self.words += data


def stands_alone(text: str) -> Page:
    found = Page(text)
    assert [place for place in found.loads if not place.startswith(("#", "data:image/"))] == []
    assert re.findall(r"url\((?!#)", text) == []
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert len(set(found.ids)) == len(found.ids)
    assert {place[1:] for place in found.loads if place.startswith("#")} <= set(found.ids)
    assert "nan" not in found.words.split()
    return found


def test_the_page_tells_of_each(explained, stars):
    found = stands_alone(page(explained))
    for one in explained.found:
        assert f"{one.ranked[0][0]}, probability {one.ranked[0][1]:.3f}" in found.words
        alts = [alt for alt in found.alts if one.identifier in alt]
        assert len(alts) == 5  # the light curve and four experts
        assert [name in " ".join(alts) for name in ("trees", "folded", "dmdt", "paper")] == [True] * 4
    for name, reason in explained.missing.items():
        assert f"{name}: {reason}" in found.words
    for text in ("log10 of the period [d]", "Grad-CAM", "arXiv:1312.6034", "novelty", "weight 0.60"):
        assert text in found.words


def test_the_page_tells_of_the_gate(explained_with_gate):
    words = stands_alone(page(explained_with_gate)).words
    assert "stopped by the gate" in words
    assert "passes the gate" in words
    assert "for variable" in words


def test_the_page_of_a_bundle(seen):
    found = stands_alone(overview_page(seen))
    assert [alt for alt in found.alts if "likes best" in alt or "uses most" in alt] == found.alts
    assert len(found.alts) == 3
    assert all(leaf in found.words for leaf in CLASSES)


def test_plain_values(explained, explained_with_gate, seen):
    told = json.loads(json.dumps(as_json(explained), allow_nan=False))
    assert [curve["identifier"] for curve in told["light_curves"]] == [
        one.identifier for one in explained.found
    ]
    for curve, one in zip(told["light_curves"], explained.found, strict=True):
        assert curve["probabilities"] == pytest.approx(one.probabilities)
        rows = curve["experts"]["trees"]["features"]
        assert {row["name"] for row in rows} == set(FEATURES)
        assert sum(row["adds"] for row in rows) == pytest.approx(
            float(one.looks[0].speaks["features"].sum()), abs=1e-5
        )
        drawn = np.array(curve["experts"]["dmdt"]["saliency"]["image:count"])
        np.testing.assert_allclose(drawn, one.looks[2].speaks["image:count"], rtol=1e-3)
        assert np.shape(curve["experts"]["folded"]["class_map"]) == (64,)
    assert told["missing"] == explained.missing
    gate = json.loads(json.dumps(as_json(explained_with_gate)))["light_curves"][0]["gate"]
    assert {row["name"] for row in gate["features"]} == set(STATISTICS)
    liked = json.loads(json.dumps(overview_as_json(seen), allow_nan=False))["liked"]
    assert liked["dmdt"]["EW"]["after"] == pytest.approx(float(seen.liked["dmdt"].after[0]))


# ---- the command


def test_the_command(bundle, release, stars, tmp_path):
    asked, out = ids(stars, 2, 11), tmp_path / "deep" / "a.html"
    which = [word for name in (*asked, "12") for word in ("--id", name)]
    done = CliRunner().invoke(app, ["explain", str(bundle), release, *which, "--out", str(out)])
    assert done.exit_code == 0, done.output
    for name in asked:
        assert name in done.stdout
    assert "12: not in" in done.stderr
    text = stands_alone(out.read_text()).words
    assert all(name in text for name in asked)


def test_the_command_for_machines(bundle, release, stars):
    done = CliRunner().invoke(
        app, ["explain", str(bundle), release, "--id", ids(stars, 2)[0], "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    assert [curve["objectid"] for curve in json.loads(done.stdout)["light_curves"]] == [
        int(stars.objectid[2])
    ]


def test_the_command_about_a_bundle(bundle, tmp_path):
    done = CliRunner().invoke(app, ["explain", str(bundle), "--out", str(tmp_path / "b.html")])
    assert done.exit_code == 0, done.output
    assert "log10 of the period [d]" in done.stdout
    stands_alone((tmp_path / "b.html").read_text())


@pytest.mark.parametrize("given", [["release"], ["--id", "12"]])
def test_wrong_use(given, tmp_path):
    done = CliRunner().invoke(app, ["explain", "bundle", *given])
    assert done.exit_code == 2
    assert "RELEASE" in done.stderr


def test_a_folder_is_no_page(bundle, tmp_path):
    assert CliRunner().invoke(app, ["explain", str(bundle), "--out", str(tmp_path)]).exit_code == 2


# ---- the report


def a_catalogue(out: Path, release: str, used: Recipe, digest: str, write_catalogue) -> Path:
    """A published catalogue that was made with a bundle."""
    record = {
        "release": release, "science": used.science(), "models": {"bundle": digest},
        "recipe": used.model_dump(mode="json"),
    }  # fmt: skip
    write_catalogue(out, np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 3.0]), record=record)
    # these know no stages, and no time is to be told here
    CatalogueFolder(out).version("v1").joinpath("receipts.parquet").unlink()
    return out


def test_the_report_tells_what_the_bundle_looks_for(bundle, release, tmp_path, write_catalogue):
    digest = bundles.read_manifest(bundle).digest
    out = a_catalogue(tmp_path / "catalogue", release, recipe_for(bundle), digest, write_catalogue)
    found = Page(report(out).read_text())
    assert [place for place in found.loads if not place.startswith(("#", "data:image/"))] == []
    assert "looks-for" in found.ids
    assert "The image that each class likes best, of the expert dmdt" in found.alts
    assert "The features that trees uses most" in found.alts


def test_the_report_does_without_a_bundle(release, tmp_path, write_catalogue):
    used = recipe_for(tmp_path / "gone")
    out = a_catalogue(tmp_path / "catalogue", release, used, "0123abcd" * 8, write_catalogue)
    assert "looks-for" not in Page(report(out).read_text()).ids
