"""`pipeline/recipe.py`: what a recipe may say, and what decides the results."""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import replace

import pytest

from lightmill.catalogs.lightcurves import LAYOUTS
from lightmill.models.trees import fit_classes
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
    assert not set(found.train.leave_out) & {*found.train.classes, *found.train.aliases}
    # what ships is asked as it was trained: all experts, of the labels' own mixture
    assert (found.classes.experts, found.classes.mix) == ((), {})
    assert (found.classes.least_margin, found.classes.most_novelty) == (0.0, 1.0)
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
            '[classes]\nexperts = ["dmdt"]\n',
            "[classes]\nmix = { EW = 1.0 }\n",
            "[classes]\nleast_margin = 0.1\n",
            "[classes]\nmost_novelty = 0.9\n",
            '[classes]\nprecision = "bfloat16"\n',
            '[period]\nmode = "on"\n',
            "[period]\nfmax = 12.0\n",
            '[gate]\nmode = "off"\n',
            "[gate]\nthreshold = 0.5\n",
            '[layout]\nname = "list"\n',
        )
    }
    assert len(digests) == 14


def test_operational_and_training_fields_do_not(recipe):
    plain = recipe(MINIMAL)
    for text in (
        "[operational]\nworkers = 7\nbatch_epochs = 100\n",
        '[operational]\nengine = "openvino"\n',
        '[train]\nclasses = ["EW", "EA"]\n[train.trees.trees]\n',
        '[train]\nclasses = ["EW", "EA"]\n[train.networks.dmdt]\narchitecture = "dmdt"\n',
        "[clean]\nmin_epochs = 20\n",  # what is said is the default
    ):
        assert recipe(MINIMAL + text).digest() == plain.digest()
    assert recipe('description = "other words"\n' + MINIMAL).digest() == plain.digest()


# Layouts and grids


def test_a_layout_by_name(recipe):
    assert recipe(MINIMAL + '[layout]\nname = "list"\n').layout.choices() == {"list": LAYOUTS["list"]}


@pytest.mark.parametrize("name", known_recipes())
def test_what_a_bundle_remembers_is_the_recipe(name):
    """With every field told, those that are none too."""
    found = load_recipe(name)
    again = Recipe.model_validate({"name": name, "model": {"bundle": name}} | found.science())
    assert again.layout.choices() == found.layout.choices()
    assert again.digest() == found.digest()


def test_a_layout_of_your_own(recipe):
    text = (
        '[layout]\nname = "mine"\nt = "time"\nmag = "m"\nmagerr = "e"\nobjectid = "id"\nra = "x"\ndec = "y"\n'
    )
    (layout,) = recipe(MINIMAL + text).layout.choices().values()
    assert layout.epoch_columns == ("time", "m", "e")
    assert layout.flags is None
    nested = recipe(MINIMAL + text + 'nested = "lc"\nflags = "q"\n').layout.choices()["mine"]
    assert nested.epoch_columns == ("lc.time", "lc.m", "lc.e", "lc.q")


