"""The form of a ragged batch, checked once at the edge of each kernel: flat vectors of equal length + offsets."""

from __future__ import annotations

import numpy as np

__all__ = ["ragged"]


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
        naming the argument and the values: vectors of unequal length, offsets that decrease or leave them.
    """
    (first, reference), *others = vectors.items()
    for name, values in vectors.items():
        if np.ndim(values) != 1:
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
    if (np.diff(offsets) < 0).any():
        at = int(np.flatnonzero(np.diff(offsets) < 0)[0])
        raise ValueError(f"offsets must not decrease, got {offsets[at]} before {offsets[at + 1]} at {at}")
    if offsets[0] < 0 or offsets[-1] > len(reference):
        raise ValueError(
            f"offsets must lie in 0…{len(reference)}, the length of {first}, got {offsets[0]}…{offsets[-1]}"
        )
    return offsets, *(_read_only(values, np.float64) for values in vectors.values())


def _read_only(values: np.ndarray, dtype: type) -> np.ndarray:
    view: np.ndarray = np.ascontiguousarray(values, dtype=dtype).view()
    view.flags.writeable = False
    return view
