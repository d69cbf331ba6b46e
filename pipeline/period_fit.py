"""Candidate frequencies judged by harmonic fits: refined, fitted with 1…H harmonics and a floating mean, ranked.

The magnitudes, weighted by their errors (`weigh`), are fitted with a constant and h = 1…H harmonics of a frequency;
R²_h is the share of the weighted variance that the fit explains. The fits are nested: one Cholesky factorisation of
the 2H normal equations gives every R²_h on the way. h harmonics have the rank

    −(n − 2h − 1) ln(1 − R²_h) − PENALTY · 2h · ln n,

twice the gain in ln likelihood less a penalty for each parameter (Schwarz 1978, but twice as strict), so that half a
frequency is preferred only where the two halves of its cycle differ.

A star's frequency need not be a peak itself: it may be half of one, as a binary's is, or lie a day's alias away from
one. So the half of every frequency is fitted too, and of the RELATED highest peaks the double and the day aliases.

The chance that noise does as well is that of one frequency times the number of frequencies that were looked at.
For one frequency R²_h of noise, whatever its size, follows the Beta distribution (h, (n − 2h − 1)/2), whose tail is a
finite sum; the number is h √z W with W = fmax · T and z = −½ (n − 2h − 1) ln(1 − R²_h), after Baluev (2008, MNRAS 385,
1279; 2009, MNRAS 395, 1541), taken for each h that was tried. It holds where the errors tell how the noise differs from
epoch to epoch: weights that differ where the noise does not leave fewer effective epochs than n.
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

import numpy as np
from numba import njit

from lightmill.pipeline import radix

__all__ = ["judge", "significance", "weigh", "with_relatives", "workspace"]

PENALTY = 2.0  #: of each parameter, in units of ln n
RIDGE = 1e-5  #: added to the normal equations' diagonal (about ½): epochs at a few phases alone leave them singular
STEPS = 2  #: Newton steps from a peak of the grid to that of the sum
PARABOLAS = 4  #: at most, from there to where the fit explains most
CLOSE = 0.05  #: of a cycle over the baseline: the three fits of a parabola are so far apart
FARTHEST = 5.0  #: move of one parabola, in these steps
NEAR = 1.0  #: a move so short is the last
SAME = 0.2  #: frequencies closer than this over the baseline are one
RELATED = 3  #: highest peaks of which the double and the day aliases are judged too, peaks themselves or not
RELATIVES = 3  #: that each of them has: twice its frequency, a cycle a day more, and one less
BRIGHTER, FAINTER = 0.3, 1.0  #: 5 % to 95 % ranges beyond which magnitudes are drawn in: eclipses may be deep
SOFTER = 0.1  #: of that range, added to the errors in quadrature
ROUNDING = 1e-12  #: of a magnitude, a generous one: equal magnitudes differ by so much from their mean
REST = 1e-6  #: of the variance is never explained: float32 sums resolve no less


def _polynomial(values: np.ndarray) -> tuple[np.float32, ...]:
    return tuple(np.float32(c) for c in np.polynomial.Polynomial.fit(_SQUARES, values, 5).convert().coef)


# sin(πr)/r and cos πr for |r| ≤ ½ as polynomials in r², to the rounding of float32: least squares at Chebyshev's nodes
_SQUARES = 0.125 * (1 - np.cos(np.pi * (np.arange(64) + 0.5) / 64))
_SINE = _polynomial(np.sin(np.pi * np.sqrt(_SQUARES)) / np.sqrt(_SQUARES))
_COSINE = _polynomial(np.cos(np.pi * np.sqrt(_SQUARES)))
FREQUENCY, RANK, POWER, EXPLAINED = range(4)  #: columns of a candidate's row; the coefficients come last
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)

# nogil: threads may search side by side. fastmath: sums in any order, and no care for NaN, which `clean` has removed.
# A loop either stores or sums (see `features`).
_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath=True, boundscheck=False)
# what a kernel calls becomes part of it (see `features`)
_inline = njit(
    nogil=True, cache=True, error_model="numpy", fastmath=True, boundscheck=False, forceinline=True
)


def with_relatives(peaks: int) -> int:
    """How many so many peaks and the relatives of the highest are, at most; each is judged with its half."""
    return peaks + RELATED * RELATIVES


def workspace(longest: int, peaks: int, harmonics: int, fitted: int) -> tuple[np.ndarray, ...]:
    """Scratch for light curves of at most `longest` epochs and so many peaks: waves, sums, normal equations, solution,
    R², a row for each candidate with `fitted` harmonics' coefficients, and what `_list` calls bases."""
    return (
        np.empty((4, longest), np.float32),
        np.empty((4, 2 * harmonics + 1)),
        np.empty((2 * harmonics, 2 * harmonics)),
        np.empty(2 * harmonics),
        np.empty(harmonics),
        np.empty((2 * with_relatives(peaks), EXPLAINED + harmonics + 2 * fitted)),
        np.empty((with_relatives(peaks), 2)),
    )