@pytest.mark.parametrize(("name", "known"), [("auto", list(LAYOUTS)), ("list", ["list"])])
def test_the_passbands_column_of_a_known_layout(recipe, name, known):
    found = recipe(MINIMAL + f'[layout]\nname = "{name}"\nfilterid = "band"\n').layout.choices()
    assert found == {one: replace(LAYOUTS[one], filterid="band") for one in known}


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
        (MINIMAL + '[dmdt]\nnormalisation = "count"\n', r"dmdt\.normalisation: Extra inputs"),
        (MINIMAL + "[classes]\nleast_margin = 1.5\n", r"classes\.least_margin: .*less than or equal to 1"),
        (
            MINIMAL + "[classes]\nmost_novelty = -0.1\n",
            r"classes\.most_novelty: .*greater than or equal to 0",
        ),
        (MINIMAL + '[classes]\nexperts = "dmdt"\n', r"classes\.experts: .*tuple"),
        (MINIMAL + '[classes]\nmix = { EW = "much" }\n', r"classes\.mix\.EW: .*number"),
        (MINIMAL + "[period]\nfmin = 5.0\nfmax = 1.0\n", r"fmin must be below fmax, got 5\.0 and 1\.0"),
        (MINIMAL + "[gate]\nthreshold = 1.5\n", r"gate\.threshold: "),
        (MINIMAL + '[gate]\nmode = "maybe"\n', r"gate\.mode: .*'on' or 'off'"),
        (MINIMAL + "[operational]\nbatch_epochs = 0\n", r"operational\.batch_epochs: "),
        (MINIMAL + "colour = 1\n[clea]\n", "clea: Extra inputs"),
    ],
)
def test_fields_that_are_wrong_are_named(recipe, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe(text)


# Experts to train

TRAIN = MINIMAL + '[train]\nclasses = ["EW", "EA"]\n'
TREES = "[train.trees.forest]\nrounds = 7\n"
NETWORK = '[train.networks.picture]\narchitecture = "dmdt"\n'


def test_experts_are_tables_by_name(recipe):
    found = recipe(
        TRAIN + TREES + NETWORK + 'normalisation = "l2"\nepochs = 3\nparameters = { dense = 32 }\n'
        '[train.networks.paper]\narchitecture = "mahabal2017"\nreference = true\n'
    ).train
    assert list(found.trees) == ["forest"]
    assert (found.trees["forest"].rounds, found.trees["forest"].leaves) == (7, 20)
    assert list(found.networks) == ["picture", "paper"]
    picture = found.networks["picture"]
    assert (picture.architecture, picture.normalisation, picture.epochs) == ("dmdt", "l2", 3)
    assert picture.parameters == {"dense": 32}
    assert (picture.reference, found.networks["paper"].reference) == (False, True)


@pytest.mark.parametrize("one", [TREES, NETWORK])
def test_one_expert_is_enough(recipe, one):
    found = recipe(TRAIN + one).train
    assert len(found.trees) + len(found.networks) == 1


def test_the_defaults_of_trees_are_those_of_the_function(recipe):
    own = recipe(TRAIN + "[train.trees.forest]\n").train.trees["forest"].model_dump()
    known = inspect.signature(fit_classes).parameters
    assert own == {name: known[name].default for name in own}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRAIN, r"train: .*no expert: add a table \[train\.networks\.NAME\] or \[train\.trees\.NAME\]"),
        (TRAIN + NETWORK + "reference = true\n", "no expert"),
        (
            TRAIN + "[train.trees.picture]\n" + NETWORK,
            r"experts \['picture'\] are networks and trees at once",
        ),
        (
            TRAIN + '[train.networks.a]\narchitecture = "resnet"\n',
            "unknown architecture 'resnet'; known are mahabal2017, dmdt, folded",
        ),
        (TRAIN + "[train.networks.a]\n", r"train\.networks\.a\.architecture: Field required"),
        (TRAIN + NETWORK + 'normalisation = "sum"\n', "unknown normalisation 'sum'; known are count"),
        (TRAIN + NETWORK + "smoothing = 1.0\n", r"train\.networks\.picture\.smoothing: "),
        (TRAIN + NETWORK + "epochs = 0\n", r"train\.networks\.picture\.epochs: "),
        (TRAIN + NETWORK + "learning_rate = 0.0\n", r"train\.networks\.picture\.learning_rate: "),
        (TRAIN + NETWORK + "depth = 3\n", r"train\.networks\.picture\.depth: Extra inputs"),
        (TRAIN + TREES + "depth = 3\n", r"train\.trees\.forest\.depth: Extra inputs"),
        (TRAIN + "[train.trees.forest]\nrounds = 0\n", r"train\.trees\.forest\.rounds: "),
        (TRAIN + "[train.trees.forest]\ncolumns_per_tree = 0.0\n", "columns_per_tree: "),
        (TRAIN + "folds = 1\n" + TREES, r"train\.folds: .*greater than or equal to 2"),
        (TRAIN + "gate_recall = 1.0\n" + TREES, r"train\.gate_recall: "),
        (TRAIN + "epochs = 3\n" + TREES, r"train\.epochs: Extra inputs"),
        (MINIMAL + "[train]\n" + TREES, r"train\.classes: Field required"),
    ],
)
def test_training_that_is_wrong_is_named(recipe, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe(text)


@pytest.mark.parametrize("name", ["Trees", "9trees", "gate", "my trees", "golden"])
def test_a_name_that_no_file_can_have_is_refused_before_training(recipe, name):
    """A bundle keeps each expert in a file of its name, and has files of its own."""
    with pytest.raises(RecipeError, match=rf"'{name}'"):
        recipe(TRAIN + f'[train.trees."{name}"]\n')
