"""Cleaning: which epochs of a light curve are used, and which light curves are too poor to classify."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from lightmill.pipeline.ragged import ragged

__all__ = ["REASONS", "Cleaned", "clean"]

REASONS: tuple[str, ...] = (
    "accepted",
    "no_epochs",
    "flagged",
    "bad_values",
    "too_few_epochs",
    "bad_position",
)
"""Why a light curve is rejected, by code. 0 is accepted; the others name the step that took it below `min_epochs`:
it had no epoch at all, quality flags, values that are no numbers (or errors that are not positive), or it was too
short to begin with (duplicate times counted once). The last, a position that is no place on the sky, is found by who
knows positions (`classify`)."""

ACCEPTED, NO_EPOCHS, FLAGGED, BAD_VALUES, TOO_FEW_EPOCHS, BAD_POSITION = range(6)


@dataclass(frozen=True)
class Cleaned:
    """The good epochs of a batch of n light curves; rejected light curves keep an empty slice."""

    t: np.ndarray  #: (M,) float64 [d] since the light curve's first good epoch, increasing
    mag: np.ndarray  #: (M,) float64 [mag]
    magerr: np.ndarray  #: (M,) float64 [mag], positive
    offsets: np.ndarray  #: (n_accepted + 1,) int64, of the accepted light curves only
    accepted: np.ndarray  #: (n_accepted,) int64, their rows in the batch
    n_good: np.ndarray  #: (n,) int32, good epochs of every light curve, rejected ones too
    reason: np.ndarray  #: (n,) int8, index into REASONS

    def rejected(self) -> dict[str, int]:
        """How many light curves were rejected, by reason."""
        codes, counts = np.unique(self.reason[self.reason != ACCEPTED], return_counts=True)
        return {REASONS[code]: int(count) for code, count in zip(codes, counts, strict=True)}


def clean(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    flags: np.ndarray,
    offsets: np.ndarray,
    *,
    bad_flags: int = 32768,
    min_epochs: int = 20,
) -> Cleaned:
    """Keep the epochs that can be trusted and reject the light curves that have too few of them.

    An epoch is good if no bit of `bad_flags` is set, its time, magnitude and error are finite and its error is
    positive. Good epochs are sorted by time (stable) and the first of several at the same time is kept.

    Parameters
    ----------
    t, mag, magerr : (N,) float32 or float64 [d, mag, mag]
    flags : (N,) integer, or empty: no flags
    offsets : (n + 1,) integer
    bad_flags : bits of `flags` that disqualify an epoch (ZTF's recommendation: 32768)
    min_epochs : good epochs that a light curve needs

    Raises
    ------
    ValueError
        if lengths differ or the offsets do not fit the arrays.
    """
    if len(flags) not in (0, len(t)):
        raise ValueError(f"flags has {len(flags)} epochs, t has {len(t)}: as many, or none")
    offsets, t, mag, magerr = ragged(offsets, t=t, mag=mag, magerr=magerr)
    bad = np.zeros(1, bool) if len(flags) == 0 else (np.asarray(flags, np.int64) & bad_flags) != 0
    n = len(offsets) - 1
    total = int(offsets[-1] - offsets[0])
    out_t, out_mag, out_err = np.empty(total), np.empty(total), np.empty(total)
    n_good, reason = np.empty(n, np.int32), np.empty(n, np.int8)
    used = _clean(
        t, mag, magerr, bad, len(flags) > 0, offsets, min_epochs, out_t, out_mag, out_err, n_good, reason
    )
    accepted = np.flatnonzero(reason == ACCEPTED)
    kept = np.concatenate([[0], np.cumsum(n_good[accepted], dtype=np.int64)]).astype(np.int64)
    return Cleaned(out_t[:used], out_mag[:used], out_err[:used], kept, accepted, n_good, reason)


# nogil: worker threads of one process may clean side by side; `ragged` has checked the offsets
@njit(nogil=True, cache=True, error_model="numpy")
def _clean(t, mag, magerr, bad, has_flags, offsets, min_epochs, out_t, out_mag, out_err, n_good, reason):
    """Write good epochs of accepted light curves one after the other; returns how many were written."""
    at = 0
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        start, flagged, invalid, ordered = at, 0, 0, True
        for j in range(a, b):
            if has_flags and bad[j]:
                flagged += 1
                continue
            x, m, e = t[j], mag[j], magerr[j]
            if not (np.isfinite(x) and np.isfinite(m) and np.isfinite(e) and e > 0.0):
                invalid += 1
                continue
            if at > start and x <= out_t[at - 1]:
                ordered = False
            out_t[at], out_mag[at], out_err[at] = x, m, e
            at += 1
        if not ordered:
            at = start + _sort_unique(out_t[start:at], out_mag[start:at], out_err[start:at])
        n_good[i] = at - start
        reason[i] = _reason(b - a, flagged, invalid, at - start, min_epochs)
        if reason[i] != ACCEPTED:
            at = start
        elif at > start:
            first = out_t[start]
            for j in range(start, at):
                out_t[j] -= first
    return at


@njit(nogil=True, cache=True, error_model="numpy")
def _reason(n, flagged, invalid, good, min_epochs):
    """The code of REASONS: the first step without which the light curve would have been long enough."""
    if good >= min_epochs:
        return ACCEPTED
    if n == 0:
        return NO_EPOCHS
    if good + flagged >= min_epochs:
        return FLAGGED
    if good + flagged + invalid >= min_epochs:
        return BAD_VALUES
    return TOO_FEW_EPOCHS


@njit(nogil=True, cache=True, error_model="numpy")
def _sort_unique(t, mag, magerr):
    """Sort by time in place (stable), keep the first of equal times; returns how many are left."""
    order = np.argsort(t, kind="mergesort")
    st, sm, se = t[order], mag[order], magerr[order]
    k = 0
    for j in range(st.size):
        if j == 0 or st[j] > st[j - 1]:
            t[k], mag[k], magerr[k] = st[j], sm[j], se[j]
            k += 1
    return k
