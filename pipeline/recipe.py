"""Recipes: what is done to a release, as a TOML file checked by pydantic (DESIGN.md, section 1).

The *science* fields decide what comes out and are part of a unit's fingerprint; the *operational* fields decide only
how fast; the *training* fields are read by `lightmill train` alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lightmill.catalogs.lightcurves import LAYOUTS, Layout
from lightmill.models.architectures import ARCHITECTURES
from lightmill.models.manifest import NAME, TAKEN
from lightmill.pipeline.dmdt import GRIDS, NORMALISATIONS, Grid

__all__ = ["Recipe", "RecipeError", "known_recipes", "load_recipe", "recipe_text"]


class RecipeError(ValueError):
    """A recipe does not exist or does not hold what it should."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayoutTable(_Table):
    """`[layout]`: a known layout by name ("auto": the first that fits), or the names of your own columns."""

    name: str = "auto"
    nested: str | None = None
    t: str | None = None
    mag: str | None = None
    magerr: str | None = None
    flags: str | None = None
    objectid: str | None = None
    ra: str | None = None
    dec: str | None = None
    filterid: str | None = None
    label: str | None = None
    group: str | None = None
    period: str | None = None

    def choices(self) -> dict[str, Layout]:
        """The layouts that a release may have under this recipe, by name."""
        given = self.model_dump(exclude_none=True)  # not exclude_unset: a bundle remembers all fields
        usual = LAYOUTS if self.name == "auto" else {k: v for k, v in LAYOUTS.items() if k == self.name}
        if usual and set(given) <= {"name", "filterid"}:
            bands = {"filterid": given["filterid"]} if "filterid" in given else {}
            return {name: replace(layout, **bands) for name, layout in usual.items()}
        required = ("t", "mag", "magerr", "objectid", "ra", "dec")
        missing = [key for key in required if not given.get(key)]
        if missing:
            known = f"known layouts are auto, {', '.join(LAYOUTS)}"
            raise RecipeError(
                f"[layout] {self.name!r} does not say which column is {', '.join(missing)}; {known}, and one of your "
                f"own must name {', '.join(required)}"
            )
        return {self.name: Layout(**self.model_dump())}


class CleanTable(_Table):
    """`[clean]`: which epochs count, and how many a light curve needs."""

    bad_flags: int = Field(default=32768, ge=0)
    min_epochs: int = Field(default=20, ge=3)

    def limits(self) -> dict[str, Any]:
        """The arguments of `clean.clean`."""
        return self.model_dump(include={"bad_flags", "min_epochs"})


class DmdtTable(_Table):
    """`[dmdt]`: a known grid by name, or edges of your own."""

    grid: str = "mahabal2017"
    dt_edges: tuple[float, ...] | None = None
    dm_edges: tuple[float, ...] | None = None

    def edges(self) -> Grid:
        """The grid that is meant."""
        if self.dt_edges and self.dm_edges:
            return Grid(self.dt_edges, self.dm_edges)
        if self.dt_edges or self.dm_edges:
            given, other = ("dt_edges", "dm_edges") if self.dt_edges else ("dm_edges", "dt_edges")
            raise RecipeError(f"[dmdt] has {given} but no {other}: give both, or neither and a grid by name")
        if self.grid not in GRIDS:
            raise RecipeError(
                f"[dmdt] unknown grid {self.grid!r}; known are {', '.join(GRIDS)}, or give both dt_edges and dm_edges"
            )
        return GRIDS[self.grid]


class GateTable(_Table):
    """`[gate]`: "on" classifies what the gate takes for variable, "off" everything."""

    mode: Literal["on", "off"] = "on"
    threshold: float | None = Field(default=None, ge=0, le=1)  #: p_variable to pass; None: the bundle's own


class PeriodTable(_Table):
    """`[period]`: "on" searches a period in what passes the gate; frequencies in 1/d."""

    mode: Literal["on", "off"] = "off"
    fmin: float = Field(default=0.0005, gt=0)
    fmax: float = Field(default=25.0, gt=0)
    oversampling: float = Field(default=1.5, ge=1)
    candidates: int = Field(default=30, ge=1)  #: peaks that are judged, each with its half
    choice: str = "period-choice"  #: which of the candidates: a model by name, or the path of its folder

    @model_validator(mode="after")
    def _ordered(self) -> PeriodTable:
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin must be below fmax, got {self.fmin} and {self.fmax}")
        return self

    def limits(self) -> dict[str, Any]:
        """The arguments of `period.search`."""
        return self.model_dump(include={"fmin", "fmax", "oversampling", "candidates"})


class ClassesTable(_Table):
    """`[classes]`: who is asked about the class, and what is made of the answers."""

    experts: tuple[str, ...] = ()  #: of the bundle; none named: all
    precision: Literal["float32", "bfloat16"] = "float32"  #: of networks; see `models.networks.configure`
    mix: dict[
        str, float
    ] = {}  #: shares of the classes among the survey's variables; none: those of the labels
    least_margin: float = Field(default=0.0, ge=0, le=1)  #: below, best_class is "unclassified"
    most_novelty: float = Field(default=1.0, ge=0, le=1)  #: above, likewise


class ModelTable(_Table):
    """`[model]`: the bundle to apply, by the name it ships under or by path."""

    bundle: str


