"""The decision of the period search on a GPU: `period_fit`'s, one warp a candidate, its lanes over the epochs.

What judges one candidate is `period_fit`'s own code, compiled once more (`on_device`). Only the loops over the epochs
are other ones, and what is shared between lanes: sums, normal equations and R² lie in shared memory, one lane solves.
All candidates of a few thousand light curves pass one step after the other.

    climb    each peak to its summit            one warp a peak
    relate   doubles and day aliases of some    one warp a relative
    pick     which frequencies, and halves      one thread a light curve
    judge    fits and ranks                     one warp a candidate, as below
    polish   the best moved to where they fit
    tell     in their order, with their score
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

import importlib
import math
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cuda, float32, float64
from numba.core import config

from lightmill.pipeline import period_fit
from lightmill.pipeline.period import FITTED, HARMONICS, POLISHED
from lightmill.pipeline.period_fit import EXPLAINED, FREQUENCY, POWER, RANK, RELATIVES, SAME, STEPS, TWO, ZERO

if TYPE_CHECKING:
    from lightmill.pipeline.period_cuda import Curves

__all__ = ["judge", "on_device"]

LANES = 32  #: threads that judge a candidate together: a warp
PARAMETERS = 2 * HARMONICS
WIDE = EXPLAINED + HARMONICS + 2 * FITTED  #: columns of a candidate's row
PARTIAL = (4, PARAMETERS, LANES + 1)  #: a sum a lane; one column more, so that no two lie in one bank
LOW, NONE = np.uint64(2**32 - 1), np.uint64(0)  #: of keys, see `period_cuda_fold`
SUMS, NORMAL, TOTAL = (4, PARAMETERS + 1), (PARAMETERS, PARAMETERS), (PARAMETERS, 4)
UFUNCS = "floor", "rint", "copysign", "sqrt", "log"  #: that numba.cuda lacks and libdevice has


def _mathematics() -> ModuleType:
    """numpy, with libdevice's functions in place of the ufuncs that numba.cuda lacks; the simulator has them all."""
    module = ModuleType("numpy")
    vars(module).update(vars(np))
    if not config.ENABLE_CUDASIM:
        libdevice = importlib.import_module("numba.cuda.libdevice")
        vars(module).update({name: getattr(libdevice, name) for name in UFUNCS})
    return module


def on_device(kernel: Any, **others: Any) -> Any:
    """A kernel of the CPU for the device, some of the functions that it calls replaced."""
    source = kernel.py_func
    scope = source.__globals__ | {"np": NUMPY} | others
    return cuda.jit(device=True)(FunctionType(source.__code__, scope, source.__name__))


NUMPY = _mathematics()
_turn, _significance = on_device(period_fit._turn), on_device(period_fit.significance)
_normal_equations, _nested = on_device(period_fit._normal_equations), on_device(period_fit._nested)
_rank, _solve = on_device(period_fit._rank), on_device(period_fit._solve)
_listed = on_device(period_fit._listed)
_relative, _pick = (on_device(f, _listed=_listed) for f in (period_fit._relative, period_fit._pick))


