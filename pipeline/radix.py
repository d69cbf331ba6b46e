"""Radix sort of short float vectors: what magnitudes of one light curve are ordered by, several times faster than a
comparison sort.

Values are spread over 16-bit keys between their least and greatest, sorted by the key's two bytes (least significant
first, stable), and an insertion pass puts right what shares a key. An outlier that squeezes all others into few keys
would make that pass quadratic: then a comparison sort takes over.

Numba's cache of a kernel that calls this does not notice when this file changes: remove the cache (`make clean`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["sort_into", "workspace"]

SMALL = 24  #: below, insertion alone is faster
CROWDED = 8  #: average steps of the insertion pass from which a comparison sort is faster


def workspace(longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scratch arrays for `sort_into` of at most `longest` values: keys, order, counters."""
    return np.empty(longest, np.uint32), np.empty(longest, np.int64), np.empty(512, np.int64)


# nogil: threads of one process may sort side by side; unsigned indices spare the wrap-around of negative ones
@njit(nogil=True, cache=True, error_model="numpy")
def sort_into(values, ordered, order, keys, first, counters):
    """Sort `values` (finite) into `ordered`, and the permutation into `order`: ordered[k] = values[order[k]]; stable.

    values, ordered : (n,) float64; order : (≥ n,) int64; keys, first, counters : of `workspace`
    """
    n = values.size
    if n < SMALL:
        for i in range(n):
            order[i] = i
    else:
        _by_key(values, order, keys, first, counters)
    steps = 0
    for i in range(n):
        at, value, k = order[i], values[order[i]], i
        while k > 0 and ordered[k - 1] > value:
            ordered[k], order[k] = ordered[k - 1], order[k - 1]
            k -= 1
        ordered[k], order[k] = value, at
        steps += i - k
        if steps > CROWDED * n and n >= SMALL:
            break
    if steps > CROWDED * n and n >= SMALL:
        by_comparison = np.argsort(values, kind="mergesort")
        for i in range(n):
            order[i] = by_comparison[i]
            ordered[i] = values[by_comparison[i]]


@njit(nogil=True, cache=True, error_model="numpy")
def _by_key(values, order, keys, first, counters):
    """Order by 16-bit keys, stable: low byte into `first`, then high byte into `order`."""
    n = np.uint64(values.size)
    low, high = values[0], values[0]
    for i in range(n):
        low, high = min(low, values[i]), max(high, values[i])
    scale = 65535.0 / (high - low) if high > low else 0.0
    for i in range(counters.size):
        counters[i] = 0
    byte, eight, upper = np.uint32(255), np.uint32(8), np.uint32(256)
    for i in range(n):
        key = np.uint32((values[i] - low) * scale)
        keys[i] = key
        counters[key & byte] += 1
        counters[upper + (key >> eight)] += 1
    below_low, below_high = 0, 0
    for i in range(256):
        here = counters[i]
        counters[i] = below_low
        below_low += here
        here = counters[256 + i]
        counters[256 + i] = below_high
        below_high += here
    for i in range(n):
        at = keys[i] & byte
        first[np.uint64(counters[at])] = i
        counters[at] += 1
    for k in range(n):
        source = np.uint64(first[k])
        at = upper + (keys[source] >> eight)
        order[np.uint64(counters[at])] = first[k]
        counters[at] += 1