class OperationalTable(_Table):
    """`[operational]`: how it is run; changes nothing in the results."""

    batch_epochs: int = Field(default=2_000_000, ge=1)  #: epochs in memory at a time, per worker
    workers: int = Field(default=0, ge=0)  #: worker processes; 0: one a core
    timeout: float = Field(default=0.0, ge=0)  #: for one partition [s]; 0: twenty times what the plan expects
    engine: Literal["keras", "openvino"] = "keras"  #: that applies networks


class TreesTable(_Table):
    """`[train.trees.NAME]`: an expert that is boosted trees on the full features; see `models.trees.fit_classes`."""

    rounds: int = Field(default=350, ge=1)
    leaves: int = Field(default=20, ge=2)
    learning_rate: float = Field(default=0.05, gt=0)
    columns_per_tree: float = Field(default=0.25, gt=0, le=1)
    least_weight: float = Field(default=2.0, ge=0)
    shrinkage: float = Field(default=2.0, ge=0)


class NetworkTable(_Table):
    """`[train.networks.NAME]`: an expert that is a network."""

    architecture: str
    normalisation: str = "count"  #: of its images, if it takes any
    #: of the architecture, for example scale: images are multiplied by it
    parameters: dict[str, int | float] = {}
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)  #: peak of the cycle
    smoothing: float = Field(default=0.03, ge=0, lt=1)
    turns: int = Field(
        default=1, ge=1, le=4
    )  #: phases at which a folded light curve is begun; answers are averaged
    reference: bool = False  #: only measured, beside the others: it answers nothing

    @field_validator("normalisation")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NORMALISATIONS:
            raise ValueError(f"unknown normalisation {value!r}; known are {', '.join(NORMALISATIONS)}")
        return value

    @field_validator("architecture")
    @classmethod
    def _built(cls, value: str) -> str:
        if value not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {value!r}; known are {', '.join(ARCHITECTURES)}")
        return value


class TrainTable(_Table):
    """`[train]`: how `lightmill train` makes a bundle for this recipe."""

    classes: tuple[str, ...]  #: the leaves that the experts tell apart
    aliases: dict[str, str] = {}  #: label in the table → leaf, for example beta_lyrae = "EW"
    leave_out: tuple[
        str, ...
    ] = ()  #: labels of the table that are not asked for; any other unknown one is refused
    folds: int = Field(default=5, ge=2)
    draws: int = Field(
        default=8, ge=1
    )  #: sets of augmented or re-observed examples, taken in turn by the epochs
    seed: int = 0
    gate_recall: float = Field(default=0.98, gt=0, lt=1)  #: of injected variables, which sets the threshold
    trees: dict[str, TreesTable] = {}
    networks: dict[str, NetworkTable] = {}

    @model_validator(mode="after")
    def _some(self) -> TrainTable:
        if not self.trees and all(network.reference for network in self.networks.values()):
            raise ValueError("no expert: add a table [train.networks.NAME] or [train.trees.NAME]")
        if set(self.trees) & set(self.networks):
            raise ValueError(
                f"experts {sorted(set(self.trees) & set(self.networks))} are networks and trees at once"
            )
        for name in (*self.trees, *self.networks):
            if not re.match(NAME, name) or name in TAKEN:
                raise ValueError(
                    f"expert {name!r}: a name is of small letters, digits and _, begins with a letter, and is none of "
                    f"{', '.join(TAKEN)}"
                )
        return self


class Recipe(_Table):
    """One recipe, whole."""

    name: str
    description: str = ""
    layout: LayoutTable = LayoutTable()
    clean: CleanTable = CleanTable()
    dmdt: DmdtTable = DmdtTable()
    gate: GateTable = GateTable()
    period: PeriodTable = PeriodTable()
    classes: ClassesTable = ClassesTable()
    model: ModelTable
    operational: OperationalTable = OperationalTable()
    train: TrainTable | None = None

    def science(self) -> dict[str, object]:
        """The fields that decide the results, as plain JSON values."""
        return self.model_dump(mode="json", include={"layout", "clean", "dmdt", "gate", "period", "classes"})

    def digest(self) -> str:
        """sha256 of the science fields."""
        return hashlib.sha256(json.dumps(self.science(), sort_keys=True).encode()).hexdigest()


def known_recipes() -> tuple[str, ...]:
    """Names of the recipes that ship with Lightmill."""
    folder = resources.files("lightmill.pipeline") / "recipes"
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name or by the path of a TOML file.

    Raises
    ------
    RecipeError
        if there is no such recipe (with the nearest name), or a field is unknown or has a wrong value.
    """
    text = recipe_text(name)
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name}: not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"recipe {name}: {problems}") from error


def recipe_text(name: str) -> str:
    """The TOML of a recipe, by name or path."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise RecipeError(
                f"no recipe file {name}; known recipes by name are {', '.join(known_recipes())}"
            )
        return path.read_text()
    if name in known_recipes():
        return (resources.files("lightmill.pipeline") / "recipes" / f"{name}.toml").read_text()
    near = difflib.get_close_matches(name, known_recipes(), n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RecipeError(
        f"no recipe {name!r}.{hint} Known are {', '.join(known_recipes())}, or give a .toml file"
    )