@_jit
def weigh(t, mag, magerr, offsets, scratch, since, time, weight, product, variance, baseline):
    """Times from the first epoch and the middle, weights that sum to 1, weights times magnitudes less their mean.

    Magnitudes far outside the 5 % to 95 % range are drawn to its neighbourhood, and a share of that range is added to
    the errors: an outlier must not decide, nor a few epochs whose errors promise more than any curve would fit.

    scratch : of `radix.workspace`, and two vectors for the longest light curve
    since, time : (N,) float64 [d], weight : (N,) float32, product : (N,) float32 [mag], filled
    variance : (n,) float64, filled: the weighted variance [mag²], 0 if rounding alone may have made it
    baseline : (n,) float64 [d], filled
    """
    ordered, order, keys, first, counters = scratch
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        n = b - a
        variance[i] = 0.0
        if n < 2:
            continue
        x, m, e = t[a:b], mag[a:b], magerr[a:b]
        radix.sort_into(m, ordered[:n], order, keys, first, counters)
        bright, faint = ordered[int(0.05 * (n - 1))], ordered[n - 1 - int(0.05 * (n - 1))]
        spread, middle = faint - bright, 0.5 * (x[0] + x[n - 1])
        low, high, soft = bright - BRIGHTER * spread, faint + FAINTER * spread, (SOFTER * spread) ** 2
        total, mean, square = 0.0, 0.0, 0.0
        for k in range(n):
            w = 1.0 / (e[k] * e[k] + soft)
            total += w
            mean += w * min(max(m[k], low), high)
        mean /= total
        for k in range(n):
            w = 1.0 / ((e[k] * e[k] + soft) * total)
            since[a + k] = x[k] - x[0]
            time[a + k] = x[k] - middle
            weight[a + k] = w
            product[a + k] = w * (min(max(m[k], low), high) - mean)
        for k in range(n):
            y = min(max(m[k], low), high) - mean
            square += y * y / ((e[k] * e[k] + soft) * total)
        baseline[i] = x[n - 1] - x[0]
        if square > (ROUNDING * mean) ** 2:
            variance[i] = square


