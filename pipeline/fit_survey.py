"""Measure on real ZTF files the numbers that `simulate` draws from, and write them as TOML (read by `survey`).

    python -m lightmill.pipeline.fit_survey DATA_DIR OUT.toml

Two files are read. `ztf_000250_zg_c01_q1_dr5.parquet` is the bulk file of one CCD quadrant in g (Masci+2019,
PASP 131, 018003, for the columns): every star there shares its exposures, which separates what belongs to
an exposure from what belongs to a star. `ztf_dr_bts_epochs.parquet` has 575 light curves in many fields and
three filters: it gives cadence, depth and colour terms. What neither can tell is chosen where it is used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from lightmill.pipeline.palomar import hour_angle, lunation
from lightmill.pipeline.survey import BAD, to_toml

QUADRANT = "ztf_000250_zg_c01_q1_dr5.parquet"
TRANSIENTS = "ztf_dr_bts_epochs.parquet"

FILTERS = {"zg": "g", "zr": "r", "zi": "i"}
QUANTILES = np.linspace(0, 1, 21)
MAG_KNOTS = np.arange(12.0, 23.01, 0.5)
FEW = 20  # good epochs below which a light curve is not classified
MOON_BINS = 10
SEASON_GAP = 45  # nights; a longer gap lies between seasons


def fit_survey(data: Path) -> dict[str, dict[str, Any]]:
    """Every fitted number, by section and name; magnitudes in mag, times in d, hour angles in h.

    Tables named `*_quantiles` hold the quantiles 0, 0.05 … 1 of what they name; `*_by_mag` the values at
    `mag_knots`.
    """
    stars = _epochs_of_quadrant(data / QUADRANT)
    epochs = pq.read_table(data / TRANSIENTS).to_pandas()
    epochs["filter"] = epochs["filtercode"].map(FILTERS)
    epochs["night"] = np.floor(epochs["mjd"]).astype(int)
    return {
        "source": _source(stars, epochs),
        "cadence": _cadence(epochs),
        "exposures": _exposures(stars, epochs),
        "errors": _errors(stars, epochs),
        "stars": _stars(stars),
    }


def _epochs_of_quadrant(path: Path) -> pd.DataFrame:
    """One row an epoch: objectid, hmjd (d), mag, magerr, catflags, exposure, good, n_good of its star."""
    table = pq.read_table(path).to_pandas()
    lists = ["hmjd", "mag", "magerr", "catflags"]
    epochs = table[["objectid", *lists]].explode(lists, ignore_index=True)
    epochs = epochs.astype({"hmjd": "f8", "mag": "f8", "magerr": "f8", "catflags": "i8"})
    epochs["exposure"] = epochs["hmjd"].map(_exposure_numbers(epochs.groupby("hmjd")["objectid"].agg(set)))
    epochs["good"] = (epochs["catflags"] & BAD) == 0
    epochs["n_good"] = epochs.groupby("objectid")["good"].transform("sum")
    return epochs


def _exposure_numbers(objects: pd.Series) -> dict[float, int]:
    """Time → number of the exposure, from the objects seen at each time.

    The times are float32, in steps of 1/256 d, and differ over the quadrant by the light travel time: two
    neighbouring steps that share no object are one exposure, cut in two by the rounding.
    """
    numbers: dict[float, int] = {}
    before, seen = -np.inf, set[int]()
    for t, here in objects.sort_index().items():
        split = t - before < 1.5 / 256 and not seen & here
        numbers[t] = len(set(numbers.values())) - (1 if split else 0)
        before, seen = t, (seen | here if split else here)
    return numbers


def _source(stars: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """Which data the numbers rest on."""
    return {
        "quadrant": QUADRANT,
        "quadrant_objects": int(stars["objectid"].nunique()),
        "quadrant_epochs": len(stars),
        "quadrant_years": _round(np.ptp(stars["hmjd"]) / 365.25),
        "transients": TRANSIENTS,
        "transient_light_curves": int(epochs["oid"].nunique()),
        "transient_epochs": len(epochs),
        "transient_years": _round(np.ptp(epochs["mjd"]) / 365.25),
    }


def _cadence(epochs: pd.DataFrame) -> dict[str, Any]:
    """When a field is observed: nights, visits a night, hour angle, Moon."""
    nights = epochs["night"].nunique()
    angle = hour_angle(epochs["mjd"].to_numpy(), epochs["ra"].to_numpy())
    visits = epochs.groupby(["oid", "night"]).size().clip(upper=6).value_counts(normalize=True)
    within = epochs.sort_values("mjd").groupby(["oid", "night"])["mjd"].diff().dropna()
    return {
        "clear_nights": _round(nights / (np.ptp(epochs["night"]) + 1)),
        "hour_angle_quantiles": _quantiles(angle),
        "visits": [_round(visits.get(k, 0.0)) for k in range(1, 7)],
        "revisit_quantiles": _quantiles(within, digits=6),
        "gap_tiers": {name: _gap_tiers(epochs[epochs["filter"] == name]) for name in FILTERS.values()},
        "moon": {name: _moon(epochs, name) for name in FILTERS.values()},
    }


def _gap_tiers(epochs: pd.DataFrame) -> list[list[float]]:
    """Quantiles of the nights between two observed nights, for rarely, normally and often observed fields.

    The fields (their light curves of at least FEW nights) are cut into three groups of equal size by their
    median gap: one distribution for all would make every field alike.
    """
    nights = epochs.groupby("oid")["night"].unique()
    nights = nights[nights.map(len) >= FEW]
    gaps = [np.diff(np.sort(each)) for each in nights]
    gaps = [each[each < SEASON_GAP] for each in gaps]
    order = np.argsort([each.mean() for each in gaps])
    return [_quantiles(np.concatenate([gaps[k] for k in tier])) for tier in np.array_split(order, 3)[::-1]]


def _moon(epochs: pd.DataFrame, name: str) -> list[float]:
    """How often a field is observed in each tenth of the lunation, over the most favoured tenth."""
    mine = epochs[epochs["filter"] == name].drop_duplicates(["field", "night"])
    nights = epochs["night"].unique()
    edges = np.linspace(0, 1, MOON_BINS + 1)
    visits, _ = np.histogram(lunation(mine["night"].to_numpy()), edges)
    offered, _ = np.histogram(lunation(nights), edges)
    rate = visits / np.maximum(offered, 1)
    return [_round(value) for value in rate / rate.max()]


def _exposures(stars: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """What all stars of one exposure share: its depth, colour term and whether it is flagged."""
    per_filter = epochs.drop_duplicates(["field", "mjd"]).groupby("filter")
    flagged = ~stars.groupby("exposure")["good"].median().astype(bool)
    good = stars[~stars["exposure"].map(flagged)]
    bits = good.loc[good["catflags"] > 0, "catflags"].value_counts().head(8)
    return {
        "depth_quantiles": {name: _quantiles(group["limitmag"]) for name, group in per_filter},
        "detection_width": _detection_width(stars),
        "clrcoeff_mean": {name: _round(group["clrcoeff"].mean()) for name, group in per_filter},
        "clrcoeff_sd": {name: _round(group["clrcoeff"].std()) for name, group in per_filter},
        "flagged": _round(flagged.mean()),
        "flagged_scatter": _flagged_scatter(stars, flagged),
        "other_flags": [int(bit) for bit in bits.index],
        "other_flags_rate": [_round(count / len(good), 7) for count in bits],
    }


def _detection_width(stars: pd.DataFrame) -> float:
    """Width w (mag) of the logistic 1/(1 + exp((m − depth)/w)) with which a star of mag m is detected.

    The likelihood of "detected or not" of every lasting star in every exposure, with one depth an exposure,
    maximised over a grid. Stars just at the depth of the field are left out by asking for FEW epochs.
    """
    lasting = stars[stars["n_good"] >= FEW]
    mag = lasting.groupby("objectid")["mag"].median()
    seen = pd.crosstab(lasting["objectid"], lasting["exposure"]).loc[mag.index].to_numpy() > 0
    depths = np.arange(16.0, 23.0, 0.1)
    best = {}
    for width in np.arange(0.05, 0.6, 0.025):
        z = (depths[:, None] - mag.to_numpy()) / width
        detected, missed = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        best[float(width)] = (detected @ seen + missed @ ~seen).max(axis=0).sum()
    return _round(max(best, key=lambda width: best[width]))


def _flagged_scatter(stars: pd.DataFrame, flagged: pd.Series) -> float:
    """How much wider the residuals over magerr are in flagged exposures than in good ones (MAD)."""
    lasting = stars[stars["n_good"] >= 50]
    residual = _residual(lasting) / lasting["magerr"]
    bad = lasting["exposure"].map(flagged)
    return _round(_mad(residual[bad]) / _mad(residual[~bad]))


def _residual(stars: pd.DataFrame) -> pd.Series:
    """mag − the star's median of good epochs."""
    median = stars[stars["good"]].groupby("objectid")["mag"].median()
    return stars["mag"] - stars["objectid"].map(median)


