"""The form of a ragged batch, checked once at the edge of each kernel: flat vectors of equal length + offsets."""

from __future__ import annotations

import numpy as np

__all__ = ["cleaned", "frequencies", "ragged", "real"]


def ragged(offsets: np.ndarray, **vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (offsets, *vectors) as contiguous read-only int64 and float64 views; copies only what is not so already.

    One form for all callers means one compiled version of each kernel, whatever the input's width and flags.

    Parameters
    ----------
    offsets : (n + 1,) integer; row i of the batch owns the elements offsets[i]:offsets[i + 1]
    vectors : (N,) each, by name

    Raises
    ------
    ValueError
        naming the argument and the values: vectors of unequal length or of other things than real numbers, offsets
        that decrease or leave them.
    """
    (first, reference), *others = vectors.items()
    for name, values in vectors.items():
        if real(name, values).ndim != 1:
            raise ValueError(f"{name} must be a vector, got shape {np.shape(values)}")
    for name, values in others:
        if len(values) != len(reference):
            raise ValueError(
                f"{name} has {len(values)} epochs, {first} has {len(reference)}: they must be equally long"
            )
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"offsets must be a vector of n + 1 integers, got shape {offsets.shape}, dtype {offsets.dtype}"
        )
    offsets = _read_only(offsets, np.int64)
    if offsets.min() < 0 or offsets.max() > len(reference):
        raise ValueError(
            f"offsets must lie in 0…{len(reference)}, the length of {first}, got {offsets.min()}…{offsets.max()}"
        )
    if (np.diff(offsets) < 0).any():
        at = int(np.flatnonzero(np.diff(offsets) < 0)[0])
        raise ValueError(f"offsets must not decrease, got {offsets[at]} before {offsets[at + 1]} at {at}")
    return offsets, *(_read_only(values, np.float64) for values in vectors.values())


def real(name: str, values: object) -> np.ndarray:
    """Values as an array of real numbers.

    Raises ValueError if they are something else, or if some are masked: a view of them would show what the mask hides.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got dtype {array.dtype}")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        masked = np.ma.count_masked(values)
        raise ValueError(
            f"{name} has {masked} masked values of {values.size}: leave them out, or fill them with NaN"
        )
    return array


def cleaned(
    t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(offsets, t, mag, magerr) of a batch that `clean` has left, as `ragged` returns them.

    Raises
    ------
    ValueError
        as `ragged`; naming the first epoch that `clean` would not have left.
    """
    offsets, t, mag, magerr = ragged(offsets, t=t, mag=mag, magerr=magerr)
    own = slice(offsets[0], offsets[-1])
    for name, values, wrong in (
        ("t", t, ~np.isfinite(t[own])),
        ("mag", mag, ~np.isfinite(mag[own])),
        ("magerr", magerr, ~((magerr[own] > 0) & (magerr[own] < np.inf))),
    ):
        if wrong.any():
            at = int(offsets[0] + np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{name} must be finite{' and positive' if name == 'magerr' else ''}, got {values[at]} at {at}: use "
                "`clean` first"
            )
    back = t[own][1:] < t[own][:-1]
    borders = offsets[1:-1] - offsets[0]  # between two light curves time may go back
    back[borders[(borders > 0) & (borders <= len(back))] - 1] = False
    if back.any():
        at = int(offsets[0] + np.flatnonzero(back)[0])
        raise ValueError(
            f"t must not decrease within a light curve, got {t[at]} before {t[at + 1]} at {at}: use `clean` first"
        )
    return offsets, t, mag, magerr


def frequencies(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """One frequency a light curve, NaN where there is none; (n,) float64, checked."""
    array = np.ascontiguousarray(real(name, values), dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(
            f"{name} has shape {array.shape}, there are {n} light curves: give one frequency each"
        )
    if np.isinf(array).any():
        at = int(np.flatnonzero(np.isinf(array))[0])
        raise ValueError(f"{name} must be finite, or NaN for no period, got {array[at]} at {at}")
    return _read_only(array, np.float64)


def _read_only(values: np.ndarray, dtype: type) -> np.ndarray:
    view: np.ndarray = np.ascontiguousarray(values, dtype=dtype).view()
    view.flags.writeable = False
    return view
