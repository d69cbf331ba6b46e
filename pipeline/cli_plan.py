"""`lightmill plan`: what a run would compute, why, and what that should cost, before it costs anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import (
    BoxOption,
    ConeOption,
    MocOption,
    Summarise,
    TextOrJson,
    Workers,
    messages,
    print_json,
    region_of,
)
from lightmill.pipeline.plan import DEFAULT_TRIGGERS, POLICIES, TRIGGERS

if TYPE_CHECKING:
    from lightmill.pipeline.explain_plan import Explanation
    from lightmill.pipeline.plan import Plan

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(plan)


def plan(
    release: Annotated[
        str, typer.Argument(help="HATS catalogue of light curves: path or fsspec URL; or a saved plan.")
    ],
    recipe: Annotated[str | None, typer.Option(help="Recipe, by name or path (default ztf-dr).")] = None,
    catalogue: Annotated[
        str | None,
        typer.Option(help="Catalogue that it is planned for, path or URL; without it everything is new."),
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="|".join(POLICIES), help="Which partitions to compute.")
    ] = "stale",
    triggers: Annotated[
        str, typer.Option(metavar="A,B", help=f"Changes that make one stale, of {', '.join(TRIGGERS)}.")
    ] = ",".join(DEFAULT_TRIGGERS),
    cone: ConeOption = None,
    box: BoxOption = None,
    moc: MocOption = None,
    pixels: Annotated[
        str | None, typer.Option(metavar="ORDER/PIXEL,…", help="Only these partitions, as 5/12014,5/12015.")
    ] = None,
    workers: Workers = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="PLAN", help="Save the plan: path, or URL of a .plan.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="ORDER/PIXEL", help="Show why this partition is in its state.")
    ] = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Show what a run would compute and why, with what that should cost; save it with --out for `lightmill run PLAN`.

    Policies: missing (no run has computed it), failed (the last run gave it up), stale (both, and what has changed by
    a trigger), all. A saved plan is shown as it is.

    Example: `lightmill plan release --recipe ztf-dr --catalogue catalogue --out week.plan`

    Example: `lightmill plan release --catalogue catalogue --explain 5/12014`
    """
    chosen = tuple(name.strip() for name in triggers.split(",") if name.strip())
    _check(policy, chosen)
    from lightmill.pipeline.planfile import SUFFIXES, is_plan, load_plan, save_plan

    if is_plan(release):
        given = {
            "--recipe": recipe, "--catalogue": catalogue, "--cone": cone, "--box": box, "--moc": moc,
            "--pixels": pixels, "--workers": workers, "--out": out, "--explain": explain,
        }  # fmt: skip
        if extra := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(
                f"{release} is a saved plan: it is only shown, without {', '.join(extra)}"
            )
        _print_plan(load_plan(release), form, None)
        return
    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.pipeline.recipe import load_recipe

    folder = None
    if catalogue is not None:
        folder = CatalogueFolder.at(catalogue)
        folder.check()
    applied = load_recipe(recipe or "ztf-dr")
    if explain is not None:
        from lightmill.pipeline.explain_plan import explain_partition

        (key,) = _pixels(explain, "--explain", single=True)
        found = explain_partition(release, applied, key, catalogue=folder, policy=policy, triggers=chosen)
        _print_explanation(found, form)
        return
    if out is not None and "://" in out and not is_plan(out):
        raise typer.BadParameter(f"--out {out}: addresses of plans end with {' or '.join(SUFFIXES)}")
    from lightmill.pipeline.planning import make_plan

    made = make_plan(
        release, applied, catalogue=folder, region=region_of(cone, box, moc),
        pixels=None if pixels is None else _pixels(pixels, "--pixels"), policy=policy, triggers=chosen,
        workers=workers,
    )  # fmt: skip
    if out is not None:
        save_plan(made, out)
    _print_plan(made, form, out)


