"""Draw one positive's negatives into a buffer that stays in the first-level cache, 32 slots at a time.

``NegativeSampler`` fills many rows of few slots; here one row has hundreds. The numbers are the same: slot s reads word
s % 4 of Philox block s // 4, so vector lanes hold consecutive blocks of one position instead of consecutive positions.
Membership is one bit of a map of the user's positives, set once for all rows of a user: 5 KB for 41,000 items.

N negatives, I items.
"""

# ruff: noqa: ARG001 - Numba fixes the arguments of an intrinsic and of its builder.

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrec.jit import inline
from fastrec.sampling.general import rank_select
from fastrec.sampling.philox import MAX_ATTEMPTS, mulhi64, philox4x32

BLOCKS = 8
"""Philox blocks a step: four words of eight 64-bit lanes are eight AVX2 registers, all that the ten rounds need."""

SLOTS = 4 * BLOCKS

_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_LOW = np.uint64(_MASK)
_32, _16, _1, _2 = np.uint64(32), np.uint64(16), np.uint64(1), np.uint64(2)
_2_32 = np.uint64(1 << 32)
_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
_V32, _V64 = ir.VectorType(_I32, BLOCKS), ir.VectorType(_I64, BLOCKS)
_W32 = ir.VectorType(_I32, SLOTS)


def _const(value: int) -> ir.Constant:
    return ir.Constant(_V64, [value] * BLOCKS)


def _splat(builder: Any, value: Any) -> Any:
    empty = ir.Constant(_V64, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(_V32, [0] * BLOCKS))


def _joined(builder: Any, parts: list[Any], order: list[int]) -> Any:
    """Four vectors of 8 lanes as one of 32, lanes in ``order`` of their concatenation."""
    wide = ir.VectorType(_I32, 2 * BLOCKS)
    halves = [
        builder.shuffle_vector(a, b, ir.Constant(wide, list(range(2 * BLOCKS))))
        for a, b in (parts[:2], parts[2:])
    ]  # fmt: skip
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, len(order)), order))


@intrinsic
def _candidates(typing, position, epoch, seed, tag, block, n, threshold, bits, out, at):  # type: ignore[no-untyped-def]
    """out[at:at + 32] = first candidates of the slots of Philox blocks [block, block + 8).

    Bit s of the result: slot s is rejected, because Lemire's draw missed or ``bits`` holds the candidate.
    """
    u, i = types.uint64, types.int64
    signature = types.uint64(u, u, u, u, i, u, u, bits, out, i)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        position, epoch, k0, k1, block, n, threshold, bits, out, at = args
        low, half = _const(_MASK), _const(32)
        c0 = _splat(builder, builder.and_(position, ir.Constant(_I64, _MASK)))
        c1 = _splat(builder, builder.lshr(position, ir.Constant(_I64, 32)))
        blocks = builder.add(_splat(builder, block), ir.Constant(_V64, list(range(BLOCKS))))
        c2, c3 = _splat(builder, epoch), builder.shl(blocks, _const(16))
        for _ in range(10):
            # Only the low halves are multiplied, so the high ones may hold anything: masks where LLVM needs to see it.
            p0 = builder.mul(builder.and_(c0, low), _const(_M0))
            p1 = builder.mul(builder.and_(c2, low), _const(_M1))
            c0 = builder.xor(builder.xor(builder.lshr(p1, half), c1), _splat(builder, k0))
            c2 = builder.xor(builder.xor(builder.lshr(p0, half), c3), _splat(builder, k1))
            c1, c3 = p1, p0
            k0 = builder.and_(builder.add(k0, ir.Constant(_I64, _W0)), ir.Constant(_I64, _MASK))
            k1 = builder.and_(builder.add(k1, ir.Constant(_I64, _W1)), ir.Constant(_I64, _MASK))
        factor = _splat(builder, builder.and_(n, ir.Constant(_I64, _MASK)))
        products = [builder.mul(builder.and_(word, low), factor) for word in (c0, c1, c2, c3)]
        # slot 4 b + k is lane b of word k
        order = [k * BLOCKS + b for b in range(BLOCKS) for k in range(4)]
        items = _joined(builder, [builder.trunc(builder.lshr(p, half), _V32) for p in products], order)
        rests = _joined(builder, [builder.trunc(p, _V32) for p in products], order)
        data = context.make_array(signature.args[8])(context, builder, out).data
        place = builder.bitcast(builder.gep(data, [at]), _W32.as_pointer())
        builder.store(items, place, align=4)
        one = builder.insert_element(ir.Constant(_W32, ir.Undefined), builder.trunc(threshold, _I32), _I32(0))
        bound = builder.shuffle_vector(one, ir.Constant(_W32, ir.Undefined), ir.Constant(_W32, [0] * SLOTS))
        missed = builder.icmp_unsigned("<", rests, bound)
        words = ir.Constant(_W32, ir.Undefined)
        map_data = context.make_array(signature.args[7])(context, builder, bits).data
        index = builder.lshr(items, ir.Constant(_W32, [5] * SLOTS))
        for lane in range(SLOTS):  # a gather instruction takes as long on Zen 4
            where = builder.zext(builder.extract_element(index, _I32(lane)), _I64)
            words = builder.insert_element(words, builder.load(builder.gep(map_data, [where])), _I32(lane))
        bit = builder.lshr(words, builder.and_(items, ir.Constant(_W32, [31] * SLOTS)))
        held = builder.trunc(bit, ir.VectorType(_I1, SLOTS))
        return builder.zext(builder.bitcast(builder.or_(missed, held), ir.IntType(SLOTS)), _I64)

    return signature, build


