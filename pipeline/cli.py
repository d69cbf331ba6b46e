"""The command line: each command parses, calls one library function and prints (data on stdout, messages on stderr).

Exit codes: 0 done; 1 it could not be done, with one line that says why; 2 wrong use; 3 done, but for some partitions.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline import (
    cli_audit,
    cli_compare,
    cli_explain,
    cli_labels,
    cli_ledger,
    cli_models,
    cli_plan,
    cli_publish,
    cli_report,
    cli_runs,
)
from lightmill.pipeline.cli_common import (
    BoxOption,
    ConeOption,
    LedgerOption,
    MocOption,
    Out,
    Summarise,
    TextOrJson,
    Workers,
    cone_of,
    local,
    messages,
    pairs,
    print_facts,
    print_json,
    region_of,
)

# what a command needs beyond this is imported inside it: `query` must not wait for Dask, nor Dask for TensorFlow
if TYPE_CHECKING:
    import pyarrow as pa

    from lightmill.pipeline.run import Summary

__all__ = ["app", "main"]

TERMINAL_COLUMNS = (
    "objectid", "ra", "dec", "filterid", "n_good", "mag_mean", "amplitude", "best_class", "best_prob", "period",
)  # fmt: skip
DISTINCTIVE = ("objectid", "best_class", "run_id")  #: columns by which a whole catalogue row is known

PARTIAL = 3  #: exit code: finished, but some partitions failed
INTERRUPTED = 130  #: exit code: Ctrl-C, as a shell has it

app = typer.Typer(
    name="lightmill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Classify whole archival data releases of light curves: HATS in, classification catalogue out.",
)


class Form(StrEnum):
    """Output of `query`."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    votable = "votable"
    fits = "fits"