def _errors(stars: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """magerr against mag, its spread, the true scatter over it, and the outliers.

    g comes from the stars of the quadrant; r and i, which it lacks, from the transients and their hosts.
    """
    good = stars[stars["good"]]
    curves = {name: epochs[epochs["filter"] == name] for name in ("r", "i")} | {"g": good}
    log_error = {name: _log_error(curve) for name, curve in sorted(curves.items())}
    spread = np.log(good["magerr"]) - np.interp(good["mag"], MAG_KNOTS, log_error["g"])
    shared = spread.groupby(good["exposure"]).transform("median")
    return {
        "mag_knots": [_round(knot) for knot in MAG_KNOTS],
        "log_error_by_mag": log_error,
        "spread_exposure": _round(_mad(shared)),
        "spread_epoch": _round(_mad(spread - shared)),
        "scatter_by_mag": _scatter_by_mag(good[good["n_good"] >= 50]),
        **_outliers(good[good["n_good"] >= 50]),
    }


def _log_error(epochs: pd.DataFrame) -> list[float]:
    """Median of ln(magerr) within ±0.25 mag of each knot; beyond the data the nearest value."""
    return _by_mag(epochs["mag"], np.log(epochs["magerr"]), half_width=0.25, least=20)


def _by_mag(mag: pd.Series, value: pd.Series, *, half_width: float, least: int) -> list[float]:
    """Medians of `value` around each knot; knots with fewer than `least` values are interpolated."""
    near = [np.asarray(value)[np.abs(np.asarray(mag) - knot) <= half_width] for knot in MAG_KNOTS]
    known = [k for k, values in enumerate(near) if len(values) >= least]
    medians = np.interp(MAG_KNOTS, MAG_KNOTS[known], [np.median(near[k]) for k in known])
    return [_round(median) for median in medians]


def _scatter_by_mag(stars: pd.DataFrame) -> list[float]:
    """The true scatter (1.4826 MAD) over the median magerr of a typical star, by magnitude."""
    groups = stars.assign(residual=_residual(stars)).groupby("objectid")
    ratio = groups["residual"].agg(_mad) / groups["magerr"].median()
    return _by_mag(groups["mag"].median(), ratio, half_width=0.5, least=10)


def _outliers(stars: pd.DataFrame) -> dict[str, Any]:
    """Good epochs beyond five times the scatter of their star: rate, share on the bright side, size.

    The twentieth of the stars that scatter most over their errors is left out: they vary.
    """
    groups = stars.assign(residual=_residual(stars)).groupby("objectid")
    scatter = groups["residual"].agg(_mad)
    ratio = scatter / groups["magerr"].median()
    calm = stars["objectid"].map(ratio <= ratio.quantile(0.95))
    size = (_residual(stars) / stars["objectid"].map(scatter.clip(lower=0.005)))[calm]
    out = size[size.abs() > 5]
    return {
        "outlier_rate": _round(len(out) / len(size)),
        "outlier_bright": _round((out < 0).mean()),
        "outlier_quantiles": _quantiles(out.abs().clip(upper=100)),
    }


def _stars(stars: pd.DataFrame) -> dict[str, Any]:
    """Median magnitudes of lasting stars and of detections that hardly recur, and how often those do."""
    per_star = stars.groupby("objectid").agg(mag=("mag", "median"), n=("n_good", "first"))
    lasting = per_star["n"] >= FEW
    seen = per_star.loc[~lasting & (per_star["n"] > 0), "n"]
    return {
        "few": _round((~lasting).mean()),
        "mag_quantiles": _quantiles(per_star.loc[lasting, "mag"]),
        "few_mag_quantiles": _quantiles(per_star.loc[~lasting, "mag"]),
        "few_epochs_quantiles": [int(k) for k in np.quantile(seen, QUANTILES, method="inverted_cdf")],
    }


def _mad(values: pd.Series) -> float:
    """Robust standard deviation: 1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _quantiles(values: Any, digits: int = 4) -> list[float]:
    return [_round(value, digits) for value in np.quantile(np.asarray(values, dtype=float), QUANTILES)]


def _round(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)


HEADER = """\
# What simulated light curves are drawn from: measured on two public ZTF files, not chosen.
# Written by `python -m lightmill.pipeline.fit_survey DATA_DIR OUT.toml` (its docstrings say how): refit.
# Magnitudes in mag, times in d, hour angles in h. *_quantiles: at 0, 0.05 … 1. *_by_mag: at mag_knots.

"""


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m lightmill.pipeline.fit_survey DATA_DIR OUT.toml\n")
        return 2
    data, out = map(Path, arguments)
    out.write_text(HEADER + to_toml(fit_survey(data)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
