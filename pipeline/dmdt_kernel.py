"""The two kernels that count the pairs of a dm-dt image: one for few epochs, one for many. One thread, no GIL.

*Few epochs* (`_count_few`). Two tables, over the leading bits of dt and over equal steps of dm, give a bin each, which
one comparison with the true edge corrects. No branch, no search. Eight pairs at a time are subtracted and told their
places in the tables; hundreds wait in a buffer, to be looked up in one long loop. Pairs that follow each other are
often in one cell, and would wait for each other to be counted: they are counted in two images by turns.

*Many epochs* (`_count_many`). No pair is formed; 64 are counted at a time.

1. An edge e divides the partners of point i into those with m_j − m_i < e and the rest, which pass it. Float
   subtraction never reverses an order, so in order of magnitude those that pass are the points of rank ≥ r(i, e). As
   m_i grows, so does r: a pointer per edge that only moves forward (`_rank_edges`).
2. For each rank r, a bitmap in order of time of the points of rank ≥ r (`_mark_ranks`).
3. A boundary d of dt divides the partners too, at a place p(i, d) in the order of time: a pointer per boundary
   (`_walk_time`).
4. So the pairs of i with dm ≥ e and dt < d are the bits of the bitmap r(i, e) between i and p(i, d): a popcount of
   one masked word and the counts of the whole words before it. Eight edges stand side by side in a vector's lanes.
5. Differences along dt, then along dm, make a histogram of these cumulative counts (`_difference`).

Only edges within the light curve's range can divide it, and of those only the ones between (least − m_i) and
(greatest − m_i) divide the partners of i: a window of edges, whose lower neighbours all partners pass.

The bitmaps of n points take n²/8 bytes. A light curve longer than BLOCK is therefore counted in blocks of partners,
each against all points before its end: half a megabyte of bitmaps and about 200 bytes an epoch, whatever n is; 10⁵
epochs take a third of a second.

What Numba must be told: indices are unsigned, for signed ones may wrap around, which costs an instruction each; the
vectors are written out, for LLVM cannot know that the arrays do not overlap; a tuple of arrays costs a call for each
array's references, which the arrays alone do not. Everything but the sort is in this one
file, for Numba's cache does not notice changes in others.
"""

# mypy: ignore-errors
# (kernels and vectors are written in Numba's language and LLVM's, which mypy does not know)

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lightmill.pipeline import radix

__all__ = ["FEW", "MANTISSA", "PADDING", "count", "pack", "scale"]

FEW = 120  #: below so many epochs pairs are looked up one by one
BLOCK = 2048  #: partners in one block of bitmaps
LANES = PADDING = 8  #: edges side by side in a vector; so many times +inf stand behind the dt edges
MANTISSA = 5  #: leading bits of dt's mantissa in its table

COUNT, MAX, L2, PAPER = range(4)  #: indices into `dmdt.NORMALISATIONS`

PAIRS = np.uint64(512)  #: that wait in the buffer, or up to a row more, before they are looked up
ROOM = PAIRS + np.uint64(FEW + LANES)  #: of the buffer: dt's half of it begins at 0, dm's at ROOM
SIGN = np.int64(-(2**63))  #: the sign bit
TWO, SIX, EIGHT, BIT, SAMPLE = (np.uint64(x) for x in (2, 6, 8, 63, 4))

_jit = njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)

# ---- vectors: what LLVM does not find by itself ------------------------------------------------------------------

_I64, _F64 = ir.IntType(64), ir.DoubleType()
_V64 = ir.VectorType(_I64, LANES)


def _address(context, builder, kind, array, index, dtype):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(dtype, LANES).as_pointer())


def _load(builder, address):
    value = builder.load(address)
    value.align = 8
    return value


def _store(builder, value, address):
    builder.store(value, address).align = 8


def _spread(builder, value):
    vector = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _popcount(builder, value):
    name = "llvm.ctpop.v8i64"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_V64, [_V64]), name)
    return builder.call(function, [value])