class SimulatedLayout(StrEnum):
    """How `simulate` stores epochs."""

    nested = "nested"
    list = "list"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lightmill {installed_version('lightmill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command("import")
def import_command(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC…", help="Parquet files, or folders of them.")],
    out: Out,
    workers: Workers = None,
    recipe: Annotated[str, typer.Option(help="Recipe whose [layout] names the columns.")] = "ztf-dr",
    form: Summarise = TextOrJson.table,
) -> None:
    """Make a HATS release of bulk light-curve Parquet files.

    Example: `lightmill import ztf_000250_zg_c01_q1_dr5.parquet --out release`
    """
    from lightmill.models.extras import need
    from lightmill.pipeline.recipe import load_recipe

    need("hats_import", extra="import")
    from lightmill.pipeline.bulk import import_files

    done = import_files(
        sources,
        out,
        layouts=load_recipe(recipe).layout.choices(),
        workers=workers,
        progress=messages.is_terminal,
    )
    print_facts(asdict(done), form)


@app.command()
def simulate(
    n: Annotated[int, typer.Option("--n", help="Light curves to make.")],
    out: Out,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    layout: Annotated[SimulatedLayout, typer.Option(help="How epochs are stored.")] = SimulatedLayout.nested,
    variable_fraction: Annotated[float, typer.Option(help="Share of variable objects.")] = 0.025,
    workers: Workers = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Write a ZTF-like release of any size, with a truth table.

    Example: `lightmill simulate --n 20000 --out release --seed 1`
    """
    from lightmill.pipeline.progress import bar
    from lightmill.pipeline.simulate import simulate as make

    with bar(messages, "simulating") as report:
        done = make(
            out,
            n,
            seed=seed,
            layout=layout.value,
            variable_fraction=variable_fraction,
            processes=workers,
            progress=report,
        )
    print_facts(asdict(done), form)


@app.command()
def train(
    labels: Annotated[
        Path,
        typer.Option(
            help="Labelled light curves: Parquet with id, label, mjd[], mag[], magerr[]; filterid, ra, dec for colours."
        ),
    ],
    out: Out,
    recipe: Annotated[str, typer.Option(help="Recipe to train for, by name or path.")] = "ztf-dr",
    survey: Annotated[
        list[Path] | None,
        typer.Option(help="Light curves of the survey, for a gate: real epochs, errors, non-variables."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="Folder for TensorBoard: loss, percentiles of inputs, activations, outputs."),
    ] = None,
    periods: Annotated[
        bool,
        typer.Option(
            "--periods", help="Train the choice among candidate periods; LABELS must have a column period."
        ),
    ] = False,
) -> None:
    """Train the bundle of a recipe and write its model card; or, with --periods, its choice of periods.

    Example: `lightmill train --labels crts_css_labelled.parquet --recipe crts-7 --out bundle`

    Example: `lightmill train --labels crts_css_labelled.parquet --periods --out choice`
    """
    from lightmill.pipeline.recipe import load_recipe

    if periods:
        from lightmill.pipeline.fit_choice import fit_choice

        print_json(fit_choice(labels, load_recipe(recipe), out, seed=seed or 0, progress=messages.print))
        return
    from lightmill.pipeline.train import train as make

    metrics = make(
        labels, load_recipe(recipe), out, survey=survey or (), seed=seed, log=log, progress=messages.print
    )
    print_json(metrics)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="Bundle, by name or path.")],
    labels: Annotated[Path, typer.Option(help="Labelled light curves.")],
    rename: Annotated[
        list[str] | None, typer.Option("--map", metavar="A=B", help="Take label A of the table for class B.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these classes; may be given several times.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe for layout and cuts (default: the bundle's name).")
    ] = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Apply a bundle to labelled light curves and measure how right it is.

    Example: `lightmill evaluate crts-7 --labels stars.parquet --map beta_lyrae=EW --only EW,EA,RRab --format json`
    """
    from lightmill.pipeline.evaluate import evaluate as measure

    classes = [name for names in only or [] for name in names.split(",")]
    figures = measure(bundle, labels, aliases=pairs(rename or []), only=classes or None, recipe=recipe)
    if figures["trained_on_these"]:
        messages.print(
            f"{bundle} was trained on this very file: the figures flatter; its card has those of held-out folds"
        )
    if figures["with_colour"] is not None:
        messages.print(f"trees know a colour of {figures['with_colour']} of {figures['n']} light curves")
    if form is TextOrJson.json:
        print_json(figures)
        return
    _print_evaluation(figures)


@app.command()
def run(
    release: Annotated[
        str, typer.Argument(help="HATS catalogue of light curves: path or fsspec URL; or a saved plan.")
    ],
    out: Annotated[str, typer.Option("--out", help="Catalogue: path, or fsspec URL of an object store.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe, by name or path (default ztf-dr; of a plan only its [operational])."),
    ] = None,
    workers: Workers = None,
    cone: ConeOption = None,
    box: BoxOption = None,
    moc: MocOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address or file of a Dask scheduler (default: processes of this machine)."),
    ] = None,
    ledger: LedgerOption = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Classify a release into a HATS catalogue; run it again to do only what is missing.

    With a release: plans, executes and publishes in one go. A cone, box or coverage map chooses whole partitions.
    With a plan (`lightmill plan … --out PLAN`): executes exactly that, and publishes nothing.

    SIGINT (Ctrl-C) or SIGTERM lets what is under way finish; a second one stops at once. Exit codes: 0 done; 3 done,
    but partitions failed; 130 or 143 stopped by SIGINT or SIGTERM, the same command goes on.

    Example: `lightmill run release --recipe ztf-dr --out catalogue --workers 2`

    Example: `lightmill run week.plan --out s3://archive/catalogue --scheduler tcp://head:8786`
    """
    import signal

    from lightmill.pipeline.execute import Machine
    from lightmill.pipeline.planfile import is_plan, load_plan
    from lightmill.pipeline.progress import RunProgress
    from lightmill.pipeline.recipe import Recipe, load_recipe
    from lightmill.pipeline.run import run as start
    from lightmill.pipeline.run import run_plan
    from lightmill.pipeline.signals import stoppable

    region = region_of(cone, box, moc)
    watch = RunProgress(messages)
    machine = Machine(workers=workers, scheduler=scheduler, ledger=ledger)

    def stopping(number: int) -> None:
        watch("stopping", {"signal": signal.Signals(number).name})

    with stoppable(stopping) as stop:
        try:
            if is_plan(release):
                if region is not None:
                    raise typer.BadParameter("a plan says itself which partitions: give no region")
                plan = load_plan(release)
                applied = load_recipe(recipe) if recipe else Recipe.model_validate(plan.identity.recipe)
                summary = run_plan(plan, out, machine=machine, recipe=applied, watch=watch, stop=stop)
            else:
                applied = load_recipe(recipe or "ztf-dr")
                summary = start(release, applied, out, region=region, machine=machine, watch=watch, stop=stop)
        except KeyboardInterrupt:
            messages.print("lightmill: stopped at once; the same command goes on where it was")
            raise typer.Exit(128 + (stop.signal or signal.SIGINT)) from None
        finally:
            watch.close()
    _print_summary(summary, form, out)
    if summary.state == "stopped":
        messages.print("lightmill: stopped; the same command goes on where it was")
        raise typer.Exit(128 + (stop.signal or signal.SIGINT))
    if summary.failed:
        raise typer.Exit(PARTIAL)


@app.command()
def query(
    catalogue: Annotated[str, typer.Argument(help="Classification catalogue: path or fsspec URL.")],
    cone: ConeOption = None,
    best_class: Annotated[str | None, typer.Option("--class", help="Most probable class.")] = None,
    min_prob: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least probability of that class.")
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option("--id", metavar="OBJECTID", help="One light curve; text ones as the release has them."),
    ] = None,
    sql: Annotated[
        str | None, typer.Option(help="SELECT … FROM catalogue (the rows that meet the rest).")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=10**15, help="At most so many rows (a table shows 20 if not told)."),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="What to print.")] = Form.table,
    out: Annotated[
        Path | None,
        typer.Option("--out", callback=local, help="Write to a file instead of standard output."),
    ] = None,
) -> None:
    """Ask a catalogue: by place, class, probability, identifier or SQL.

    Example: `lightmill query catalogue --class RRab --min-prob 0.9 --format votable --out rrab.xml`
    """
    from lightmill.catalogs.formats import BINARY, encode
    from lightmill.catalogs.lightcurves import objectid_of
    from lightmill.catalogs.query import Question, why_rejected
    from lightmill.catalogs.query import query as ask

    if form is Form.table and out is not None:
        raise typer.BadParameter(
            "a table is for reading: choose --format json, csv, parquet, votable or fits for --out"
        )
    if form.value in BINARY and out is None and sys.stdout.isatty():
        raise typer.BadParameter(f"{form.value} is not for a terminal: give --out FILE, or pipe it")
    shown = limit if limit is not None else (20 if form is Form.table else None)
    objectid = None if identifier is None else objectid_of(identifier)
    found = ask(
        catalogue,
        Question(cone_of(cone) if cone else None, best_class, min_prob, objectid, sql, shown),
    )
    if len(found) == 0 and objectid is not None and sql is None:
        reason = why_rejected(catalogue, objectid)
        messages.print(
            f"{identifier} was not classified: {reason}" if reason else f"{identifier} is not in {catalogue}",
            markup=False,
        )
    if form is Form.table:
        _print_table(found)
        if limit is None and len(found) == shown:
            messages.print(f"the first {shown} rows; --limit N shows more")
        return
    data = encode(found, form.value)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        out.write_bytes(data)
        messages.print(f"{len(found)} rows written to {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for all of it.")] = Path("demo"),
    release: Annotated[str | None, typer.Option(help="Take this release instead of simulating one.")] = None,
) -> None:
    """Simulate a release, classify it, ask three questions and write a report, saying each command.

    Example: `lightmill demo --out demo`
    """
    from lightmill.pipeline.demo import demo as show

    show(
        out,
        release,
        execute=lambda arguments: app(list(arguments), standalone_mode=False),
        say=lambda text: typer.echo(text, err=True),
    )


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one.")] = None,
) -> None:
    """List the recipes that ship with Lightmill, or print one to start your own from.

    Example: `lightmill recipes ztf-dr > mine.toml`
    """
    from lightmill.pipeline.recipe import known_recipes, load_recipe, recipe_text

    if name is not None:
        load_recipe(name)
        typer.echo(recipe_text(name), nl=False)
        return
    for known in known_recipes():
        typer.echo(f"{known}\t{load_recipe(known).description}")


@app.command()
def warmup() -> None:
    """Compile the kernels into this host's cache, so that no worker has to.

    Example: `srun --ntasks-per-node=1 lightmill warmup`
    """
    from lightmill.pipeline.warmup import warm_up

    typer.echo(f"kernels ready after {warm_up():.1f} s")


cli_audit.register(app)
cli_compare.register(app)
cli_explain.register(app)
cli_labels.register(app)
cli_ledger.register(app)
cli_models.register(app)
cli_plan.register(app)
cli_publish.register(app)
cli_report.register(app)
cli_runs.register(app)


def main() -> None:
    """Run the command line; an error of the library is one line on standard error and exit code 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from lightmill.catalogs import storage

        network = storage.of_network(error)
        expected = network or isinstance(error, ValueError | OSError | RuntimeError | ImportError)
        if not expected or os.environ.get("LIGHTMILL_TRACEBACK"):
            raise
        name = "" if type(error) in (ValueError, RuntimeError, OSError) else f"{type(error).__name__}: "
        hint = (
            ": check the address, the endpoint (FSSPEC_S3_ENDPOINT_URL) and the credentials"
            if network
            else ""
        )
        messages.print(f"lightmill: {name}{error}{hint}", markup=False, soft_wrap=True)
        sys.exit(1)


def _print_summary(summary: Summary, form: TextOrJson, out: str) -> None:
    if form is TextOrJson.json:
        print_json(asdict(summary))
        return
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in sorted(summary.rejected.items())) or "none"
    nothing = "none: no light curve could be classified"
    if summary.classified or summary.state != "complete":
        nothing = f"nothing published; lightmill publish {out} does"
    rows = {
        "run": summary.run_id or "none was needed",
        "light curves": f"{summary.light_curves:,} in {summary.partitions:,} partitions, "
        f"{summary.computed:,} computed now",
        "classified": f"{summary.classified:,}",
        "rejected": rejected,
        "failed": f"{len(summary.failed):,} partitions",
        "time": f"{summary.seconds:.1f} s, {summary.light_curves_per_second:,.0f} light curves/s",
        "peak memory": f"{summary.peak_rss_bytes / 2**20:,.0f} MiB in a worker",
        "catalogue": f"{summary.catalogue}, version {summary.version}" if summary.catalogue else nothing,
    }
    table = Table(show_header=False, box=None)
    for key, text in rows.items():
        table.add_row(key, text)
    Console().print(table)
    for failure in summary.failed:
        messages.print(str(failure), markup=False, soft_wrap=True)
    if any(failure.quarantined for failure in summary.failed):
        messages.print(
            "what is in quarantine is tried again when it changes, or after: lightmill quarantine release"
        )
    if not all(failure.quarantined for failure in summary.failed):
        messages.print("the same command tries the failed partitions again")


def _print_table(found: pa.Table) -> None:
    from lightmill.catalogs.formats import plain

    # on a terminal 30 columns would not fit: those that tell most are shown, unless SQL has chosen
    shown = found.column_names
    if set(DISTINCTIVE) <= set(shown):
        shown = [name for name in TERMINAL_COLUMNS if found.column(name).null_count < max(len(found), 1)]
    table = Table(box=None)
    for name in shown:
        table.add_column(name, no_wrap=True)
    for row in plain(found).select(shown).to_pylist():
        table.add_row(*(_cell(value) for value in row.values()))
    # as wide as it needs to be: a line that a terminal folds can be read and copied, an identifier cut short cannot
    Console(width=250).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5f}" if abs(value) >= 10 else f"{value:.4g}"
    return str(value)


def _print_evaluation(figures: dict[str, object]) -> None:
    console = Console()
    console.print(
        f"n {figures['n']}, accuracy {figures['accuracy']:.3f}, macro-F1 {figures['macro_f1']:.3f}, "
        f"ECE {figures['ece']:.3f}"
    )
    table = Table("class", "precision", "recall", "F1", "support", box=None)
    for name, row in figures["per_class"].items():  # type: ignore[attr-defined]
        table.add_row(
            name, *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), str(row["support"])
        )
    console.print(table)


if __name__ == "__main__":
    main()
