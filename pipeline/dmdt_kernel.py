"""The two kernels that count the pairs of a dm-dt image: one for few epochs, one for many. One thread, no GIL.

*Few epochs* (`_count_few`). Two tables, over the leading bits of dt and over equal steps of dm, give a pair's cell at
once, unless an edge lies within its place in one of them: such a pair, one in thirty, is doubtful, and compared with
the true edge. No branch, no search. Eight pairs at a time are subtracted and told their places in the tables; hundreds
wait in a buffer, to be looked up in one long loop. Pairs that follow each other are often in one cell, and would wait
for each other to be counted: they are counted in two images by turns.

*Many epochs* (`_count_many`). The few partners near in time are looked up in the same way, which spares each point the
many boundaries among them. Of the others no pair is formed; 64 are counted at a time.

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
each against all points before its end: half a megabyte of bitmaps and, with e edges of dm, 4e + 100 bytes an epoch,
whatever n is; 10⁵ epochs take a third of a second in the published grid. A cell that more than MOST pairs fall into,
as may happen from 92,683 epochs on, counts MOST.

What Numba must be told: indices are unsigned, for signed ones may wrap around, which costs an instruction each; the
vectors are written out, for LLVM cannot know that the arrays do not overlap; a tuple of arrays costs a call for each
array's references, and so does a call that is not inlined, which `_inline` is for. Everything but the sort is in this
one file, for Numba's cache does not notice changes in others.
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

__all__ = ["FEW", "MANTISSA", "MOST", "PADDING", "count", "pack", "scale"]

FEW = 140  #: below so many epochs all pairs are looked up
BLOCK = 2048  #: partners in one block of bitmaps
MOST = np.uint64(2**32 - 1)  #: pairs that a cell can count
LANES = PADDING = 8  #: edges side by side in a vector; so many times +inf stand behind the dt edges
MANTISSA = 6  #: leading bits of dt's mantissa in its table

COUNT, MAX, L2, PAPER = range(4)  #: indices into `dmdt.NORMALISATIONS`

NEAR = 12  #: points begin with the boundary before which most have fewer partners; those are looked up
CROWD = 32  #: points with more partners there begin with the first boundary

PAIRS = np.uint64(512)  #: that wait in the buffer, or up to a row more, before they are looked up
ROOM = PAIRS + np.uint64(FEW + LANES)  #: of the buffer: dt's half of it begins at 0, dm's at ROOM
TWO, SIX, EIGHT, BIT, SAMPLE = (np.uint64(x) for x in (2, 6, 8, 63, 4))

_jit = njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)
_inline = njit(nogil=True, cache=True, error_model="numpy", boundscheck=False, forceinline=True)

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

    For lanes e and w = start … stop − 1: columns[16w + e] = bitmaps[rows[first + e] + w], its word, without the bits
    in `skip` where w = start; and columns[16w + 8 + e] the bits in the words before it. Of the column `stop` there is
    only the latter, the count of all. Four words of each bitmap are read at a time, beyond `stop` if need be, and
    written as many columns.
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

        def shuffle(one, other, lanes):
            return builder.shuffle_vector(
                one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
            )

        def words(w):
            """The words w … w + 3 of each bitmap, as four columns: an 8 × 4 matrix transposed."""
            quarter = ir.VectorType(_I64, 4)
            four = [
                _load(builder, builder.bitcast(builder.gep(x, [w]), quarter.as_pointer())) for x in starts
            ]
            a, b, c, d = (shuffle(four[x], four[x + 2], list(range(8))) for x in (0, 1, 4, 5))
            even, odd = [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]
            lower, upper = [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]
            first, second = ((shuffle(a, b, x), shuffle(c, d, x)) for x in (even, odd))
            return [shuffle(*x, half) for half in (lower, upper) for x in (first, second)]

        def place(w, part):
            at = builder.add(builder.shl(w, ir.Constant(_I64, 4)), ir.Constant(_I64, part * LANES))
            return _address(context, builder, kinds[6], columns, at, _I64)

        entry = builder.block
        loop, done = builder.append_basic_block("words"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        w, count, without = builder.phi(_I64), builder.phi(_V64), builder.phi(_I64)
        after, following = count, w
        for x, vector in enumerate(words(w)):
            if x == 0:
                vector = builder.and_(vector, _spread(builder, builder.not_(without)))
            _store(builder, vector, place(following, 0))
            _store(builder, after, place(following, 1))
            after = builder.add(after, _popcount(builder, vector))
            following = builder.add(following, ir.Constant(_I64, 1))
        zero, none = ir.Constant(_I64, 0), ir.Constant(_V64, [0] * LANES)
        for phi, initial, later in ((w, start, following), (count, none, after), (without, skip, zero)):
            phi.add_incoming(initial, entry)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, done)
        builder.position_at_end(done)
        _store(builder, after, place(following, 1))
        return context.get_dummy_value()

    whole = (types.uint64, types.uint64, types.uint64, types.uint64)
    return types.void(bitmaps, rows, *whole, columns), generate


@intrinsic
def _locate(typingctx, ts, ms, j, ti, mi, tables, to, pairs, places):
    """Pairs of a point with the points j … j + 7: dt and dm, and their places in the tables.

    pairs, places : the buffer, filled from `to` on, and from ROOM + to on for dm
    tables : the first and the last key of dt's, the first edge of dm, steps a magnitude, the last step
    """

    def generate(context, builder, signature, arguments):
        ts, ms, j, ti, mi, tables, to, pairs, places = arguments
        kinds = signature.args
        narrow = ir.VectorType(ir.IntType(32), LANES)
        low_key, high_key, low, scale, last = (
            _spread(builder, value) for value in cgutils.unpack_tuple(builder, tables)
        )

        def put(value, kind, array, half):
            at = builder.add(to, ir.Constant(_I64, half * int(ROOM)))
            _store(builder, value, _address(context, builder, kind, array, at, value.type.element))

        def difference(half, values, origin):
            vector = _load(builder, _address(context, builder, kinds[half], values, j, _F64))
            vector = builder.fsub(vector, _spread(builder, origin))
            put(vector, kinds[7], pairs, half)
            return vector

        def within(value, least, greatest, compare):
            value = builder.select(compare("<", value, least), least, value)
            return builder.select(compare("<", greatest, value), greatest, value)

        bits = builder.bitcast(difference(0, ts, ti), _V64)
        key = builder.trunc(builder.lshr(bits, ir.Constant(_V64, [52 - MANTISSA] * LANES)), narrow)
        key = within(key, low_key, high_key, builder.icmp_signed)
        put(builder.sub(key, low_key), kinds[8], places, 0)

        step = builder.fmul(builder.fsub(difference(1, ms, mi), low), scale)
        step = within(step, ir.Constant(step.type, [0.0] * LANES), last, builder.fcmp_ordered)
        put(builder.fptosi(step, narrow), kinds[8], places, 1)
        return context.get_dummy_value()

    scalars = (types.uint64, types.float64, types.float64)
    return types.void(ts, ms, *scalars, tables, types.uint64, pairs, places), generate


@intrinsic
def _tally(typingctx, places, p, dt_cells, dm_cells, cells, half, doubt, doubtful, n):
    """Count the pairs p … p + 7 of the buffer, by turns in two images, and append the doubtful ones to a list.

    half : where the second image begins; doubt : the first index that is doubtful
    doubtful, n : the list, and how long it is; its new length is returned
    """

    def generate(context, builder, signature, arguments):
        places, p, dt_cells, dm_cells, cells, half, doubt, doubtful, n = (
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        )

        def value(array, index, offset=0):
            at = builder.gep(array, [builder.add(index, ir.Constant(_I64, offset))])
            return builder.zext(builder.load(at), _I64)

        found = []
        for lane in range(LANES):
            along_dt = value(dt_cells, value(places, p, lane))
            found.append(builder.add(along_dt, value(dm_cells, value(places, p, int(ROOM) + lane))))
        images = cells, builder.gep(cells, [half])
        for lane, cell in enumerate(found):
            at = builder.gep(images[lane % 2], [cell])
            builder.store(builder.add(builder.load(at), ir.Constant(ir.IntType(32), 1)), at)
        for lane, cell in enumerate(found):
            pair = builder.trunc(builder.add(p, ir.Constant(_I64, lane)), ir.IntType(32))
            builder.store(pair, builder.gep(doubtful, [n]))
            n = builder.add(n, builder.zext(builder.icmp_unsigned(">=", cell, doubt), _I64))
        return n

    arguments = (
        places,
        types.uint64,
        dt_cells,
        dm_cells,
        cells,
        types.uint64,
        types.uint64,
        doubtful,
        types.uint64,
    )
    return types.uint64(*arguments), generate


# ---- few epochs --------------------------------------------------------------------------------------------------


@_jit
def _count_few(ts, ms, n, dt, dm, tables, buffer, image):
    """ts, ms padded with 8 numbers. Fills image, flat; the tables and the buffer are of `count`."""
    scales, pairs, places, cells = tables[0], buffer[0], buffer[1], buffer[3]
    n, one, found = np.uint64(n), np.uint64(1), np.uint64(0)
    _clear(cells, np.uint64(image.size))
    for i in range(n - one):
        for j in range(i + one, n, EIGHT):
            _locate(ts, ms, j, ts[i], ms[i], scales, found + j - i - one, pairs, places)
        found += n - one - i
        if found >= PAIRS or i == n - TWO:
            _look_up(found, dt, dm, tables, buffer)
            found = np.uint64(0)
    _add_images(cells, image)


@_inline
def _look_up(found, dt, dm, tables, buffer):
    """Count so many pairs of the buffer. What is doubtful or outside the grid falls beyond the image's cells."""
    _, dt_table, dm_table, dt_cells, dm_cells = tables
    pairs, places, doubtful, cells = buffer
    for p in range(found, found + EIGHT):
        places[p + ROOM] = 0  # the first edge of dm: if the last eight are not full, the others are doubtful
    n_dt, n_dm, one = np.uint64(dt.size - LANES - 1), np.uint64(dm.size - 2), np.uint64(1)
    half, doubt, n_doubtful = np.uint64(cells.size // 2), TWO * n_dt * n_dm + one, np.uint64(0)
    for p in range(np.uint64(0), found, EIGHT):
        n_doubtful = _tally(places, p, dt_cells, dm_cells, cells, half, doubt, doubtful, n_doubtful)
    for d in range(n_doubtful):
        p = np.uint64(doubtful[d])
        k, e = np.uint64(dt_table[np.uint64(places[p])]), np.uint64(dm_table[np.uint64(places[p + ROOM])])
        k += np.uint64(pairs[p] >= dt[k])
        e += np.uint64(pairs[p + ROOM] >= dm[e])
        if p < found and k - one < n_dt and e - one < n_dm:
            cells[(e - one) * n_dt + k - one] += np.uint32(1)


@_inline
def _clear(cells, size):
    """Both images, of so many cells, each in its half of `cells`."""
    half = np.uint64(cells.size // 2)
    for c in range(size):
        cells[c] = 0
    for c in range(half, half + size):
        cells[c] = 0


@_inline
def _add_images(cells, image):
    half = np.uint64(cells.size // 2)
    for c in range(np.uint64(image.size)):
        image[c] = cells[c] + cells[half + c]


# ---- many epochs -------------------------------------------------------------------------------------------------


@_jit
def _count_many(ts, ms, n, dt, dm_padded, tables, buffer, sorting, tallies, bits, image):
    """ts, ms, dt padded with 8 times +inf. Fills image (n_dm, n_dt). The rest is of `count`."""
    dm = dm_padded[: dm_padded.size - 1]
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
    skip_below = _choose_skip(ts, n, dt, NEAR if tables[1].size > 1 else 1, places)
    flat = image.reshape(-1)
    _clear(buffer[3], np.uint64(flat.size))
    for lo in range(0, n, BLOCK):
        hi = min(lo + BLOCK, n)
        n_words = (hi - lo + 63) >> 6
        _mark_ranks(order, n, lo, hi, n_words, ms, bitmaps, partners)
        _rank_edges(order, n, lo, hi, n_words, ms, edges, partners, ranks, lanes, rows, window)
        _walk_time(
            ts, ms, lo, hi, dt, dm_padded, tables, buffer, skip_below, n_words, bitmaps, rows, window, lanes, columns,
            places, stride, passed, tails, pairs, rest,
        )  # fmt: skip
    _add_images(buffer[3], flat)
    _difference(passed, tails, pairs, rest, stride, n_dt, edges.size, e0, image)


@_jit
def _mark_ranks(order, n, lo, hi, n_words, ms, bitmaps, partners):
    """Bitmaps of the points lo…hi of rank ≥ r, for each r, and their magnitudes in order, padded with +inf.

    Each is the one before without a bit. It is copied as whole vectors and never patched: a vector cannot be read until
    a word stored into its middle has reached the cache.
    """
    one, none, row, last = np.uint64(1), np.uint64(0), np.uint64(n_words), np.uint64((hi - lo) & 63)
    for w in range(row):
        bitmaps[w] = ~none
    if last > 0:
        bitmaps[row - one] = (one << last) - one
    rank, here = 0, none
    for z in range(n):
        j = order[z]
        if j < lo or j >= hi:
            continue
        partners[rank] = ms[j]
        word, bit = np.uint64(j - lo) >> SIX, one << (np.uint64(j - lo) & BIT)
        for w in range(here, here + row):
            bitmaps[w + row] = bitmaps[w] & ~(bit if w == here + word else none)
        rank, here = rank + 1, here + row
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
def _choose_skip(ts, n, dt, near, histogram):
    """The boundary before which most points have at most `near` − 1 partners, so that it pays to begin there.

    The one that spares most steps in all. Which one is chosen only changes the time it takes.
    """
    n_dt, one, near = np.uint64(dt.size - LANES), np.uint64(1), np.uint64(near)
    for k in range(n_dt + one):
        histogram[k] = 0
    for i in range(np.uint64(0), np.uint64(max(n - np.int64(near), 0)), SAMPLE):
        gap, below = ts[i + near] - ts[i], np.uint64(0)
        for k in range(np.uint64(0), n_dt, EIGHT):
            below += _how_many_below(dt, k, 0.0, gap)
        histogram[below] += one
    points, saved, skip = np.uint64(0), np.uint64(0), np.uint64(0)
    for k in range(np.int64(n_dt), 0, -1):
        points += histogram[np.uint64(k)]
        if points * np.uint64(k) > saved:
            saved, skip = points * np.uint64(k), np.uint64(k)
    return skip


@_inline
def _move(ts, at, ti, edge):
    """The first place from `at` on where ts − ti ≥ edge."""
    while True:
        below = _how_many_below(ts, at, ti, edge)
        at += below
        if below < EIGHT:
            return at


@_jit
def _walk_time(
    ts, ms, lo, hi, dt, dm, tables, buffer, skip_below, n_words, bitmaps, rows, window, lanes, columns, places,
    stride, passed, tails, pairs, rest,
):  # fmt: skip
    """In order of time: move the boundaries, and count what stands before them."""
    one, m, n_dt = np.uint64(1), np.uint64(hi - lo), np.uint64(dt.size - LANES)
    lo, last, lanes, stride = np.uint64(lo), np.uint64(n_words), np.uint64(lanes), np.uint64(stride)
    scales, near_pairs, near_places, found = tables[0], buffer[0], buffer[1], np.uint64(0)
    most = np.uint64(CROWD) if tables[1].size > 1 else np.uint64(0)
    for k in range(n_dt):
        places[k] = 0
    for i in range(np.uint64(hi)):
        s = np.uint64(max(np.int64(i) + 1 - np.int64(lo), 0))
        if s >= m:
            break
        ti, first = ts[i], np.uint64(0)
        if skip_below > 0:  # the partners before that boundary, unless they are a crowd, are looked up
            p = _move(ts, lo + max(places[skip_below - one], s), ti, dt[skip_below - one]) - lo
            places[skip_below - one] = p
            p = min(p, m)
            if p - s <= most:
                for j in range(s, p, EIGHT):
                    _locate(ts, ms, lo + j, ti, ms[i], scales, found + j - s, near_pairs, near_places)
                found += p - s
                if found >= PAIRS:
                    _look_up(found, dt, dm, tables, buffer)
                    found = np.uint64(0)
                if p == m:
                    continue
                s, first = p, skip_below
        start, skip = np.uint64(window[TWO * i]), (one << (s & BIT)) - one
        _gather_rows(bitmaps, rows, i * lanes, s >> SIX, last, skip, columns)
        k, at = first, first * stride + start
        while k < n_dt:
            p = _move(ts, lo + max(places[k], s), ti, dt[k]) - lo
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
    if found > 0:
        _look_up(found, dt, dm, tables, buffer)


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
                _add_pairs(image, e0 + e - 1, k, at_least - higher)
            at_least = higher
        if 0 < e0 + n_edges <= image.shape[0]:
            _add_pairs(image, e0 + n_edges - 1, k, at_least)


@_inline
def _add_pairs(image, e, k, pairs):
    image[e, k] = np.uint32(min(np.uint64(image[e, k]) + np.uint64(pairs), MOST))


# ---- all light curves --------------------------------------------------------------------------------------------


@_jit
def count(t, mag, offsets, dt, dm, few, dt_table, dt_first, dm_table, dm_scale, dt_cells, dm_cells, out):
    """Fill `out` with the counts of each light curve; everything is checked by the caller.

    t, mag : (N,) float64; offsets : (n + 1,) int64; dt : (n_dt + 1 + PADDING,) and dm : (n_dm + 2,) float64 edges, the
    last one moved up by an ulp, +inf behind it; few : epochs below which `_count_few` is used; the tables : of
    `dmdt.Search`; out : (n, n_dm, n_dt) uint32, overwritten
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
        np.empty((block + 1) * words + 3, np.uint64), np.empty(longest * lanes, np.int32),
        np.empty(2 * longest, np.int32), np.empty((words + 4) * 2 * LANES, np.uint64),
        np.empty(block + LANES), np.empty(dm.size, np.uint64), np.empty(dt.size, np.uint64),
    )  # fmt: skip
    image_cells = out.shape[1] * out.shape[2]
    scales = (
        np.int32(dt_first), np.int32(dt_first + dt_table.size - 1), dm[0], dm_scale, np.float64(dm_table.size - 1)
    )  # fmt: skip
    tables = scales, dt_table, dm_table, dt_cells, dm_cells
    buffer = (
        np.empty(2 * ROOM), np.zeros(2 * ROOM, np.uint32), np.empty(ROOM, np.uint32),
        np.empty(2 * (4 * image_cells + 3), np.uint32),
    )  # fmt: skip
    flat = out.reshape(-1)
    for i in range(offsets.size - 1):
        n = _finite_sorted(t, mag, offsets[i], offsets[i + 1], ts, ms)
        if n < 2:
            out[i] = 0
            continue
        if n < few:
            _count_few(ts, ms, n, dt, dm, tables, buffer, flat[i * image_cells : (i + 1) * image_cells])
        else:
            for j in range(n, n + LANES):
                ts[j] = np.inf
            _count_many(ts, ms, n, dt, dm, tables, buffer, sorting, tallies, bits, out[i])


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