@intrinsic
def _how_many_below(typingctx, values, at, origin, limit):
    """How many of values[at : at + 8] have value − origin < limit."""

    def generate(context, builder, signature, arguments):
        vector = _load(
            builder, _address(context, builder, signature.args[0], arguments[0], arguments[1], _F64)
        )
        difference = builder.fsub(vector, _spread(builder, arguments[2]))
        below = builder.fcmp_ordered("<", difference, _spread(builder, arguments[3]))
        return builder.zext(builder.ctpop(builder.bitcast(below, ir.IntType(8))), _I64)

    return types.uint64(values, types.uint64, types.float64, types.float64), generate


@intrinsic
def _add_masked(typingctx, total, at, columns, w, mask):
    """total[at + e] += before[e] + popcount(words[e] & mask), for the 8 lanes e of the column w of `_gather_rows`."""

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        place = _address(context, builder, kinds[0], arguments[0], arguments[1], _I64)
        column = builder.shl(arguments[3], ir.Constant(_I64, 4))
        after = builder.or_(column, ir.Constant(_I64, LANES))
        word = _load(builder, _address(context, builder, kinds[2], arguments[2], column, _I64))
        whole = _load(builder, _address(context, builder, kinds[2], arguments[2], after, _I64))
        part = _popcount(builder, builder.and_(word, _spread(builder, arguments[4])))
        _store(builder, builder.add(builder.add(whole, part), _load(builder, place)), place)
        return context.get_dummy_value()

    return types.void(total, types.uint64, columns, types.uint64, types.uint64), generate


