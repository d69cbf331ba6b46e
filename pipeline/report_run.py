"""What a report says of the run: whether its receipts and files agree, how long it took, and what it was made of."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from lightmill.catalogs.receipts import Receipt
from lightmill.pipeline.report_catalogue import Catalogue

__all__ = ["check", "provenance", "stages", "timings"]


def check(catalogue: Catalogue, classified: int, rejected: int) -> str | None:
    """Where the receipts and the light curves counted in the files disagree."""
    if not catalogue.receipts:
        return "No receipt could be read: the light curves read are taken as those classified and rejected."
    counted = sum(receipt.classified for receipt in catalogue.receipts)
    if (catalogue.rows_in, counted) == (classified + rejected, classified):
        return None
    return (
        f"The receipts count {catalogue.rows_in:,} light curves read and {counted:,} classified; the files hold "
        f"{classified:,} classified and {rejected:,} rejected. The same lightmill run computes what is missing."
    )


def timings(receipts: tuple[Receipt, ...]) -> dict[str, str]:
    """The time that it took, in figures; at least one receipt."""
    seconds = [receipt.seconds for receipt in receipts]
    total = sum(seconds)
    rows, epochs, size = (sum(getattr(r, name) for r in receipts) for name in ("rows_in", "epochs", "bytes"))
    return {
        "worker time in all": _duration(total),
        "light curves a second, per worker": f"{rows / total:,.0f}",
        "epochs a second, per worker": f"{epochs / total:,.0f}",
        "longest partition": _duration(max(seconds)),
        "median partition": _duration(float(np.median(seconds))),
        "highest resident memory of a worker": f"{max(r.peak_rss_bytes for r in receipts) / 2**20:,.0f} MiB",
        "rows written": f"{size / 2**20:,.1f} MiB of Parquet",
    }


def stages(receipts: tuple[Receipt, ...]) -> dict[str, float]:
    """Worker time [s] by stage, the longest first."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.stages)
    return dict(total.most_common())


def provenance(catalogue: Catalogue, release: str) -> dict[str, str]:
    """What was made of what, by what, where and when; `release` is where the light curves were read for the page."""
    run, recipe, receipts, published = catalogue.run, catalogue.recipe, catalogue.receipts, catalogue.version
    hosts = Counter(receipt.host or "unknown" for receipt in receipts)
    software = sorted(
        {f"{name} {number}" for receipt in receipts for name, number in receipt.versions.items()}
    )
    finished = sorted(receipt.finished for receipt in receipts if receipt.finished)
    facts = {
        "catalogue": str(published.root.parent.parent.absolute()),
        "version": published.name,
        "complete": f"{100 * published.complete:.4g} %"
        + (f", {published.holes:,} partitions are missing" if published.holes else ""),
        "release": run["release"],
        "release, read here from": release if release != run["release"] else "",
        "recipe": recipe.name if recipe else "not readable by this version",
        "recipe says": recipe.description if recipe else "",
        "recipe, science fields": f"sha256 {recipe.digest()}" if recipe else "",
        "bundle": recipe.model.bundle if recipe else "",
        **_bundle(catalogue),
        "bundle, content": f"sha256 {run['models']['bundle']}",
        "runs, the first wins": ", ".join(published.runs),
        "the runs differ in": "; ".join(published.mixture),
        "algorithm and schema": ", ".join(f"{name} {number}" for name, number in run["versions"].items()),
        "software of the workers": ", ".join(software),
        "hosts": ", ".join(f"{host} ({n:,} partitions)" for host, n in hosts.most_common(20)),
        "first and last partition finished": f"{finished[0]} – {finished[-1]}" if finished else "",
        "version published": published.created,
        "this page": f"lightmill {version('lightmill')}, {datetime.now(UTC).isoformat(timespec='seconds')}",
    }
    return {name: text for name, text in facts.items() if text}


def _bundle(catalogue: Catalogue) -> dict[str, str]:
    """The single numbers among the bundle's metrics."""
    if catalogue.manifest is None:
        missing = "not found on this machine, so neither its threshold nor its metrics"
        return {"bundle, its description": missing}
    metrics = catalogue.manifest.metrics.items()
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics if isinstance(value, int | float))
    return {"bundle, as measured when made": numbers}


def _duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours:,} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