@_jit
def judge(
    time, weight, product, offsets, variance, some, peaks, counts, step, lowest, highest, frequencies, polished, work,
    candidates, rank, score, explained, power, wave,
):  # fmt: skip
    """Refine the peaks of some light curves' power spectra, fit them and their relatives, and rank them.

    some : (k,) int64, which of the n light curves; peaks : (k, P) int64, of which the first counts[j] are filled, in
    units of step[i] [1/d]; lowest, highest : (n,) float64, frequencies allowed; frequencies : (n,) float64, how many
    were looked at; polished : candidates that are moved to where their own fits explain most; work : of `workspace`
    The rest, (n, …), is filled: see `period.Periods`.
    """
    for j in range(some.size):
        i = some[j]
        a, b = offsets[i], offsets[i + 1]
        epochs = time[a:b], weight[a:b], product[a:b]
        found, count = _list(epochs, variance[i], peaks[j, : counts[j]], step[i], lowest[i], highest[i], work)
        for c in np.argsort(-found[:count, RANK], kind="mergesort")[:polished]:
            f = _summit(
                found[c, FREQUENCY],
                found[c, EXPLAINED : EXPLAINED + explained.shape[2]],
                epochs,
                variance[i],
                lowest[i],
                highest[i],
                work,
            )
            _judge(f, found[c, POWER], epochs, variance[i], work, found[c])
        for place, c in enumerate(np.argsort(-found[:count, RANK], kind="mergesort")):
            row = found[c]
            candidates[i, place], rank[i, place], power[i, place] = row[FREQUENCY], row[RANK], row[POWER]
            explained[i, place] = row[EXPLAINED : EXPLAINED + explained.shape[2]]
            wave[i, place] = row[EXPLAINED + explained.shape[2] :]
            score[i, place] = significance(explained[i, place], b - a, frequencies[i])