@intrinsic
def _gather_rows(typingctx, bitmaps, rows, first, start, stop, skip, columns):
    """Lay 8 bitmaps side by side, and count their bits word by word.

    For lanes e and w = start … stop − 1: columns[16w + e] = bitmaps[rows[first + e] + w], its word; and
    columns[16w + 8 + e] the bits of that row in start … w − 1, less those in `skip` of word `start`: what stands
    before. Of the column `stop` there is only the latter, the count of all.
    """

    def generate(context, builder, signature, arguments):
        bitmaps, rows, first, start, stop, skip, columns = arguments
        kinds = signature.args

        def data(kind, array):
            return context.make_array(kind)(context, builder, array).data

        base, row = data(kinds[0], bitmaps), data(kinds[1], rows)
        starts = []
        for lane in range(LANES):
            offset = builder.load(builder.gep(row, [builder.add(first, ir.Constant(_I64, lane))]))
            starts.append(builder.gep(base, [builder.sext(offset, _I64)]))

        def column(w):
            vector = ir.Constant(_V64, ir.Undefined)
            for lane, address in enumerate(starts):
                word = builder.load(builder.gep(address, [w]))
                vector = builder.insert_element(vector, word, ir.Constant(ir.IntType(32), lane))
            return vector

        def place(w, part):
            at = builder.add(builder.shl(w, ir.Constant(_I64, 4)), ir.Constant(_I64, part * LANES))
            return _address(context, builder, kinds[6], columns, at, _I64)

        skipped = _popcount(builder, builder.and_(column(start), _spread(builder, skip)))
        initial = builder.sub(ir.Constant(_V64, [0] * LANES), skipped)
        entry = builder.block
        loop, done = builder.append_basic_block("word"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        w, count = builder.phi(_I64), builder.phi(_V64)
        vector = column(w)
        _store(builder, vector, place(w, 0))
        _store(builder, count, place(w, 1))
        following, after = (
            builder.add(w, ir.Constant(_I64, 1)),
            builder.add(count, _popcount(builder, vector)),
        )
        w.add_incoming(start, entry)
        w.add_incoming(following, builder.block)
        count.add_incoming(initial, entry)
        count.add_incoming(after, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, done)
        builder.position_at_end(done)
        _store(builder, after, place(stop, 1))
        return context.get_dummy_value()

    whole = (types.uint64, types.uint64, types.uint64, types.uint64)
    return types.void(bitmaps, rows, *whole, columns), generate


@intrinsic
def _locate(typingctx, ts, ms, j, ti, mi, tables, to, ranks, places):
    """Pairs of a point with the points j … j + 7: dt and dm as `_rank`s, and their places in the tables.

    ranks, places : the buffer, filled from `to` on, and from ROOM + to on for dm
    tables : the first and the last key of dt's, the first edge of dm, steps a magnitude, the last step
    """

    def generate(context, builder, signature, arguments):
        ts, ms, j, ti, mi, tables, to, ranks, places = arguments
        kinds = signature.args
        narrow = ir.VectorType(ir.IntType(32), LANES)
        low_key, high_key, low, scale, last = (
            _spread(builder, value) for value in cgutils.unpack_tuple(builder, tables)
        )

        def difference(kind, values, origin):
            vector = _load(builder, _address(context, builder, kind, values, j, _F64))
            return builder.fsub(vector, _spread(builder, origin))

        def put(value, kind, array, half):
            at = builder.add(to, ir.Constant(_I64, half * int(ROOM)))
            _store(builder, value, _address(context, builder, kind, array, at, value.type.element))

        def within(value, least, greatest, compare):
            value = builder.select(compare("<", value, least), least, value)
            return builder.select(compare("<", greatest, value), greatest, value)

        bits = builder.bitcast(difference(kinds[0], ts, ti), _V64)
        put(bits, kinds[7], ranks, 0)
        key = builder.trunc(builder.lshr(bits, ir.Constant(_V64, [52 - MANTISSA] * LANES)), narrow)
        key = within(key, low_key, high_key, builder.icmp_signed)
        put(builder.sub(key, low_key), kinds[8], places, 0)

        change = difference(kinds[1], ms, mi)
        bits = builder.bitcast(change, _V64)
        sign = builder.ashr(bits, ir.Constant(_V64, [63] * LANES))
        rank = builder.xor(bits, builder.or_(sign, ir.Constant(_V64, [-(2**63)] * LANES)))
        put(rank, kinds[7], ranks, 1)
        step = builder.fmul(builder.fsub(change, low), scale)
        step = within(step, ir.Constant(step.type, [0.0] * LANES), last, builder.fcmp_ordered)
        put(builder.fptosi(step, narrow), kinds[8], places, 1)
        return context.get_dummy_value()

    scalars = (types.uint64, types.float64, types.float64)
    return types.void(ts, ms, *scalars, tables, types.uint64, ranks, places), generate


@intrinsic
def _add(typingctx, values, at, more, target, to):
    """target[to : to + 8] = values[at : at + 8] + values[more : more + 8], all uint32."""

    def generate(context, builder, signature, arguments):
        values, at, more, target, to = arguments
        kinds, narrow = signature.args, ir.IntType(32)
        one, two = (builder.load(_address(context, builder, kinds[0], values, x, narrow)) for x in (at, more))
        one.align = two.align = 4
        place = _address(context, builder, kinds[3], target, to, narrow)
        builder.store(builder.add(one, two), place).align = 4
        return context.get_dummy_value()

    return types.void(values, types.uint64, types.uint64, target, types.uint64), generate


# ---- few epochs --------------------------------------------------------------------------------------------------


@_jit
def _count_few(
    ts, ms, n, dt_table, dt_first, dt_ranks, dm_table, dm_low, dm_scale, dm_ranks, ranks, places, cells, image, start,
):  # fmt: skip
    """ts, ms padded with 8 numbers. Fills image[start:], flat. ranks, places, cells are scratch of `count`."""
    n, one = np.uint64(n), np.uint64(1)
    tables = (
        np.int32(dt_first), np.int32(dt_first + dt_table.size - 1), dm_low, dm_scale, np.float64(dm_table.size - 1)
    )  # fmt: skip
    for c in range(cells.size):
        cells[c] = 0
    found = np.uint64(0)
    for i in range(n - one):
        for j in range(i + one, n, EIGHT):
            _locate(ts, ms, j, ts[i], ms[i], tables, found + j - i - one, ranks, places)
        found += n - one - i
        if found >= PAIRS or i == n - TWO:
            _look_up(ranks, places, found, dt_table, dt_ranks, dm_table, dm_ranks, cells)
            found = np.uint64(0)
    _sum_cells(cells, np.uint64(dt_ranks.size), np.uint64(dm_ranks.size), image, np.uint64(start))


@_jit
def _look_up(ranks, places, found, dt_table, dt_ranks, dm_table, dm_ranks, cells):
    """Count so many pairs of the buffer, every other one in the second half of the cells."""
    n_dt, half = np.uint64(dt_ranks.size), np.uint64(cells.size // 2)
    for p in range(found):
        k = np.uint64(dt_table[np.uint64(places[p])])
        k += np.uint64(ranks[p] >= dt_ranks[k])
        e = np.uint64(dm_table[np.uint64(places[p + ROOM])])
        e += np.uint64(ranks[p + ROOM] >= dm_ranks[e])
        cells[(p & np.uint64(1)) * half + e * n_dt + k] += np.uint32(1)


@_jit
def _sum_cells(cells, n_dt, n_dm, image, start):
    """Both halves of the cells in the grid into an image, eight at a time; the last eight of a row may overlap."""
    width, half = n_dt - TWO, n_dt * n_dm
    for e in range(np.uint64(1), n_dm - np.uint64(1)):
        row, to = e * n_dt + np.uint64(1), start + (e - np.uint64(1)) * width
        if width < EIGHT:
            for k in range(width):
                image[to + k] = cells[row + k] + cells[half + row + k]
        else:
            for k in range(np.uint64(0), width - EIGHT, EIGHT):
                _add(cells, row + k, half + row + k, image, to + k)
            last = width - EIGHT
            _add(cells, row + last, half + row + last, image, to + last)


@_jit
def _rank(edges):
    """Unsigned integers of the same order as floats; −0 is 0."""
    bits = (edges + 0.0).view(np.int64)
    return (bits ^ ((bits >> np.int64(63)) | SIGN)).view(np.uint64)


# ---- many epochs -------------------------------------------------------------------------------------------------


@_jit
def _count_many(ts, ms, n, dt, dm, sorting, tallies, bits, image):
    """ts, ms, dt padded with 8 times +inf. Fills image (n_dm, n_dt). The rest is scratch of `count`."""
    ordered, order, keys, first, counters = sorting
    radix.sort_into(ms[:n], ordered[:n], order, keys, first, counters)
    least, greatest = ordered[0], ordered[n - 1]
    # edges that divide some pair: above the lowest possible dm, not above the highest
    e0, e1 = 0, dm.size
    while e0 < dm.size and dm[e0] <= least - greatest:
        e0 += 1
    while e1 > e0 and dm[e1 - 1] > greatest - least:
        e1 -= 1
    edges = dm[e0:e1]
    stride = edges.size + LANES
    passed, tails, pairs, rest = tallies
    n_dt = dt.size - LANES
    for x in range((n_dt + 1) * stride):
        passed[x], tails[x], pairs[x], rest[x] = 0, 0, 0, 0
    lanes = max(LANES, (edges.size + LANES - 1) // LANES * LANES)
    bitmaps, rows, window, columns, partners, ranks, places = bits
    skip_below = _choose_skip(ts, n, dt, places)
    for lo in range(0, n, BLOCK):
        hi = min(lo + BLOCK, n)
        n_words = (hi - lo + 63) >> 6
        _mark_ranks(order, n, lo, hi, n_words, ms, bitmaps, partners)
        _rank_edges(order, n, lo, hi, n_words, ms, edges, partners, ranks, lanes, rows, window)
        _walk_time(
            ts, lo, hi, dt, skip_below, n_words, bitmaps, rows, window, lanes, columns, places,
            stride, passed, tails, pairs, rest,
        )  # fmt: skip
    _difference(passed, tails, pairs, rest, stride, n_dt, edges.size, e0, image)


@_jit
def _mark_ranks(order, n, lo, hi, n_words, ms, bitmaps, partners):
    """Bitmaps of the points lo…hi of rank ≥ r, for each r, and their magnitudes in order, padded with +inf."""
    one = np.uint64(1)
    bits = np.full(n_words, ~np.uint64(0))
    if (hi - lo) & 63:
        bits[n_words - 1] = (one << np.uint64((hi - lo) & 63)) - one
    rank = 0
    for z in range(n):
        j = order[z]
        if j < lo or j >= hi:
            continue
        partners[rank] = ms[j]
        row = rank * n_words
        for w in range(n_words):
            bitmaps[row + w] = bits[w]
        bits[np.uint64((j - lo) >> 6)] &= ~(one << np.uint64((j - lo) & 63))
        rank += 1
    for w in range(n_words):
        bitmaps[rank * n_words + w] = 0
    for i in range(rank, rank + LANES):
        partners[i] = np.inf


@_jit
def _rank_edges(order, n, lo, hi, n_words, ms, edges, partners, ranks, lanes, rows, window):
    """For each point before hi and each edge of its window, where the bitmap of the partners that pass begins."""
    m = hi - lo
    least, greatest = partners[0], partners[m - 1]
    one, n_edges, row = np.uint64(1), np.uint64(edges.size), np.uint64(n_words)
    empty, lanes = np.int32(m * n_words), np.uint64(lanes)
    for e in range(n_edges):
        ranks[e] = 0
    start, stop = n_edges, n_edges
    for z in range(np.uint64(n)):
        if order[z] >= hi:
            continue
        i = np.uint64(order[z])
        x = ms[i]
        while stop > 0 and edges[stop - one] > greatest - x:
            stop -= one
        while start > 0 and edges[start - one] > least - x:
            start -= one
        end, base = max(start, stop), i * lanes
        for lane in range(lanes):
            rows[base + lane] = empty
        for e in range(start, end):
            rank = ranks[e]
            while True:
                below = _how_many_below(partners, rank, x, edges[e])
                rank += below
                if below < EIGHT:
                    break
            ranks[e] = rank
            rows[base + e - start] = np.int32(rank * row)
        window[TWO * i], window[TWO * i + one] = start, end - start


@_jit
def _choose_skip(ts, n, dt, histogram):
    """The boundary below which most points have no partner, so that it pays to begin there: fewest steps in all."""
    n_dt, one = np.uint64(dt.size - LANES), np.uint64(1)
    for k in range(n_dt + one):
        histogram[k] = 0
    for i in range(
        np.uint64(0), np.uint64(n - 1), SAMPLE
    ):  # which one is chosen only changes the time it takes
        gap, below = ts[i + one] - ts[i], np.uint64(0)
        for k in range(np.uint64(0), n_dt, EIGHT):
            below += _how_many_below(dt, k, 0.0, gap)
        histogram[below] += one
    points, saved, skip = np.uint64(0), np.uint64(0), np.uint64(0)
    for k in range(np.int64(n_dt), 0, -1):
        points += histogram[np.uint64(k)]
        if points * np.uint64(k) > saved:
            saved, skip = points * np.uint64(k), np.uint64(k)
    return skip


@_jit
def _walk_time(
    ts, lo, hi, dt, skip_below, n_words, bitmaps, rows, window, lanes, columns, places,
    stride, passed, tails, pairs, rest,
):  # fmt: skip
    """In order of time: move the boundaries, and count what stands before them."""
    one, m, n_dt = np.uint64(1), np.uint64(hi - lo), np.uint64(dt.size - LANES)
    lo, last, lanes, stride = np.uint64(lo), np.uint64(n_words), np.uint64(lanes), np.uint64(stride)
    for k in range(n_dt):
        places[k] = 0
    for i in range(np.uint64(hi)):
        s = np.uint64(max(np.int64(i) + 1 - np.int64(lo), 0))
        if s >= m:
            break
        ti, start = ts[i], np.uint64(window[TWO * i])
        skip = (one << (s & BIT)) - one
        _gather_rows(bitmaps, rows, i * lanes, s >> SIX, last, skip, columns)
        # most often the next point is days away, and the boundaries below that divide nothing
        first = np.uint64(0)
        if skip_below > 0 and ts[lo + s] - ti >= dt[skip_below - one]:
            first = skip_below
        k, at = first, first * stride + start
        while k < n_dt:
            p = max(places[k], s)
            while True:
                below = _how_many_below(ts, lo + p, ti, dt[k])
                p += below
                if below < EIGHT:
                    break
            places[k] = p
            if p >= m:
                break
            pairs[at] += p - s
            _add_masked(passed, at, columns, p >> SIX, (one << (p & BIT)) - one)
            k, at = k + one, at + stride
        rest[at] += m - s
        # past the last word there is no bit to mask: only the counts of whole words
        _add_masked(tails, at, columns, last, np.uint64(0))
        for lane in range(EIGHT, np.uint64(window[TWO * i + one]), EIGHT):
            _gather_rows(bitmaps, rows, i * lanes + lane, s >> SIX, last, skip, columns)
            at = first * stride + start + lane
            for before_k in range(first, k):
                p = places[before_k]
                _add_masked(passed, at, columns, p >> SIX, (one << (p & BIT)) - one)
                at += stride
            _add_masked(tails, at, columns, last, np.uint64(0))


@_jit
def _difference(passed, tails, pairs, rest, stride, n_boundaries, n_edges, e0, image):
    """Cumulative counts along both axes into a histogram, in place."""
    for x in range(stride, n_boundaries * stride):
        tails[x] += tails[x - stride]
        rest[x] += rest[x - stride]
    everything = stride - 1  # its lane is free: windows begin at n_edges at most
    for k in range(n_boundaries):
        above = np.uint64(0)  # pairs whose window begins above the edge: all of them pass it
        for x in range(k * stride + n_edges, k * stride - 1, -1):
            passed[x] += tails[x] + above
            above += pairs[x] + rest[x]
        passed[k * stride + everything] = above
    for k in range(n_boundaries - 1):
        here, after = k * stride, (k + 1) * stride
        at_least = np.int64(passed[after + everything] - passed[here + everything])
        if at_least == 0:
            continue
        for e in range(n_edges):
            higher = np.int64(passed[after + e] - passed[here + e])
            if e0 + e > 0:
                image[e0 + e - 1, k] = at_least - higher
            at_least = higher
        if 0 < e0 + n_edges <= image.shape[0]:
            image[e0 + n_edges - 1, k] = at_least


# ---- all light curves --------------------------------------------------------------------------------------------


@_jit
def count(t, mag, offsets, dt, dm, few, dt_table, dt_first, dm_table, dm_scale, out):
    """Fill `out` with the counts of each light curve; everything is checked by the caller.

    t, mag : (N,) float64; offsets : (n + 1,) int64; dt : (n_dt + 1 + PADDING,) and dm : (n_dm + 2,) float64 edges, the
    last one moved up by an ulp, +inf behind it; few : epochs below which `_count_few` is used, with its tables of
    `dmdt.tables`; out : (n, n_dm, n_dt) uint32, zero
    """
    longest = 1
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    ts, ms = np.zeros(longest + LANES), np.zeros(longest + LANES)
    sorting = (
        np.empty(longest), np.empty(longest, np.int64), np.empty(longest, np.uint32), np.empty(longest, np.int64),
        np.empty(512, np.int64),
    )  # fmt: skip
    room = (dt.size + 1) * (dm.size + LANES)
    tallies = (
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
    )
    block, lanes = min(longest, BLOCK), (dm.size + LANES - 1) // LANES * LANES
    words = (block + 63) >> 6
    bits = (
        np.empty((block + 1) * words, np.uint64), np.empty(longest * lanes, np.int32), np.empty(2 * longest, np.int16),
        np.empty((words + 1) * 2 * LANES, np.uint64),
        np.empty(block + LANES), np.empty(dm.size, np.uint64), np.empty(dt.size, np.uint64),
    )  # fmt: skip
    # the bits of dt ≥ 0 are in order as they are; + 0: not −0
    dt_ranks = (np.maximum(dt[: dt.size - LANES + 1], 0.0) + 0.0).view(np.uint64)
    dm_ranks = _rank(dm)
    ranks, places = np.empty(2 * ROOM, np.uint64), np.empty(2 * ROOM, np.uint32)
    cells = np.empty(2 * dt_ranks.size * dm_ranks.size, np.uint32)
    flat, image_cells = out.reshape(-1), out.shape[1] * out.shape[2]
    for i in range(offsets.size - 1):
        n = _finite_sorted(t, mag, offsets[i], offsets[i + 1], ts, ms)
        if n < 2:
            continue
        if n < few:
            _count_few(
                ts, ms, n, dt_table, dt_first, dt_ranks, dm_table, dm[0], dm_scale, dm_ranks, ranks, places, cells,
                flat, i * image_cells,
            )  # fmt: skip
        else:
            for j in range(n, n + LANES):
                ts[j] = np.inf
            _count_many(ts, ms, n, dt, dm[: dm.size - 1], sorting, tallies, bits, out[i])


@_jit
def pack(t, mag, offsets, ts, ms, lengths):
    """The finite points of each light curve in time order, at its offset of ts, ms; how many they are into lengths."""
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        lengths[i] = _finite_sorted(t, mag, a, b, ts[a:b], ms[a:b])


@_jit
def _finite_sorted(t, mag, a, b, ts, ms):
    """Copy the finite points of a:b in time order into ts, ms; returns how many there are. No zero is −0."""
    n, ordered = 0, True
    for j in range(a, b):
        x, m = t[j], mag[j]
        if np.isfinite(x) and np.isfinite(m):
            ordered = ordered and (n == 0 or x >= ts[n - 1])
            ts[n], ms[n] = x + 0.0, m + 0.0  # −0 would give differences of −0
            n += 1
    if not ordered:
        order = np.argsort(ts[:n], kind="mergesort")
        ts[:n], ms[:n] = ts[:n][order], ms[:n][order]
    return n


@_jit
def scale(counts, how, out):
    """Normalise images of counts as `dmdt.normalise` does, bit by bit; everything is checked by the caller.

    counts : (n, n_dm, n_dt) uint32; how : index into `dmdt.NORMALISATIONS`; out : (n, n_dm, n_dt) float32 or uint8
    """
    n_cells = counts.shape[1] * counts.shape[2]
    flat, scaled = counts.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, n_cells):
        image, result = flat[start : start + n_cells], scaled[start : start + n_cells]
        divisor = _divisor(image, how)
        if how == PAPER:
            for c in range(n_cells):
                result[c] = np.floor(255.0 * (image[c] / divisor) + 0.99999)
        else:
            for c in range(n_cells):
                result[c] = image[c] / divisor


@_jit
def _divisor(image, how):
    """What the counts of an image are divided by; 1 for one without pairs."""
    if how == COUNT:
        return 1.0
    largest, pairs, squares = np.uint32(0), np.uint64(0), 0.0
    if how == MAX:
        for c in range(image.size):
            largest = max(largest, image[c])
        divisor = np.float64(largest)
    elif how == L2:
        for c in range(image.size):
            squares += np.float64(image[c]) * np.float64(image[c])
        divisor = np.sqrt(squares)
    else:
        for c in range(image.size):
            pairs += np.uint64(image[c])
        divisor = np.float64(pairs)
    return divisor if divisor > 0 else 1.0
