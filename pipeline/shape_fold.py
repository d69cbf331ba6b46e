# mypy: ignore-errors
"""Kernels: what a fitted curve, a folded light curve and its residuals tell. Columns and units are those of `shape`."""

from __future__ import annotations

import math

import numpy as np

from lightmill.pipeline import radix
from lightmill.pipeline.shape_fit import inline

__all__ = [
    "GRID", "double_wave", "folded", "fourier", "half_wave", "ratio", "residuals", "single_wave", "string_length",
    "structure", "turned",
]  # fmt: skip

GRID = 128  #: phases at which a fitted curve is evaluated
TOP = 12  #: highest order that it may have
ANGLES = 2.0 * np.pi * np.outer(np.arange(TOP + 1), np.arange(GRID)) / GRID
COSINES, SINES = np.cos(ANGLES), np.sin(ANGLES)
FAR = 6.0  #: residuals are clipped at so many robust standard deviations
SMALL = 64  #: epochs up to which insertion orders a bin


@inline
def ratio(x, y):
    """x / y, 0 where there is nothing to divide by."""
    return x / y if y > 0.0 else 0.0


@inline
def fourier(coefficients, noise, out):
    """Amplitude of the first harmonic, its noise, ratios of the next ones to it and their phases relative to it."""
    first = _amplitude(coefficients, 1)
    out[0] = first
    out[1] = ratio(noise, first + noise)
    for k in range(2, 5):
        out[k] = _share(coefficients, 1, 2 * k - 1)
        out[1 + 2 * k], out[2 + 2 * k] = _phase(coefficients, 1, 2 * k - 1, k)


@inline
def half_wave(coefficients, out):
    """Amplitude of the first of three harmonics of half the period; ratios of the next to it, and their phases."""
    out[0] = _amplitude(coefficients, 1)
    for k in range(2, 4):
        out[3 * k - 5] = _share(coefficients, 1, 2 * k - 1)
        out[3 * k - 4], out[3 * k - 3] = _phase(coefficients, 1, 2 * k - 1, k)


@inline
def _amplitude(coefficients, at):
    return math.hypot(coefficients[at], coefficients[at + 1])


@inline
def _share(coefficients, first, at):
    """Amplitude of the order at `at` over its sum with that of the first."""
    size = _amplitude(coefficients, at)
    return ratio(size, _amplitude(coefficients, first) + size)


@inline
def _phase(coefficients, first, at, k):
    """Cosine and sine of φ_k − kφ₁, of the order k at `at`; 0 where either has no amplitude."""
    if not (_amplitude(coefficients, first) > 0.0 and _amplitude(coefficients, at) > 0.0):
        return 0.0, 0.0
    angle = math.atan2(-coefficients[at + 1], coefficients[at])
    angle -= k * math.atan2(-coefficients[first + 1], coefficients[first])
    return math.cos(angle), math.sin(angle)


@inline
def turned(coefficients, orders, curve):
    """The fitted curve at GRID phases, without c₀; returns its extent and the place where it is faintest."""
    for j in range(GRID):
        curve[j] = 0.0
    for i in range(orders.size):
        a, b, k = coefficients[1 + 2 * i], coefficients[2 + 2 * i], orders[i]
        for j in range(GRID):
            curve[j] += a * COSINES[k, j] + b * SINES[k, j]
    faint = _extreme(curve, 1.0)
    return curve[faint] - curve[_extreme(curve, -1.0)], faint


@inline
def _extreme(curve, sign):
    """Where the curve is faintest (sign 1) or brightest (−1)."""
    best = 0
    for j in range(GRID):
        best = j if sign * curve[j] > sign * curve[best] else best
    return best