def judge(curves: Curves, some: Any, keys: Any) -> np.ndarray:
    """Candidates of some light curves, from the highest rank down, NaN behind the last.

    some : (k,) int64; keys : (k, P) uint64. Returns (k, c, WIDE + 1) float64: `period_fit`'s rows, and the score.
    """
    k, peaks = keys.shape
    bases = period_fit.with_relatives(peaks)
    most, c = 2 * bases, curves
    epochs = c.time, c.weight, c.product, c.offsets, c.variance, some
    based, counts = cuda.device_array((k, bases, 2), np.float64), cuda.device_array(k, np.int64)
    rows, polished = (cuda.device_array((k, most, WIDE), np.float64) for _ in range(2))
    told = cuda.device_array((k, most, WIDE + 1), np.float64)
    _climb_peaks[(k, peaks), LANES](*epochs, keys, c.step, c.lowest, c.highest, based)
    _relate[(k, bases - peaks), LANES](*epochs, peaks, c.lowest, c.highest, based)
    _pick_rows[-(-k // LANES), LANES](c.time, c.offsets, some, based, c.lowest, rows, counts)
    _judge_rows[(k, most), LANES](*epochs, counts, rows)
    _polish[(k, most), LANES](*epochs, counts, rows, c.lowest, c.highest, POLISHED, polished)
    _tell[(k, most), LANES](c.offsets, some, c.number, counts, polished, told)
    return told.copy_to_host()


@cuda.jit(device=True)
def _workspace():
    """As `period_fit.workspace`, shared by the lanes: sums a lane, sums, normal equations, solution, R²."""
    partial = cuda.shared.array(PARTIAL, float32)
    sums = cuda.shared.array(SUMS, float64)
    normal = cuda.shared.array(NORMAL, float64)
    solution = cuda.shared.array(PARAMETERS, float64)
    explained = cuda.shared.array(HARMONICS, float64)
    return partial, sums, normal, solution, explained


@cuda.jit(device=True)
def _epochs(time, weight, product, offsets, i):
    a, b = offsets[i], offsets[i + 1]
    return time[a:b], weight[a:b], product[a:b]


@cuda.jit(device=True)
def _add_up(partial, count, columns, sums):
    """The lanes' sums, of `count` rows and `columns` columns, added up into sums[:, 1:]."""
    cuda.syncthreads()
    for k in range(cuda.threadIdx.x, count * columns, cuda.blockDim.x):
        row, column, total = k // columns, k % columns, 0.0
        for lane in range(cuda.blockDim.x):
            total += partial[row, column, lane]
        sums[row, column + 1] = total
    cuda.syncthreads()


@cuda.jit(device=True)
def _explain(f, epochs, variance, work, harmonics):
    """As `period_fit._explain`; all lanes must call it, and find the same in `work`."""
    partial, sums, normal, solution, explained = work
    _sum_harmonics(f, epochs, harmonics, partial)
    _add_up(partial, 4, 2 * harmonics, sums)
    if cuda.threadIdx.x == 0:
        sums[0, 0], sums[1, 0] = 1.0, 0.0
        size = 2 * harmonics
        _normal_equations(sums, normal[:size, :size], solution[:size])
        _nested(normal[:size, :size], solution[:size], variance, explained)
    cuda.syncthreads()


@cuda.jit(device=True)
def _sum_harmonics(f, epochs, harmonics, partial):
    """Of this lane's epochs, weights and data times cos and sin of 1…2 · `harmonics` harmonics, into its `partial`."""
    time, weight, product = epochs
    at, cosine, sine = (
        cuda.local.array(1, float64),
        cuda.local.array(1, float32),
        cuda.local.array(1, float32),
    )
    total = cuda.local.array(TOTAL, float32)
    for h in range(PARAMETERS):
        for q in range(4):
            total[h, q] = ZERO
    for i in range(cuda.threadIdx.x, time.size, cuda.blockDim.x):
        at[0] = time[i]
        _turn(f, at, cosine, sine)
        c, s, w, y = cosine[0], sine[0], weight[i], product[i]
        # the constant number of rounds lets the sums stay in registers
        for h in range(PARAMETERS):
            if h < 2 * harmonics:
                total[h, 0] += w * c
                total[h, 1] += w * s
                if h < HARMONICS:
                    total[h, 2] += y * c
                    total[h, 3] += y * s
                c, s = c * cosine[0] - s * sine[0], c * sine[0] + s * cosine[0]
    for h in range(PARAMETERS):
        for q in range(4):
            partial[q, h, cuda.threadIdx.x] = total[h, q]


_summit = on_device(period_fit._summit, _explain=_explain, _rank=_rank)


@cuda.jit(device=True)
def _judge(f, power, epochs, variance, work, row):
    """As `period_fit._judge`; all lanes must call it."""
    explained = work[4]
    _explain(f, epochs, variance, work, HARMONICS)
    if cuda.threadIdx.x == 0:
        row[FREQUENCY], row[POWER] = f, power
        row[RANK], _ = _rank(explained, epochs[0].size)
        for h in range(HARMONICS):
            row[EXPLAINED + h] = explained[h]
        _solve(work[2], work[3], row[EXPLAINED + HARMONICS :])


@cuda.jit(device=True)
def _climb(f, epochs, df, work):
    """As `period_fit._climb`; all lanes must call it."""
    time, _, product = epochs
    partial, sums = work[0], work[1]
    at, cosine, sine = (
        cuda.local.array(1, float64),
        cuda.local.array(1, float32),
        cuda.local.array(1, float32),
    )
    n, start, height, lane = time.size, f, 0.0, cuda.threadIdx.x
    scale = np.float32(2.0 / (time[n - 1] - time[0]))
    for _ in range(STEPS):
        a = b = a1 = b1 = a2 = b2 = ZERO
        for i in range(lane, n, cuda.blockDim.x):
            at[0] = time[i]
            _turn(f, at, cosine, sine)
            c, s, x = product[i] * cosine[0], product[i] * sine[0], np.float32(time[i]) * scale
            a += c
            b += s
            a1 += c * x
            b1 += s * x
            a2 += c * x * x
            b2 += s * x * x
        partial[0, 0, lane], partial[0, 1, lane], partial[0, 2, lane] = a, a1, a2
        partial[1, 0, lane], partial[1, 1, lane], partial[1, 2, lane] = b, b1, b2
        _add_up(partial, 2, 3, sums)
        p, p1, p2, q, q1, q2 = sums[0, 1], sums[0, 2], sums[0, 3], sums[1, 1], sums[1, 2], sums[1, 3]
        slope, bend = q * p1 - p * q1, q1 * q1 + p1 * p1 - p * p2 - q * q2
        limit, here = 0.5 * df, f
        move = -slope / bend / (2.0 * np.pi) * scale if bend < 0.0 else math.copysign(0.5 * limit, slope)
        f += min(max(move, -limit), limit)
        f = min(max(f, start - df), start + df)
        angle = 2.0 * np.pi * (f - here) / scale
        height = p * p + q * q + 2.0 * slope * angle + bend * angle * angle
    return f, height


@cuda.jit
def _climb_peaks(time, weight, product, offsets, variance, some, keys, step, lowest, highest, bases):
    """Frequency and power of each peak; where there is none, zeros."""
    j, peak = cuda.blockIdx.x, cuda.blockIdx.y
    i, key, work = some[j], keys[j, peak], _workspace()
    f = height = 0.0
    if key != NONE:
        at = np.int64(LOW - (key & LOW))
        f, height = _climb(at * step[i], _epochs(time, weight, product, offsets, i), step[i], work)
        f = min(max(f, lowest[i]), highest[i])
    if cuda.threadIdx.x == 0:
        bases[j, peak, 0], bases[j, peak, 1] = f, TWO * height / variance[i]


@cuda.jit
def _relate(time, weight, product, offsets, variance, some, peaks, lowest, highest, bases):
    """The same of the relatives of the highest peaks, behind the `peaks`."""
    j, k = cuda.blockIdx.x, cuda.blockIdx.y
    i, peak, work = some[j], k // RELATIVES, _workspace()
    f = height = 0.0
    if peak < peaks and bases[j, peak, 0] > 0.0:
        epochs = _epochs(time, weight, product, offsets, i)
        resolution = 1.0 / (epochs[0][-1] - epochs[0][0])
        f = _relative(k % RELATIVES, bases[j, peak, 0], bases[j, :peaks], resolution, lowest[i], highest[i])
        if f > 0.0:
            f, height = _climb(f, epochs, 0.0, work)
    if cuda.threadIdx.x == 0:
        bases[j, peaks + k, 0], bases[j, peaks + k, 1] = f, TWO * height / variance[i]


@cuda.jit
def _pick_rows(time, offsets, some, bases, lowest, rows, counts):
    """What is to be judged, its frequency and power: a thread a light curve."""
    j = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if j < some.size:
        i = some[j]
        apart = SAME / (time[offsets[i + 1] - 1] - time[offsets[i]])
        counts[j] = _pick(bases[j], lowest[i], apart, rows[j])


@cuda.jit
def _judge_rows(time, weight, product, offsets, variance, some, counts, rows):
    """Fit every candidate."""
    j, c = cuda.blockIdx.x, cuda.blockIdx.y
    i, work = some[j], _workspace()
    if c < counts[j]:
        row = rows[j, c]
        epochs = _epochs(time, weight, product, offsets, i)
        _judge(row[FREQUENCY], row[POWER], epochs, variance[i], work, row)


@cuda.jit
def _polish(time, weight, product, offsets, variance, some, counts, rows, lowest, highest, most, polished):
    """The candidates, the `most` best of them moved to where their own fits explain most."""
    j, c = cuda.blockIdx.x, cuda.blockIdx.y
    i, work = some[j], _workspace()
    if c >= counts[j]:
        return
    row, new = rows[j, c], polished[j, c]
    if _place(rows[j], counts[j], c) < most:
        epochs = _epochs(time, weight, product, offsets, i)
        explained = row[EXPLAINED : EXPLAINED + HARMONICS]
        f = _summit(row[FREQUENCY], explained, epochs, variance[i], lowest[i], highest[i], work)
        _judge(f, row[POWER], epochs, variance[i], work, new)
    else:
        for k in range(cuda.threadIdx.x, WIDE, cuda.blockDim.x):
            new[k] = row[k]


@cuda.jit
def _tell(offsets, some, number, counts, rows, told):
    """The rows in their order, each with its score."""
    j, c = cuda.blockIdx.x, cuda.blockIdx.y
    i, known = some[j], c < counts[j]
    place = _place(rows[j], counts[j], c) if known else c
    for k in range(cuda.threadIdx.x, WIDE, cuda.blockDim.x):
        told[j, place, k] = rows[j, c, k] if known else np.nan
    if cuda.threadIdx.x == 0:
        explained = rows[j, c, EXPLAINED : EXPLAINED + HARMONICS]
        told[j, place, WIDE] = (
            _significance(explained, offsets[i + 1] - offsets[i], number[i]) if known else np.nan
        )


@cuda.jit(device=True)
def _place(rows, count, c):
    """How many of the candidates come before one: those of higher rank, and of the same rank those found earlier."""
    place = 0
    for k in range(count):
        place += rows[k, RANK] > rows[c, RANK] or (rows[k, RANK] == rows[c, RANK] and k < c)
    return place
