"""`pipeline/recipe.py`: what a recipe may say, and what decides the results."""

from __future__ import annotations

import tomllib

import pytest

from lightmill.catalogs.lightcurves import LAYOUTS
from lightmill.pipeline.dmdt import GRIDS
from lightmill.pipeline.recipe import Recipe, RecipeError, known_recipes, load_recipe, recipe_text

MINIMAL = 'name = "mine"\n[model]\nbundle = "ztf-dr"\n'


@pytest.fixture
def recipe(tmp_path):
    """Load a recipe from text."""

    def load(text: str) -> Recipe:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load_recipe(str(path))

    return load


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_that_ships(name):
    found = load_recipe(name)
    assert found.name == name
    assert found.description
    assert found.dmdt.edges().shape
    assert found.layout.choices()
    assert found.train is not None
    assert len(set(found.train.classes)) == len(found.train.classes)
    assert set(found.train.aliases.values()) <= set(found.train.classes)
    assert tomllib.loads(recipe_text(name))["name"] == name


def test_the_default_recipe_is_the_designs():
    found = load_recipe("ztf-dr")
    assert found.clean.bad_flags == 32768
    assert found.clean.min_epochs == 20
    assert found.dmdt.edges() == GRIDS["mahabal2017"]
    assert found.gate.mode == "on"


def test_the_least_that_a_recipe_says(recipe):
    found = recipe(MINIMAL)
    assert found.clean.min_epochs == 20
    assert found.layout.choices() == LAYOUTS
    assert found.train is None


# What decides the results


def test_science_fields_change_the_digest(recipe):
    digests = {
        recipe(MINIMAL + text).digest()
        for text in (
            "",
            "[clean]\nmin_epochs = 30\n",
            "[clean]\nbad_flags = 1\n",
            '[dmdt]\ngrid = "scope"\n',
            '[dmdt]\nnormalisation = "l2"\n',
            '[gate]\nmode = "off"\n',
            "[gate]\nthreshold = 0.5\n",
            '[layout]\nname = "list"\n',
        )
    }
    assert len(digests) == 8


def test_operational_and_training_fields_do_not(recipe):
    plain = recipe(MINIMAL)
    for text in (
        "[operational]\nworkers = 7\nbatch_epochs = 100\n",
        '[train]\nclasses = ["EW", "EA"]\n',
        "[clean]\nmin_epochs = 20\n",  # what is said is the default
    ):
        assert recipe(MINIMAL + text).digest() == plain.digest()
    assert recipe('description = "other words"\n' + MINIMAL).digest() == plain.digest()


# Layouts and grids


def test_a_layout_by_name(recipe):
    assert recipe(MINIMAL + '[layout]\nname = "list"\n').layout.choices() == {"list": LAYOUTS["list"]}


def test_a_layout_of_your_own(recipe):
    text = (
        '[layout]\nname = "mine"\nt = "time"\nmag = "m"\nmagerr = "e"\nobjectid = "id"\nra = "x"\ndec = "y"\n'
    )
    (layout,) = recipe(MINIMAL + text).layout.choices().values()
    assert layout.epoch_columns == ("time", "m", "e")
    assert layout.flags is None
    nested = recipe(MINIMAL + text + 'nested = "lc"\nflags = "q"\n').layout.choices()["mine"]
    assert nested.epoch_columns == ("lc.time", "lc.m", "lc.e", "lc.q")


def test_a_layout_that_says_too_little(recipe):
    with pytest.raises(
        RecipeError, match=r"\[layout\] 'mine' does not say which column is mag, magerr, objectid"
    ) as e:
        recipe(MINIMAL + '[layout]\nname = "mine"\nt = "time"\nra = "x"\ndec = "y"\n').layout.choices()
    assert "irsa-hats, list, labelled" in str(e.value)


def test_a_grid_of_your_own(recipe):
    grid = recipe(MINIMAL + "[dmdt]\ndt_edges = [0, 1, 2]\ndm_edges = [-1, 1]\n").dmdt.edges()
    assert (grid.dt_edges, grid.dm_edges) == ((0, 1, 2), (-1, 1))


@pytest.mark.parametrize("name", ["dt_edges", "dm_edges"])
def test_half_a_grid(recipe, name):
    with pytest.raises(RecipeError, match=rf"\[dmdt\] has {name} but no d._edges: give both"):
        recipe(MINIMAL + f"[dmdt]\n{name} = [0, 1]\n").dmdt.edges()


def test_an_unknown_grid(recipe):
    with pytest.raises(RecipeError, match=r"unknown grid 'sope'; known are mahabal2017, scope"):
        recipe(MINIMAL + '[dmdt]\ngrid = "sope"\n').dmdt.edges()


# What is refused


@pytest.mark.parametrize(("wrong", "near"), [("ztf-rd", "ztf-dr"), ("ZTF", "ztf-dr"), ("crts", "crts-7")])
def test_an_unknown_recipe_gets_the_nearest_name(wrong, near):
    with pytest.raises(RecipeError) as caught:
        load_recipe(wrong)
    message = str(caught.value)
    assert f"no recipe {wrong!r}" in message
    assert ", ".join(known_recipes()) in message
    if wrong.islower():
        assert f"Did you mean {near!r}?" in message


def test_no_such_file():
    with pytest.raises(
        RecipeError, match=r"no recipe file nowhere/mine\.toml; known recipes by name are crts-7"
    ):
        load_recipe("nowhere/mine.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = [", "not TOML"),
        ('name = "x"\n', "model: Field required"),
        (MINIMAL + "[clean]\nmin_epoch = 3\n", r"clean\.min_epoch: Extra inputs"),
        (MINIMAL + "[clean]\nmin_epochs = 2\n", r"clean\.min_epochs: .*greater than or equal to 3"),
        (MINIMAL + '[clean]\nmin_epochs = "many"\n', r"clean\.min_epochs: "),
        (MINIMAL + '[dmdt]\nnormalisation = "sum"\n', "unknown normalisation 'sum'; known are count"),
        (MINIMAL + "[gate]\nthreshold = 1.5\n", r"gate\.threshold: "),
        (MINIMAL + '[gate]\nmode = "maybe"\n', r"gate\.mode: .*'on' or 'off'"),
        (MINIMAL + "[operational]\nbatch_epochs = 0\n", r"operational\.batch_epochs: "),
        (MINIMAL + "colour = 1\n[clea]\n", "clea: Extra inputs"),
    ],
)
def test_fields_that_are_wrong_are_named(recipe, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe(text)
