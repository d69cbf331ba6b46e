"""The night fold on a GPU: `period_fold`'s grids and peaks, for many light curves whose folds are alike.

    spread   one block a light curve: a thread adds the epochs of one night to every WIDTHth row
    peaks    one block for SHARE blocks of base frequencies; a thread has one base frequency and all its aliases

Peaks are kept as *keys*: the power's bits above those of how far the frequency, in steps, lies below LOW. So keys
compare as powers do, the lower frequency first where two are equal, no two are the same, and NONE stands for none.
A block sorts new keys into its list by counting for each how many are higher; so it does not matter who found which
first.
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cuda, float32, int32, uint64

from lightmill.pipeline import period_fold
from lightmill.pipeline.period_cuda_fit import LOW, NONE, on_device
from lightmill.pipeline.period_fit import TWO, ZERO
from lightmill.pipeline.period_fold import BLOCK, WIDTH

if TYPE_CHECKING:
    from lightmill.pipeline.period_cuda import Curves

__all__ = ["MOST", "peaks", "spread"]

THREADS = 128  #: of a block that spreads a light curve
COLUMNS = BLOCK  #: threads that look for peaks together
SHARE = 8  #: blocks of base frequencies that one block of threads looks through
MOST = 2048  #: peaks a light curve whose lists shared memory holds
NEW = 2 * BLOCK  #: local maxima in four rows of BLOCK powers, at most
BITS = np.uint64(32)  #: of a key below the power's


def spread(curves: Curves, some: Any, density: float, shares: Any, grids: Any) -> None:
    """Fill the `grids` of some light curves, (k, rows, days) float32. density: rows a day; shares: `SPREAD`."""
    _clear[(len(some), grids.shape[1]), THREADS](grids)
    _spread[len(some), THREADS](
        curves.t, curves.product, curves.offsets, some, curves.day, curves.dusk, density, shares, grids
    )


def peaks(curves: Curves, some: Any, days: int, tables: period_fold.Tables, spectra: Any, keys: Any) -> None:
    """Keys of the highest local maxima, (k, most), from the highest down; the `spectra` are used up."""
    parts = -(-len(tables.twiddles) // SHARE)
    listed = cuda.device_array((len(some), parts, keys.shape[1]), np.uint64)
    _look[(len(some), parts), COLUMNS, 0, 8 * (NEW + 2 * keys.shape[1])](
        spectra, days, *map(cuda.to_device, tables), some, curves.first, curves.last, SHARE, listed
    )
    _gather[len(some), COLUMNS, 0, 16 * keys.shape[1]](listed, keys)


@cuda.jit
def _clear(grids):
    """Rows of zeros."""
    for d in range(cuda.threadIdx.x, grids.shape[2], cuda.blockDim.x):
        grids[cuda.blockIdx.x, cuda.blockIdx.y, d] = ZERO


_cell = on_device(period_fold._cell)


@cuda.jit
def _spread(t, product, offsets, some, day, dusk, density, shares, grids):
    """As `period_fold.spread`. A thread takes the nights that begin at its epochs, and of the rows every WIDTHth."""
    j = cuda.blockIdx.x
    i = some[j]
    a, b = offsets[i], offsets[i + 1]
    for item in range(cuda.threadIdx.x, (b - a) * WIDTH, cuda.blockDim.x):
        epoch, turn = a + item // WIDTH, item % WIDTH
        _, _, night = _cell(t[epoch], day[i], dusk[i], density)
        if epoch > a:
            _, _, before = _cell(t[epoch - 1], day[i], dusk[i], density)
            if before == night:
                continue
        while epoch < b:
            row, place, column = _cell(t[epoch], day[i], dusk[i], density)
            if column != night:
                break
            k = (turn - np.int64(row)) % WIDTH
            grids[j, np.int64(row) + k, column] += product[epoch] * shares[place, k]
            epoch += 1


@cuda.jit
def _look(spectra, days, waves, twiddles, correction, some, first, last, share, listed):
    """As `period_fold.peaks`, for one light curve and `share` blocks of base frequencies."""
    j, chunk, thread, threads = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, cuda.blockDim.x
    most, cycles, rows = listed.shape[2], waves.shape[0], spectra[j]
    lowest, highest = first[some[j]], last[some[j]]
    powers = cuda.shared.array((4, BLOCK), float32)
    number = cuda.shared.array(1, int32)
    lists = cuda.shared.array(0, uint64)
    new, held, other = lists[:NEW], lists[NEW : NEW + most], lists[NEW + most : NEW + 2 * most]
    for k in range(thread, most, threads):
        held[k] = NONE
    for block in range(chunk * share, min((chunk + 1) * share, twiddles.shape[0])):
        for k in range(thread, BLOCK, threads):
            _halves(rows, 2 * (block * BLOCK + k), twiddles[block])
        for m in range(0, cycles, 2):
            for k in range(thread, BLOCK, threads):
                _powers(rows, 2 * (block * BLOCK + k), waves, m, correction[block], powers, k)
            if thread == 0:
                number[0] = 0
            cuda.syncthreads()
            for k in range(thread, BLOCK, threads):
                for r in range(4):
                    v = powers[r, k]
                    left, right = powers[r, max(k - 1, 0)], powers[r, min(k + 1, BLOCK - 1)]
                    if v > ZERO and (k == 0 or v >= left) and (k == BLOCK - 1 or v > right):
                        at = block * BLOCK + k
                        at = (m + r // 2) * days + (at if r % 2 == 0 else -at)
                        if lowest <= at <= highest and _key(v, at) > held[most - 1]:
                            new[cuda.atomic.add(number, 0, 1)] = _key(v, at)
            cuda.syncthreads()
            if number[0] > 0:
                _merge(new, number[0], held, other)
                held, other = other, held
            cuda.syncthreads()
    for k in range(thread, most, threads):
        listed[j, chunk, k] = held[k]


@cuda.jit
def _gather(listed, keys):
    """The highest of all lists of one light curve."""
    j, most = cuda.blockIdx.x, keys.shape[1]
    lists = cuda.shared.array(0, uint64)
    held, other = lists[:most], lists[most : 2 * most]
    for k in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        held[k] = NONE
    cuda.syncthreads()
    for chunk in range(listed.shape[1]):
        _merge(listed[j, chunk], most, held, other)
        held, other = other, held
    for k in range(cuda.threadIdx.x, most, cuda.blockDim.x):
        keys[j, k] = held[k]


@cuda.jit(device=True)
def _halves(rows, at, twiddle):
    """As `period_fold._halves` for one base frequency: sums replace the late rows, differences the early ones."""
    half = twiddle.shape[1]
    for s in range(half):
        c, d = twiddle[0, s], twiddle[1, s]
        late, early = half + s, half - 1 - s
        x, y, u, v = rows[late, at], rows[late, at + 1], rows[early, at], rows[early, at + 1]
        p, q, r, z = x * c + y * d, y * c - x * d, u * c - v * d, v * c + u * d
        rows[late, at], rows[late, at + 1] = p + r, q + z
        rows[early, at], rows[early, at + 1] = p - r, q - z


@cuda.jit(device=True)
def _powers(rows, at, waves, m, correction, powers, k):
    """Of one base frequency and m and m + 1 cycles a day, up and down, into powers[:, k]."""
    half = waves.shape[2]
    a = b = c = d = e = f = g = h = ZERO
    for s in range(half):
        x, y = rows[half + s, at], rows[half + s, at + 1]
        u, v = rows[half - 1 - s, at], rows[half - 1 - s, at + 1]
        cosine, sine, cosine1, sine1 = waves[m, 0, s], waves[m, 1, s], waves[m + 1, 0, s], waves[m + 1, 1, s]
        a += cosine * x
        b += cosine * y
        c += sine * u
        d += sine * v
        e += cosine1 * x
        f += cosine1 * y
        g += sine1 * u
        h += sine1 * v
    total, cross = a * a + b * b + c * c + d * d, TWO * (a * d - b * c)
    powers[0, k] = correction[m, 0] * (total + cross)
    powers[1, k] = correction[m, 1] * (total - cross)
    total, cross = e * e + f * f + g * g + h * h, TWO * (e * h - f * g)
    powers[2, k] = correction[m + 1, 0] * (total + cross)
    powers[3, k] = correction[m + 1, 1] * (total - cross)


@cuda.jit(device=True)
def _key(power, at):
    return np.uint64(np.uint64(power.view(np.uint32)) << BITS) | np.uint64(LOW - np.uint64(at))


@cuda.jit(device=True)
def _merge(new, count, held, other):
    """The highest of `held` and the first `count` of `new` into `other`: a key's place is how many are higher."""
    thread, threads, most = cuda.threadIdx.x, cuda.blockDim.x, held.size
    for k in range(thread, most, threads):
        other[k] = NONE
    cuda.syncthreads()
    for x in range(thread, count + most, threads):
        key = new[x] if x < count else held[x - count]
        if key > NONE:
            place = 0
            for y in range(count):
                place += new[y] > key
            for y in range(most):
                place += held[y] > key
            if place < most:
                other[place] = key
    cuda.syncthreads()