def _check(policy: str, triggers: tuple[str, ...]) -> None:
    if policy not in POLICIES:
        raise typer.BadParameter(f"--policy {policy!r} is none of {', '.join(POLICIES)}")
    if unknown := [name for name in triggers if name not in TRIGGERS]:
        raise typer.BadParameter(f"--triggers {', '.join(unknown)}: known are {', '.join(TRIGGERS)}")


def _pixels(text: str, option: str, *, single: bool = False) -> list[tuple[int, int]]:
    """`5/12014,5/12015` → [(5, 12014), (5, 12015)]; anything else is wrong use."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,2})/(\d{1,19})\s*", part)
        if match is None:
            raise typer.BadParameter(f"{option} {part!r} is not ORDER/PIXEL, for example 5/12014")
        order, pixel = int(match[1]), int(match[2])
        if order > 29 or pixel >= 12 * 4**order:
            raise typer.BadParameter(
                f"{option} {part}: orders go to 29, pixels of order {order} to {12 * 4 ** min(order, 29) - 1:,}"
            )
        found.append((order, pixel))
    if single and len(found) != 1:
        raise typer.BadParameter(f"{option} takes one partition, got {len(found)}")
    return found


def _print_plan(made: Plan, form: TextOrJson, saved: str | None) -> None:
    from lightmill.pipeline.plan_lines import lines_of, plan_facts, total_of

    if form is TextOrJson.json:
        print_json(plan_facts(made) | {"saved": saved})
        return
    note = "light curves, core-hours and memory are estimates" if made.tasks else None
    table = Table(box=None, caption=note, caption_justify="left")
    table.add_column("why")
    for name in ("partitions", "light curves", "size", "core-hours", "memory a worker"):
        table.add_column(name, justify="right")
    for line in (*lines_of(made), total_of(made)):
        table.add_row(
            line.what,
            f"{line.partitions:,}",
            *(
                ("", "", "", "")
                if line.rows is None
                else (
                    f"{line.rows:,}",
                    _size(line.bytes or 0),
                    f"{line.core_hours or 0:,.2f}",
                    _size(line.memory or 0),
                )
            ),
        )
    Console(width=140).print(table)
    if saved is not None:
        messages.print(
            f"saved as {saved}: lightmill run {saved} --out CATALOGUE", markup=False, soft_wrap=True
        )


def _size(size: int) -> str:
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def _print_explanation(found: Explanation, form: TextOrJson) -> None:
    if form is TextOrJson.json:
        print_json(found.facts())
        return
    table = Table(show_header=False, box=None)
    for name, text in _told(found):
        table.add_row(name, text)
    Console(width=250, markup=False).print(table)


def _told(found: Explanation) -> list[tuple[str, str]]:
    """An explanation as lines for people."""
    lines = [
        (f"{found.order}/{found.pixel}", f"{found.state}: {found.reason}"),
        ("policy", f"{found.policy}, triggers {', '.join(found.triggers) or 'none'}"),
        ("wanted", found.fingerprint[:16] or "nothing"),
        ("compared with", f"run {found.compared_with}, {str(found.before)[:16]}" if found.compared_with
         else "no run has computed it"),
    ]  # fmt: skip
    for one in found.input:
        before, now = (
            f"{file.size:,} bytes, {file.stamp}" if file else "none" for file in (one.before, one.now)
        )
        lines.append(
            (f"input {one.name}", f"{now}, as before" if one.same else f"was {before}, now it is {now}")
        )
    for kind, fields in found.changed.items():
        note = "" if kind in found.triggers or not fields else " (no trigger)"
        lines += [(kind + note, text) for text in fields or ("as before",)]
    for tried in found.attempts:
        error = f": {tried['error_class']}: {tried['error']}" if tried["error"] else ""
        lines.append((f"try {tried['attempt']} of {tried['run_id']}", f"{tried['outcome']}{error}"))
    if found.quarantine is not None:
        lines.append(
            ("quarantine", f"since {found.quarantine['since']}: {found.quarantine['error_class']}: "
             f"{found.quarantine['error']}")
        )  # fmt: skip
    if found.overlaps:
        lines.append(("in its place", ", ".join(f"{order}/{pixel}" for order, pixel in found.overlaps)))
    return lines