@inline
def _word(words, lane):  # type: ignore[no-untyped-def]
    return words[0] if lane == 0 else (words[1] if lane == 1 else (words[2] if lane == 2 else words[3]))


@inline
def held(bits, item):  # type: ignore[no-untyped-def]
    """1 where ``item`` is in the map, else 0."""
    return np.int64(bits[item >> 5] >> np.uint32(item & 31) & np.uint32(1))


@inline
def mark(bits, items, lo, hi):  # type: ignore[no-untyped-def]
    """Set the bits of ``items[lo:hi]``."""
    for k in range(lo, hi):
        bits[items[k] >> 5] |= np.uint32(1) << np.uint32(items[k] & 31)


@inline
def unmark(bits, items, lo, hi):  # type: ignore[no-untyped-def]
    """Clear the words of ``items[lo:hi]``, so that the map is empty again."""
    for k in range(lo, hi):
        bits[items[k] >> 5] = np.uint32(0)


@inline
def _redraw(slot, position, epoch, seed, tag, n, threshold, bits, items, lo, hi):  # type: ignore[no-untyped-def]
    """The item of a slot whose first attempt was rejected: attempts 1 to 7, then by rank among the legal items."""
    c0, c1 = position & _LOW, position >> _32
    word3, lane = np.uint64(slot >> 2) << _16, slot & 3
    for _ in range(1, MAX_ATTEMPTS):
        word3 += _1
        m = _word(philox4x32(c0, c1, epoch, word3, seed, tag), lane) * n
        item = np.int64(m >> _32)
        if (m & _LOW) >= threshold and not held(bits, item):
            return item
    legal = n - np.uint64(hi - lo)
    word3 += _1
    while True:
        high = _word(philox4x32(c0, c1, epoch, word3, seed, tag), lane)
        low = _word(philox4x32(c0, c1, epoch, word3 + _1, seed, tag), lane)
        word3 += _2
        rank, rest = mulhi64(high << _32 | low, legal)
        if rest >= (np.uint64(0) - legal) % legal:
            return rank_select(items, lo, hi, np.int64(rank))


@inline
def draw_row(position, epoch, seed, tag, n, bits, items, lo, hi, n_slots, ids):  # type: ignore[no-untyped-def]
    """ids[1:1 + n_slots] = what ``NegativeSampler`` draws for a position of the user with positives ``items[lo:hi]``.

    ``bits`` marks them; n uint64 is the number of items. ids int32 is scratch of ``row_size``.
    """
    threshold = (_2_32 - n) % n
    for first in range(0, n_slots, SLOTS):
        bad = _candidates(position, epoch, seed, tag, first >> 2, n, threshold, bits, ids, 1 + first)
        slot = first
        while bad:  # once in a thousand slots on Gowalla; the last step's spare slots are drawn too, and never read
            if bad & _1 and slot < n_slots:
                ids[1 + slot] = _redraw(slot, position, epoch, seed, tag, n, threshold, bits, items, lo, hi)
            bad >>= _1
            slot += 1


@inline
def row_size(n_negatives: int) -> int:
    """Entries of ``ids``: full steps, and the positive in front."""
    return 1 + -(-n_negatives // SLOTS) * SLOTS + SLOTS
