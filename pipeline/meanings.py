"""What each feature means, in a line for people: the names of `full.FULL`, for tables and pictures."""

from __future__ import annotations

import re
from itertools import pairwise

from lightmill.pipeline.shape import LAGS

__all__ = ["meaning"]

EACH: dict[str, str] = {
    "n": "epochs",
    "baseline": "last minus first time [d]",
    "mean": "weighted mean magnitude [mag]",
    "mean_minus_median": "weighted mean less median magnitude [mag]",
    "std": "standard deviation [mag]",
    "mad": "median absolute deviation from the median [mag]",
    "iqr": "75 % less 25 % quantile [mag]",
    "amplitude": "half of the 95 % less 5 % range [mag]",
    "magerr_median": "median error [mag]",
    "mad_over_err": "scatter by the median absolute deviation, over the median error",
    "iqr_over_err": "scatter by the quartiles, over the median error",
    "reduced_chi2": "reduced χ² of a constant",
    "excess_variance": "share of the variance that the errors do not explain",
    "eta": "von Neumann's η: small for what changes smoothly from epoch to epoch",
    "eta_weighted": "the same with errors, over reduced χ²",
    "stetson_j": "Stetson's J: how successive epochs deviate together",
    "stetson_k": "Stetson's K: how evenly deviations are spread",
    "skew": "skewness of the magnitudes: above 0 with a faint tail",
    "kurtosis": "excess kurtosis of the magnitudes",
    "range_20": "middle 20 % of the magnitudes over the 5 to 95 % range",
    "range_50": "middle 50 % of the magnitudes over the 5 to 95 % range",
    "range_80": "middle 80 % of the magnitudes over the 5 to 95 % range",
    "bright_skew": "share of the range brighter than the median: below ½ for eclipses, above for flares",
    "max_slope": "fastest significant change, log10(1 + mag/d)",
    "longest_run": "longest run of epochs on one side of the mean, share of all",
    "trend_sigma": "slope of a straight line over its error",
    "outliers": "share of epochs far from the median",
    "outlier_size": "largest deviation from the median, over the scatter",
    "brighter_3sigma": "share of epochs brighter than the median by more than 3 errors",
    "fainter_3sigma": "share of epochs fainter than the median by more than 3 errors",
    "nightly": "autocorrelation within a night",
    "median": "median magnitude [mag]",
    "inverse_eta": "1/η: large for what changes slowly",
    "weighted_std_over_err": "weighted standard deviation over the median error",
    "log_period": "log10 of the period [d]",
    "half_3": "share of the variance that 3 harmonics of half the period explain",
    "odd_4": "share of the rest that odd harmonics of twice the period explain: unequal halves",
    "fit_scatter": "what 6 harmonics leave, log10(1 + rms over mean error)",
    "amplitude_1": "amplitude of the first harmonic [mag]",
    "amplitude_noise": "its relative error",
    "extent": "faintest less brightest of the fitted curve [mag]",
    "extent_over_std": "the same over the standard deviation",
    "rise": "phase from the faintest to the brightest: small for a steep rise",
    "level": "mean of the fitted curve, 0 at its brightest, 1 at its faintest",
    "above_half": "share of phases in the fainter half",
    "curve_skew": "skewness of the fitted curve",
    "steepest": "largest slope of the fitted curve [extent per period]",
    "second_depth": "depth of a second minimum less that of the first, over the extent",
    "odd_even": "share of odd harmonics at twice the period",
    "odd_1_even": "first over first and second harmonic at twice the period",
    "depth_difference": "unequal minima at twice the period, over the extent",
    "double_above_half": "share of phases in the fainter half at twice the period",
    "half_amplitude_1": "amplitude of the first of 3 harmonics of half the period [mag]",
    "double_amplitude_1": "amplitude of the first harmonic of twice the period [mag]",
    "string_length": "string length in the order of phase: 1 for noise, small for a clean curve",
    "string_length_double": "the same at twice the period",
    "res_over_err": "scatter of the residuals over the mean error",
    "res_over_std": "scatter of the residuals over the standard deviation",
    "res_skew": "skewness of the residuals",
    "res_auto": "autocorrelation of the residuals",
    "res_bright": "size of the residuals near maximum light",
    "res_faint": "size of the residuals near minimum light",
    "period_score": "−log10 of the false-alarm probability of the period",
    "second_log_period": "log10 of the second period [d]",
    "second_ratio": "shorter over longer of the two periods: 0.745 for RRd",
    "second_log_ratio": "log10 of the second period over the first",
    "second_beat": "cycles of the beat between both in the baseline, log10: below 0 they are one frequency",
    "second_day": "distance of the second frequency from whole cycles a day",
    "second_alias": "distance of the two frequencies' difference from whole cycles a day",
    "second_amplitude": "amplitude at the second period over the sum of both",
    "second_score": "−log10 of the false-alarm probability of the second period",
    "g_minus_r": "colour g − r [mag]",
    "r_minus_i": "colour r − i [mag]",
} | {
    f"structure_{k}": f"mean change over lags from {a:g} to {b:g} d, over the scatter"
    for k, (a, b) in enumerate(pairwise(LAGS))
}

SERIES: tuple[tuple[str, str], ...] = (
    (r"explained_(\d)", "share of the variance that harmonics up to number {} explain"),
    (r"ratio_(\d)1", "amplitude of harmonic {0}, over its sum with the first"),
    (r"(cos|sin)_(\d)1", "{0} of the phase of harmonic {1} to the first"),
    (r"(half|double)_ratio_(\d)1", "at {0} the period, amplitude of harmonic {1}, over its sum with the first"),
    (r"(half|double)_(cos|sin)_(\d)1", "at {0} the period, {1} of the phase of harmonic {2} to the first"),
    (r"folded_scatter_(\d)", "scatter in bin {} of 8 of the folded curve, from the faintest [standard deviations]"),
    (r"folded_(\d)", "folded curve, bin {} of 8, from the faintest [standard deviations]"),
    (r"candidate_(\d)_log_frequency", "frequency of candidate period {} (0: believed), log10 [1/d]"),
    (r"candidate_(\d)_probability", "probability that candidate {} (0: believed) is the period"),
    (r"candidate_(\d)_explained", "share of the variance that candidate {} (0: believed) explains"),
    (r"second_explained_(\d)", "share of the rest that harmonics up to number {} of the second period explain"),
)  # fmt: skip
"""Of features that differ by a number: pattern and text."""


def meaning(name: str) -> str:
    """One line about a feature; the name itself if it is not known here.

    >>> meaning("cos_31")
    'cos of the phase of harmonic 3 to the first'
    """
    if name in EACH:
        return EACH[name]
    for pattern, text in SERIES:
        if found := re.fullmatch(pattern, name):
            return text.format(*found.groups())
    return name
