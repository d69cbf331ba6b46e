"""Publishing by hand: which runs a name on the command line means, and which partitions they should have."""

from __future__ import annotations

from collections.abc import Sequence

from lightmill.catalogs import storage
from lightmill.catalogs.chain import Key
from lightmill.catalogs.ledger import LedgerError, open_ledger
from lightmill.catalogs.ledger_rebuild import refresh_versions
from lightmill.catalogs.publish import MARGIN, PublishError, publish
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.catalogs.versions import Version
from lightmill.pipeline.planfile import load_plan

__all__ = ["asked_for", "find_runs", "publish_runs", "tell_ledger"]


def publish_runs(
    places: Sequence[str],
    name: str | None = None,
    *,
    min_complete: float = 1.0,
    allow_mixture: bool = False,
    make_current: bool = True,
    margin: float = MARGIN,
    deep: bool = False,
) -> Version | None:
    """Publish the runs at some places, in that order, as the next version of their catalogue; as `publish` says.

    Parameters
    ----------
    places : folders of runs, or of a catalogue: all its runs, the newest first

    Raises
    ------
    NotAnOutput
        if there is no run at a place.
    PublishError
        besides its other reasons: if the runs are of different catalogues.
    """
    runs = find_runs(places)
    catalogues = {str(run.catalogue.root): run.catalogue for run in runs}
    if len(catalogues) > 1:
        raise PublishError(
            f"the runs are of {len(catalogues)} catalogues, {' and '.join(sorted(catalogues)[:2])}: a version is "
            "made of the runs of one"
        )
    (catalogue,) = catalogues.values()
    facts = runs[0].facts()
    recipe = facts.get("recipe", {})
    title = str(recipe.get("name") or catalogue.root.name)
    bundle = (recipe.get("model") or {}).get("bundle", "")
    digest = facts.get("models", {}).get("bundle", "")
    wanted, accept = asked_for(runs)
    return publish(
        catalogue,
        runs,
        name,
        wanted=wanted,
        accept=accept,
        min_complete=min_complete,
        allow_mixture=allow_mixture,
        catalogue_name=title,
        provenance={
            "lightmill_release": str(facts.get("release", "")),
            "lightmill_recipe": title,
            "lightmill_bundle": f"{bundle}-{digest[:8]}",
        },
        make_current=make_current,
        margin=margin,
        deep=deep,
    )


def tell_ledger(catalogue: CatalogueFolder, ledger: str | None = None) -> str | None:
    """Let the ledger know of the versions that there are now; None, or why it could not be told.

    Versions are in their files: `lightmill ledger rebuild` finds them again.
    """
    try:
        with open_ledger(ledger, catalogue) as opened:
            refresh_versions(opened, catalogue)
    except LedgerError as error:
        return str(error)
    return None


def find_runs(places: Sequence[str]) -> list[RunFolder]:
    """The runs at some places, each once; NotAnOutput where there is none."""
    found: dict[str, RunFolder] = {}
    for text in places:
        place = storage.place(text.rstrip("/"))
        run = RunFolder(place)
        runs = [run] if run.record.exists() else list(CatalogueFolder(place).runs())
        if not runs:
            raise NotAnOutput(
                f"{text} is neither a run (CATALOGUE/runs/ID, with a run.json) nor a catalogue that has any: give one "
                "that lightmill run made"
            )
        found |= {str(one.root): one for one in runs if str(one.root) not in found}
    return list(found.values())


def asked_for(runs: Sequence[RunFolder]) -> tuple[set[Key], dict[Key, str]]:
    """The partitions that runs should have, and the fingerprint that alone counts of each, where a plan names one.

    Those of their plans, of a run without a plan those that it has; the first plan that knows a partition decides. Of
    what it says is no partition of the release any more, nothing is wanted; of what it keeps out, or leaves as it was
    though it is not up to date, no fingerprint counts.
    """
    wanted: set[Key] = set()
    accept: dict[Key, str] = {}
    gone: set[Key] = set()
    for run in runs:
        if not run.plan.exists():
            wanted |= run.done().keys() - gone
            continue
        plan = load_plan(run.plan)
        said = {task.key: task.fingerprint for task in plan.tasks}
        said |= {unit.key: unit.fingerprint for unit in plan.current}
        said |= dict.fromkeys((*plan.quarantined, *plan.left), "")
        gone |= set(plan.orphans) - wanted
        accept |= {key: print_ for key, print_ in said.items() if key not in wanted}
        wanted |= said.keys() - gone
    return wanted, accept | dict.fromkeys(gone, "")