@inline
def _opposite(curve, faint):
    """Where the curve is faintest between 0.3 and 0.7 of a turn after `faint`."""
    best = (faint + 3 * GRID // 10) % GRID
    for j in range(faint + 3 * GRID // 10, faint + 7 * GRID // 10 + 1):
        best = j % GRID if curve[j % GRID] > curve[best] else best
    return best


@inline
def _above_half(curve, bright, extent):
    """Share of phases fainter than half way from the brightest to the faintest."""
    above = 0
    for j in range(GRID):
        above += curve[j] - curve[bright] > 0.5 * extent
    return above / GRID


@inline
def single_wave(curve, extent, faint, std, out):
    """The form of the curve fitted at the period."""
    if extent <= 0.0:
        return
    bright = _extreme(curve, -1.0)
    mean, steep = 0.0, 0.0
    for j in range(GRID):
        mean += (curve[j] - curve[bright]) / extent / GRID
        steep = max(steep, abs(curve[j] - curve[j - 1]) / extent * GRID)
    m2, m3 = 0.0, 0.0
    for j in range(GRID):
        x = (curve[j] - curve[bright]) / extent - mean
        m2 += x * x / GRID
        m3 += x * x * x / GRID
    out[0], out[1] = extent, extent / std
    out[2] = (bright - faint) % GRID / GRID
    out[3], out[4], out[5], out[6] = mean, _above_half(curve, bright, extent), m3 / m2**1.5, steep
    out[7] = (curve[faint] - curve[_opposite(curve, faint)]) / extent


@inline
def double_wave(coefficients, even, curve, extent, faint, out):
    """What differs between successive turns: terms and minima of the curve fitted at twice the period.

    coefficients : c₀, the `even` orders 2, 4, …, then the odd ones 1, 3, …
    """
    at = 1 + 2 * even
    odd, both = 0.0, 0.0
    for i in range(1, coefficients.size):
        both += coefficients[i] ** 2
        odd += coefficients[i] ** 2 if i >= at else 0.0
    out[0] = math.sqrt(ratio(odd, both))
    out[1] = _share(coefficients, 1, at)
    out[4] = _amplitude(coefficients, at)
    out[5], out[6] = _phase(coefficients, at, 1, 2)
    out[7] = _share(coefficients, at, at + 2)
    out[8], out[9] = _phase(coefficients, at, at + 2, 3)
    if extent > 0.0:
        out[2] = (curve[faint] - curve[_opposite(curve, faint)]) / extent
        out[3] = _above_half(curve, _extreme(curve, -1.0), extent)


@inline
def folded(y, ordered, order, curve, faint, std, buffer, out):
    """Medians in equal bins of phase, over std, then their interquartile ranges / 1.349.

    An empty bin has the fitted curve's value in its middle, and one of fewer than two epochs no range.

    ordered : phases increasing, in turns from half a bin before the faintest; order : of which epochs
    """
    bins, start = out.size // 2, 0
    for b in range(bins):
        stop = start
        while stop < ordered.size and (b == bins - 1 or ordered[stop] * bins < b + 1):
            stop += 1
        if stop > start:
            _sort(y, order, start, stop, buffer)
            inside = buffer[: stop - start]
            out[b] = 0.5 * (inside[(inside.size - 1) // 2] + inside[inside.size // 2]) / std
            if inside.size > 1:
                out[bins + b] = (_quantile(inside, 0.75) - _quantile(inside, 0.25)) / 1.349 / std
        else:
            out[b] = curve[(faint + b * GRID // bins) % GRID] / std
        start = stop


@inline
def _sort(y, order, start, stop, buffer):
    """Put y[order[start:stop]] into `buffer`, in order."""
    size = stop - start
    if size > SMALL:
        for k in range(size):
            buffer[k] = y[order[start + k]]
        buffer[:size].sort()
    else:
        for k in range(size):
            value, j = y[order[start + k]], k
            while j > 0 and buffer[j - 1] > value:
                buffer[j] = buffer[j - 1]
                j -= 1
            buffer[j] = value


@inline
def string_length(y, order, std):
    """Lafler & Kinman's string length (1965, ApJS 11, 216), normalised as in `light-curve`."""
    n, total = y.size, 0.0
    for k in range(n):
        step = (y[order[k]] - y[order[k - 1 if k > 0 else n - 1]]) / std
        total += step * step
    return total / (2 * (n - 1))


@inline
def _quantile(ordered, q):
    """Linear interpolation between order statistics, as `numpy.quantile`."""
    x = q * (ordered.size - 1)
    k = min(int(x), ordered.size - 2)
    return ordered[k] + (x - k) * (ordered[k + 1] - ordered[k])


@inline
def residuals(y, values, err, std, extent, residual, sort, out):
    """Size and form of what the fit leaves; `residual` receives it."""
    everything, order, keys, first, counters = sort
    n = y.size
    ordered = everything[:n]
    for i in range(n):
        residual[i] = y[i] - values[i]
    radix.sort_into(residual, ordered, order, keys, first, counters)
    middle = _quantile(ordered, 0.5)
    robust = (_quantile(ordered, 0.75) - _quantile(ordered, 0.25)) / 1.349
    out[0] = robust / err
    out[1] = robust / std
    product, square = 0.0, 0.0
    for i in range(n - 1):
        a, b = residual[i] / std, residual[i + 1] / std
        product += a * b
        square += 0.5 * (a * a + b * b)
    out[3] = ratio(product, square)
    if robust <= 0.0:
        return
    cube = 0.0
    for i in range(n):
        x = min(max((residual[i] - middle) / robust, -FAR), FAR)
        cube += x * x * x
    out[2] = cube / n
    _by_level(values, residual, robust, extent, out)


@inline
def _by_level(values, residual, robust, extent, out):
    """Mean size of residuals where the fitted curve is near its brightest and near its faintest."""
    low = values[0]
    for i in range(values.size):
        low = min(low, values[i])
    bright, faint, n_bright, n_faint = 0.0, 0.0, 0.0, 0.0
    for i in range(values.size):
        x, level = min(abs(residual[i]) / robust, FAR), ratio(values[i] - low, extent)
        near, far = 1.0 if level < 0.25 else 0.0, 1.0 if level >= 0.75 else 0.0
        bright += near * x
        n_bright += near
        faint += far * x
        n_faint += far
    out[4], out[5] = ratio(bright, n_bright), ratio(faint, n_faint)


@inline
def structure(t, y, edges, std, out):
    """Mean |Δm| over std of pairs by lag; of each epoch with the first later one that is far enough."""
    n = t.size
    for b in range(out.size):
        j, total, pairs = 1, 0.0, 0
        for i in range(n - 1):
            j = max(j, i + 1)
            while j < n and t[j] - t[i] < edges[b]:
                j += 1
            if j == n:
                break
            if t[j] - t[i] < edges[b + 1]:
                total += abs(y[j] - y[i])
                pairs += 1
        out[b] = ratio(total, float(pairs)) / std