@_inline
def _list(epochs, variance, peaks, df, lowest, highest, work):
    """The candidates of one light curve, a row each as `_judge` fills it, and how many they are.

    Peaks and relatives are the bases: (k, 2) float64, frequency [1/d], 0 for none, and height of the power there.
    """
    time, found, bases, most = epochs[0], work[5], work[6], peaks.size
    resolution = 1.0 / (time[time.size - 1] - time[0])
    for i in range(most):
        f, bases[i, 1] = _climb(peaks[i] * df, epochs, df, work[0])
        bases[i, 0] = min(max(f, lowest), highest)
    relatives = RELATIVES * min(RELATED, most)
    for k in range(relatives):
        f = _relative(k % RELATIVES, bases[k // RELATIVES, 0], bases[:most], resolution, lowest, highest)
        bases[most + k] = f, 0.0
        if f > 0.0:
            bases[most + k] = _climb(f, epochs, 0.0, work[0])  # no step: it need not be a peak
    count = _pick(bases[: most + relatives], lowest, SAME * resolution, found)
    for c in range(count):
        _judge(found[c, FREQUENCY], TWO * found[c, POWER] / variance, epochs, variance, work, found[c])
    return found, count


@_inline
def _relative(which, f, peaks, resolution, lowest, highest):
    """Twice a frequency [1/d], a cycle a day more, or one less (a negative frequency is its positive); 0 where that is
    not allowed, or within 1/T of a peak: then it is that peak."""
    g = 2.0 * f if which == 0 else (f + 1.0 if which == 1 else abs(f - 1.0))
    return g if lowest <= g <= highest and not _listed(g, peaks, resolution) else 0.0


@_inline
def _pick(bases, lowest, apart, rows):
    """Bases and their halves, none within `apart` of another, into the rows' FREQUENCY and POWER; how many they are."""
    count = 0
    for i in range(len(bases)):
        for part in range(1, 3):
            f = bases[i, 0] / part
            if f >= lowest and not _listed(f, rows[:count], apart):
                rows[count, FREQUENCY], rows[count, POWER] = f, bases[i, 1]
                count += 1
    return count


@_inline
def _judge(f, power, epochs, variance, work, row):
    """Frequency, rank, power, R² and coefficients of a candidate into `row`."""
    explained = work[4]
    _explain(f, epochs, variance, work, explained.size)
    row[FREQUENCY], row[POWER] = f, power
    row[RANK], _ = _rank(explained, epochs[0].size)
    row[EXPLAINED : EXPLAINED + explained.size] = explained
    _solve(work[2], work[3], row[EXPLAINED + explained.size :])


@_inline
def _summit(f, explained, epochs, variance, lowest, highest, work):
    """Where the harmonics that f's rank is made of explain most, within the frequencies allowed: parabolas through fits
    a fraction of a cycle apart."""
    time, found = epochs[0], work[4]
    _, h = _rank(explained, time.size)
    step = CLOSE / (h * (time[time.size - 1] - time[0]))
    here = explained[h - 1]
    for _ in range(PARABOLAS):
        _explain(f - step, epochs, variance, work, h)
        before = found[h - 1]
        _explain(f + step, epochs, variance, work, h)
        after = found[h - 1]
        bend = before - 2.0 * here + after
        move = 0.5 * (before - after) / bend if bend < 0.0 else np.copysign(FARTHEST, after - before)
        move = min(max(move, -FARTHEST), FARTHEST)
        there = min(max(f + move * step, lowest), highest)
        _explain(there, epochs, variance, work, h)
        if found[h - 1] <= here:
            break
        f, here = there, found[h - 1]
        if abs(move) < NEAR:
            break
    return f


@_inline
def significance(explained, n, frequencies):
    """−log10 of the chance that noise of any size explains as much at the best of `frequencies`; ≥ 0."""
    best = 0.0
    for h in range(1, explained.size + 1):
        free = 0.5 * (n - 2 * h - 1)
        if free <= 0.0:
            break
        r = min(max(explained[h - 1], 0.0), 1.0 - REST)
        z = -free * np.log(1.0 - r)
        tail, term = 1.0, 1.0
        for j in range(1, h):
            term *= (free + j - 1) / j * r
            tail += term
        looked = frequencies * h * explained.size * np.sqrt(max(z, 1.0))
        best = max(best, (z - np.log(tail) - np.log(looked)) / np.log(10.0))
    return best


@_inline
def _listed(f, found, apart):
    near = False
    for i in range(len(found)):
        near |= abs(found[i, FREQUENCY] - f) < apart
    return near


@_inline
def _rank(explained, n):
    """The highest rank of 1…H harmonics, and which number has it."""
    best, harmonics = -np.inf, 1
    for h in range(1, explained.size + 1):
        free = n - 2 * h - 1
        if free < 1 and h > 1:
            break
        r = -free * np.log(max(REST, 1.0 - explained[h - 1])) - PENALTY * 2 * h * np.log(n)
        if r > best:
            best, harmonics = r, h
    return best, harmonics


@_inline
def _turn(f, time, cosine, sine):
    """cos and sin of 2πft, float32: the phase is reduced in float64, then half its angle doubled."""
    for i in range(time.size):
        x = f * time[i]
        r = np.float32(x - np.rint(x))
        q = r * r
        s = r * (_SINE[0] + q * (_SINE[1] + q * (_SINE[2] + q * (_SINE[3] + q * (_SINE[4] + q * _SINE[5])))))
        c = _COSINE[0] + q * (
            _COSINE[1] + q * (_COSINE[2] + q * (_COSINE[3] + q * (_COSINE[4] + q * _COSINE[5])))
        )
        cosine[i] = ONE - TWO * s * s
        sine[i] = TWO * s * c


@_inline
def _climb(f, epochs, df, waves):
    """Newton's way from f to the maximum of |Σ product exp(−2πi f t)|², at most df away; frequency and maximum."""
    time, _, product = epochs
    n, start, height = time.size, f, 0.0
    cosine, sine = waves[0, :n], waves[1, :n]
    scale = np.float32(2.0 / (time[n - 1] - time[0]))
    for _ in range(STEPS):
        _turn(f, time, cosine, sine)
        a = b = a1 = b1 = a2 = b2 = ZERO
        for i in range(n):
            c, s, x = product[i] * cosine[i], product[i] * sine[i], np.float32(time[i]) * scale
            a += c
            b += s
            a1 += c * x
            b1 += s * x
            a2 += c * x * x
            b2 += s * x * x
        slope, bend = b * a1 - a * b1, b1 * b1 + a1 * a1 - a * a2 - b * b2
        limit, here = 0.5 * df, f
        move = -slope / bend / (2.0 * np.pi) * scale if bend < 0.0 else np.copysign(0.5 * limit, slope)
        f += min(max(move, -limit), limit)
        f = min(max(f, start - df), start + df)
        angle = 2.0 * np.pi * (f - here) / scale
        height = a * a + b * b + 2.0 * slope * angle + bend * angle * angle
    return f, height


@_inline
def _explain(f, epochs, variance, work, harmonics):
    """R² of 1…`harmonics` harmonics of f into work[4]; the factor, and what it makes of the data, into work[2:4]."""
    waves, sums, normal, solution, found = work[:5]
    time, weight, product = epochs
    n = time.size
    cosine, sine, c, s = waves[0, :n], waves[1, :n], waves[2, :n], waves[3, :n]
    _turn(f, time, cosine, sine)
    for i in range(n):
        c[i] = cosine[i]
        s[i] = sine[i]
    sums[0, 0], sums[1, 0] = 1.0, 0.0
    for h in range(1, 2 * harmonics + 1):
        if h > 1:
            for i in range(n):
                x, y = c[i], s[i]
                c[i] = x * cosine[i] - y * sine[i]
                s[i] = x * sine[i] + y * cosine[i]
        a = b = p = q = ZERO
        if h <= harmonics:
            for i in range(n):
                a += weight[i] * c[i]
                b += weight[i] * s[i]
                p += product[i] * c[i]
                q += product[i] * s[i]
            sums[2, h], sums[3, h] = p, q
        else:
            for i in range(n):
                a += weight[i] * c[i]
                b += weight[i] * s[i]
        sums[0, h], sums[1, h] = a, b
    size = 2 * harmonics
    _normal_equations(sums, normal[:size, :size], solution[:size])
    _nested(normal[:size, :size], solution[:size], variance, found)


@_inline
def _normal_equations(sums, normal, solution):
    """Weighted covariances of cos and sin of the harmonics (products of two are sums of others), and with the data."""
    cos, sin, data_cos, data_sin = sums
    for j in range(1, solution.size // 2 + 1):
        a, b = 2 * j - 2, 2 * j - 1
        for k in range(1, j + 1):
            c, d, more, less = 2 * k - 2, 2 * k - 1, j + k, j - k
            normal[a, c] = 0.5 * (cos[less] + cos[more]) - cos[j] * cos[k]
            normal[b, d] = 0.5 * (cos[less] - cos[more]) - sin[j] * sin[k]
            normal[b, c] = 0.5 * (sin[more] + sin[less]) - sin[j] * cos[k]
            if k < j:
                normal[a, d] = 0.5 * (sin[more] - sin[less]) - cos[j] * sin[k]
        solution[a], solution[b] = data_cos[j], data_sin[j]


@_inline
def _nested(normal, solution, variance, found):
    """Cholesky's factorisation, column by column; each harmonic's two columns add to what is explained."""
    total = 0.0
    for j in range(solution.size):
        pivot, value = normal[j, j] + RIDGE, solution[j]
        for k in range(j):
            pivot -= normal[j, k] * normal[j, k]
            value -= normal[j, k] * solution[k]
        scale = 1.0 / np.sqrt(max(pivot, RIDGE))
        solution[j] = value * scale
        total += solution[j] * solution[j]
        for i in range(j + 1, solution.size):
            x = normal[i, j]
            for k in range(j):
                x -= normal[i, k] * normal[j, k]
            normal[i, j] = x * scale
        if j % 2 == 1:
            found[j // 2] = total / variance
        normal[j, j] = scale


@_inline
def _solve(normal, solution, wave):
    """Coefficients of cos and sin of the first harmonics, as many as `wave` holds, by substitution from the last."""
    for j in range(wave.size - 1, -1, -1):
        x = solution[j]
        for i in range(j + 1, wave.size):
            x -= normal[i, j] * wave[i]
        wave[j] = x * normal[j, j]
