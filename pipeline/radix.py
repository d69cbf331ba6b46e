"""Order of short float vectors, such as the magnitudes of one light curve: extremes, a sort several times faster than
one by comparison, and a median without a sort.

The sort spreads the values over 16-bit keys between their least and greatest, orders them by the key's two bytes
(least significant first, stable; the upper byte alone where values are few), and an insertion pass puts right what
shares a key. An outlier that squeezes all others into few keys would make that pass quadratic: then a comparison sort
takes over.

Positive floats are ordered as the integers of the same bits are, negative ones in reverse. Of integers LLVM finds the
least and the greatest in vector lanes; of floats it does not, because of NaN and −0.

Numba's cache of a kernel that calls this does not notice when this file changes: remove the cache (`make clean`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["extremes", "median_of_positive", "sort_into", "workspace"]

SMALL = 16  #: below, insertion alone is faster
FEW = 160  #: up to so many, the insertion pass takes less time than ordering by the lower byte
CROWDED = 8  #: average steps of the insertion pass from which a comparison sort is faster
PATIENCE = 12  #: halvings after which it must be equal values that keep a median from being found

LOWER, UPPER = np.uint32(0), np.uint32(8)  #: shifts to the bytes of a key
MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)  #: all bits of a float but its sign

# nogil: threads of one process may sort side by side
_jit = njit(nogil=True, cache=True, error_model="numpy")


def workspace(longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scratch arrays for `sort_into` of at most `longest` values: keys, order, counters."""
    return np.empty(longest, np.uint32), np.empty(longest, np.int64), np.empty(256, np.int64)


@_jit
def extremes(values):
    """Least and greatest of a contiguous (n ≥ 1,) float64 without NaN."""
    bits = values.view(np.int64)
    low, high = MAGNITUDE, -MAGNITUDE
    for i in range(bits.size):
        rank = bits[i] ^ ((bits[i] >> 63) & MAGNITUDE)  # turns the order of negative floats round
        low, high = min(low, rank), max(high, rank)
    low, high = low ^ ((low >> 63) & MAGNITUDE), high ^ ((high >> 63) & MAGNITUDE)
    return np.int64(low).view(np.float64), np.int64(high).view(np.float64)


@_jit
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


@_jit
def _by_key(values, order, keys, first, counters):
    """Order by 16-bit keys, stable; few values by the upper byte alone."""
    n = np.uint64(values.size)  # unsigned indices spare the wrap-around of negative ones
    low, high = extremes(values)
    scale = 65535.0 / (high - low) if high > low else 0.0
    for i in range(n):
        keys[i] = np.uint32((values[i] - low) * scale)
    if n <= FEW:
        for i in range(n):
            first[i] = i
    else:
        for i in range(n):
            order[i] = i
        _by_byte(keys, n, LOWER, order, first, counters)
    _by_byte(keys, n, UPPER, first, order, counters)


@_jit
def _by_byte(keys, n, shift, source, target, counters):
    """Put the permutation `source` into the order of one byte of its keys, stable."""
    byte = np.uint32(255)
    for i in range(256):
        counters[i] = 0
    for i in range(n):
        counters[(keys[i] >> shift) & byte] += 1
    below = 0
    for i in range(256):
        here = counters[i]
        counters[i] = below
        below += here
    for k in range(n):
        at = (keys[np.uint64(source[k])] >> shift) & byte
        target[np.uint64(counters[at])] = source[k]
        counters[at] += 1


@_jit
def median_of_positive(values):
    """Median of a contiguous (n ≥ 1,) float64, finite and positive; of an even number the mean of the middle two.

    The interval of bit patterns that holds the upper one of the middle two is halved until half of the values lie
    below, which takes some log₂ n passes; each only counts.
    """
    bits, half = values.view(np.int64), values.size // 2
    least, greatest = extremes(values)
    low, high = np.float64(least).view(np.int64), np.float64(greatest).view(np.int64)
    for halvings in range(64):
        if low >= high:
            break
        if halvings > PATIENCE:
            low, high = _least_from(bits, low), _greatest_below(bits, high + 1)
        pivot = high - (high - low) // 2
        below = _count_below(bits, pivot)
        if below > half:
            high = pivot - 1
        else:
            low, high = pivot, pivot if below == half else high
    upper = _least_from(bits, low)
    lower = upper
    if values.size == 2 * half and _count_below(bits, low) == half:
        lower = _greatest_below(bits, low)
    return 0.5 * (np.int64(lower).view(np.float64) + np.int64(upper).view(np.float64))


@_jit
def _count_below(bits, pivot):
    count = 0
    for i in range(bits.size):
        count += bits[i] < pivot
    return count


@_jit
def _least_from(bits, pivot):
    least = MAGNITUDE
    for i in range(bits.size):
        least = min(least, bits[i] if bits[i] >= pivot else MAGNITUDE)
    return least


@_jit
def _greatest_below(bits, pivot):
    greatest = -MAGNITUDE
    for i in range(bits.size):
        greatest = max(greatest, bits[i] if bits[i] < pivot else -MAGNITUDE)
    return greatest
