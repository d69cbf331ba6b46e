"""`pipeline/represent.py`: each view is what its kernel gives, whatever else is asked for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from lightmill.models import choice as choices
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import Chosen, choose
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.dmdt import GRIDS, dmdt_images
from lightmill.pipeline.folded import folded
from lightmill.pipeline.full import FULL, full
from lightmill.pipeline.period import search
from lightmill.pipeline.represent import represent, shape_of
from lightmill.pipeline.stages import Stages

GRID = GRIDS["mahabal2017"]
VIEWS = ("image:count", "image:paper", "folded", "scalars", "features")
WANTED = ("skew", "period_score", "candidate_0_probability")


@pytest.fixture(scope="module")
def known(waves: Callable) -> tuple[Curves, np.ndarray, Chosen]:
    """Nine light curves, their statistics and periods; one has none."""
    curves, _ = waves(9, ("EW", "EA", "RRab"))
    short = Curves(np.arange(5.0), np.arange(5.0), np.full(5, 0.1), np.array([0, 5]))
    curves = Curves.joined([curves, short])
    table = curves.statistics()
    found = search(curves.t, curves.mag, curves.magerr, curves.offsets)
    return curves, table, choose(found, table, choices.load("period-choice", COLUMNS))


@pytest.fixture(scope="module")
def kernels(known: tuple[Curves, np.ndarray, Chosen]) -> dict[str, np.ndarray]:
    """The views, straight from the kernels."""
    curves, table, chosen = known
    own = curves.t, curves.mag, curves.magerr, curves.offsets
    fold, scalars = folded(*own, chosen.frequency[:, 0])
    columns = full(*own, table, chosen)[:, [FULL.index(name) for name in WANTED]]
    images = {
        f"image:{name}": dmdt_images(own[0], own[1], own[3], GRID.dt_edges, GRID.dm_edges, normalisation=name)
        for name in ("count", "paper")
    }
    return images | {"folded": fold, "scalars": scalars, "features": columns.astype(np.float32)}


def made(
    known: tuple[Curves, np.ndarray, Chosen], needs: tuple[str, ...], **changes: object
) -> dict[str, np.ndarray]:
    curves, table, chosen = known
    given = {
        "dt_edges": GRID.dt_edges, "dm_edges": GRID.dm_edges, "statistics": table, "chosen": chosen, "features": WANTED,
    }  # fmt: skip
    return represent(curves.t, curves.mag, curves.magerr, curves.offsets, needs=needs, **given | changes)


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_alone(known, kernels, name: str):
    found = made(known, (name,))
    assert name in found
    for view, values in found.items():
        np.testing.assert_array_equal(values, kernels[view])
        assert values.dtype == np.float32


def test_all_of_them_in_any_order(known, kernels):
    for needs in (VIEWS, VIEWS[::-1], *permutations(("scalars", "image:count", "folded"))):
        found = made(known, needs)
        assert set(found) == set(needs)
        for name in needs:
            np.testing.assert_array_equal(found[name], kernels[name])


def test_only_what_is_asked_for_is_made(known):
    stage = Stages()
    made(known, ("image:count",), stage=stage)
    assert set(stage.seconds) == {"images"}
    made(known, ("folded", "scalars", "features"), stage=stage)
    assert set(stage.seconds) == {"images", "fold", "features"}
    assert made(known, ()) == {}


def test_a_light_curve_without_a_period(known, kernels):
    assert np.isnan(known[2].frequency[-1]).all()
    found = made(known, VIEWS)
    assert (found["folded"][-1] == 0).all()
    assert np.isnan(found["features"][-1, 1:]).all()
    assert found["image:count"][-1].sum() > 0


def test_colours_are_features_if_given(known):
    n, wanted = len(known[2].frequency), ("eta", "r_minus_i", "g_minus_r")
    colours = np.arange(2.0 * n).reshape(n, 2)
    found = made(known, ("features",), features=wanted, colours=colours)["features"]
    np.testing.assert_array_equal(found[:, [2, 1]], colours.astype(np.float32))
    assert np.isnan(made(known, ("features",), features=wanted)["features"][:, 1:]).all()


def test_images_need_no_period(known, kernels):
    found = made(known, ("image:paper",), chosen=None, statistics=None)
    np.testing.assert_array_equal(found["image:paper"], kernels["image:paper"])


@pytest.mark.parametrize("name", ["folded", "scalars", "features"])
def test_the_others_do(known, name: str):
    for missing in ({"chosen": None}, {"statistics": None}):
        with pytest.raises(ValueError, match=f"the view '{name}' needs a period, and none was searched"):
            made(known, ("image:count", name), **missing)


def test_unknown_views_are_named(known):
    with pytest.raises(
        ValueError, match=r"unknown view 'fold' .*; known are image:…, folded, scalars, features"
    ):
        made(known, ("fold",))
    with pytest.raises(ValueError, match="'sum'"):
        made(known, ("image:sum",))
    with pytest.raises(ValueError, match=r"unknown features colour, hue; known are n, baseline"):
        made(known, ("features",), features=("skew", "colour", "hue"))


def test_shapes_are_those_of_the_views(known):
    n_dm, n_dt = GRID.shape
    for name, view in made(known, VIEWS[:4]).items():
        assert shape_of(name, n_dm, n_dt) == view.shape[1:]


def test_no_light_curves():
    none, table = np.empty(0), np.empty((0, 34))
    found = represent(
        none, none, none, np.array([0]), needs=VIEWS, dt_edges=GRID.dt_edges, dm_edges=GRID.dm_edges,
        statistics=table, chosen=Chosen.joined([]), features=WANTED,
    )  # fmt: skip
    assert {name: view.shape for name, view in found.items()} == {
        "image:count": (0, 22, 23), "image:paper": (0, 22, 23), "folded": (0, 64, 6), "scalars": (0, 4),
        "features": (0, 3),
    }  # fmt: skip
