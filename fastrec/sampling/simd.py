"""Sixteen lanes at a time: the vector steps that LLVM does not find by itself in the sampling kernels.

Each step is a plain Python function (what ``.py_func`` of a kernel runs: what the step means) with a twin in generic
LLVM vector IR that compiled code calls instead. The IR names no instruction set: LLVM lowers it to AVX-512, AVX2,
NEON or scalar code, and the integers are the same on all of them. Without it the ML-1M kernel runs at 0.6 of the speed.

Arrays are C-contiguous and long enough for full groups of LANES entries; offsets are in elements.
"""

# ruff: noqa: ARG001 - Numba reads the signatures

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.ir import instructions
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fastrec.lanes import constant_of, splat_of

LANES = 16
"""Entries a step; one AVX-512 register of 32-bit words."""

ORDER_LANES = 64
"""Positions a step of the order: four registers, because six rounds in one are a chain of 250 cycles of latency."""

_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_MIX0, _MIX1 = 0x85EBCA6B, 0xC2B2AE35
SPREAD = 0x9E3779B1
"""Fibonacci hashing: 2^32 over the golden ratio."""


def _lut() -> np.ndarray:
    table = np.zeros((256, 8), np.int16)
    for mask in range(256):
        kept = [lane for lane in range(8) if mask >> lane & 1]
        table[mask, : len(kept)] = kept
    return table.reshape(-1)


KEEP = _lut()
"""int16[256 * 8]: for each mask of eight lanes the lanes kept, packed to the left."""


# ---- the steps in Python ---------------------------------------------------------------------------------------------


def philox_step(positions, at, epoch, word3, seed, tag, words, to, stride):  # type: ignore[no-untyped-def]
    """words[to + k*stride + l] = word k of Philox at counter (positions[at + l], epoch, word3), key (seed, tag)."""
    low, half = np.uint64(_LOW), np.uint64(32)
    p = positions[at : at + LANES].astype(np.uint64)
    c0, c1, c2, c3 = p & low, p >> half, np.full(LANES, epoch, np.uint64), np.full(LANES, word3, np.uint64)
    k0, k1 = int(seed), int(tag)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(_M0), c2 * np.uint64(_M1)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    for k, word in enumerate((c0, c1, c2, c3)):
        words[to + k * stride : to + k * stride + LANES] = word


def bounded_step(words, at, n, threshold, out, to):  # type: ignore[no-untyped-def]
    """out[to + l] = Lemire's candidate words[at + l] * n >> 32; bit l of the result: it missed and must be redrawn."""
    product = words[at : at + LANES].astype(np.uint64) * np.uint64(n)
    out[to : to + LANES] = product >> np.uint64(32)
    return _mask((product & np.uint64(_LOW)) < threshold)


def bitmap_step(bits, base, at, items, to):  # type: ignore[no-untyped-def]
    """Bit l of the result: the bitmap row at word base[at + l] holds item items[to + l]."""
    item = items[to : to + LANES].astype(np.int64)
    word = bits[base[at : at + LANES].astype(np.int64) + (item >> 5)]
    return _mask(word >> (item & 31).astype(np.uint32) & np.uint32(1) != 0)


def filter_step(words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    """Bit l of the result: the filter's words [first[at + l], + size[at + l]) may hold items[to + l]; no bit: do not.

    An item has a word by the high bits of a multiplicative hash, and two bits in it: its own low five and five more
    of the hash.
    """
    item = items[to : to + LANES].astype(np.uint32)
    h = item * np.uint32(SPREAD)
    word = first[at : at + LANES] + (h.astype(np.uint64) * size[at : at + LANES] >> np.uint64(32))
    both = (np.uint32(1) << (item & np.uint32(31))) | (np.uint32(1) << (h >> np.uint32(8) & np.uint32(31)))
    return _mask(words[word.astype(np.int64)] & both == both)


def bitmap_ahead(bits, base, at, items, to):  # type: ignore[no-untyped-def]
    """Ask the memory for what ``bitmap_step`` with the same arguments will read. Changes nothing."""


def filter_ahead(words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    """Ask the memory for what ``filter_step`` with the same arguments will read. Changes nothing."""


def keep_step(table, mask, entry, pending, k):  # type: ignore[no-untyped-def]
    """Append entry + l to pending[k:] for each bit l of the eight of mask; returns the new k. Writes 8 whatever."""
    m = int(mask)
    pending[k : k + 8] = table[8 * m : 8 * m + 8] + np.int16(entry)
    return k + m.bit_count()


def order_step(left, right, a, b, keys, n, out, at):  # type: ignore[no-untyped-def]
    """out[at + l] = six rounds over the position (left + l, right) of an a x b rectangle; bit l: it is n or more.

    Needs a >= ORDER_LANES: a row ends at most once within a step. The rounds are those of ``order.py``.
    """
    over = 0
    for lane in range(ORDER_LANES):
        wraps = int(left) + lane >= int(a)
        part = [int(left) + lane - wraps * int(a), int(right) + wraps]
        for r in range(6):
            side, m = r % 2, (int(a), int(b))[r % 2]
            x = (part[1 - side] + int(keys[r])) & _LOW
            x = ((x ^ x >> 16) * _MIX0) & _LOW
            x = ((x ^ x >> 13) * _MIX1) & _LOW
            part[side] = (part[side] + (x * m >> 32)) % m
        out[at + lane] = part[1] * int(a) + part[0]
        over |= int(out[at + lane] >= n) << lane
    return np.uint64(over)


def _mask(lanes: np.ndarray) -> np.uint64:
    return np.uint64(int(np.dot(lanes.astype(np.int64), 1 << np.arange(LANES))))


# ---- the same steps in vector IR -------------------------------------------------------------------------------------

_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
_V1, _V32, _V64 = (ir.VectorType(t, LANES) for t in (_I1, _I32, _I64))
_V16x8 = ir.VectorType(_I16, 8)


class _VectorGEP(instructions.Instruction):
    """Pointers ``base + index`` for a vector of indices, which llvmlite's builder cannot write."""

    def __init__(self, block: Any, base: Any, index: Any) -> None:
        pointers = ir.VectorType(base.type, index.type.count)
        super().__init__(block, pointers, "getelementptr", [base, index])

    def descr(self, buf: list[str]) -> None:
        base, index = self.operands
        element = base.type.pointee
        buf.append(
            f"getelementptr {element}, {base.type} {base.get_reference()}, {index.type} {index.get_reference()}\n"
        )


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    address = builder.gep(_data(context, builder, array_type, array), [offset])
    return builder.bitcast(address, vector.as_pointer())


def _load(builder: Any, address: Any, align: int) -> Any:
    value = builder.load(address)
    value.align = align
    return value


def _store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, address).align = align


def _gather(builder: Any, data: Any, index: Any, wanted: Any) -> Any:
    """int32 at ``data[index]`` (int64 lanes) where ``wanted``, else 0."""
    pointers = _VectorGEP(builder.block, data, index)
    builder._insert(pointers)
    kind = ir.FunctionType(_V32, [pointers.type, _I32, _V1, _V32])
    gather = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.gather.v{LANES}i32.v{LANES}p0")
    return builder.call(gather, [pointers, ir.Constant(_I32, 4), wanted, constant_of(_V32, 0)])


def _bits_of(builder: Any, lanes: Any) -> Any:
    width = ir.IntType(lanes.type.count)
    mask = builder.bitcast(lanes, width)
    return mask if width.width == 64 else builder.zext(mask, _I64)


@intrinsic
def _philox(typing, positions, at, epoch, word3, seed, tag, words, to, stride):  # type: ignore[no-untyped-def]
    u, i = types.uint64, types.int64
    signature = types.void(positions, i, u, u, u, u, words, i, i)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        positions, at, epoch, word3, k0, k1, words, to, stride = args
        p = _load(builder, _at(context, builder, signature.args[0], positions, at, _V64), 8)
        low, half = constant_of(_V64, _LOW), constant_of(_V64, 32)
        c0, c1 = builder.and_(p, low), builder.lshr(p, half)
        c2, c3 = splat_of(builder, epoch), splat_of(builder, word3)
        for _ in range(10):
            # Only the low halves are multiplied, so the high ones may hold anything: masks where LLVM needs to see it.
            p0 = builder.mul(builder.and_(c0, low), constant_of(_V64, _M0))
            p1 = builder.mul(builder.and_(c2, low), constant_of(_V64, _M1))
            c0 = builder.xor(builder.xor(builder.lshr(p1, half), c1), splat_of(builder, k0))
            c2 = builder.xor(builder.xor(builder.lshr(p0, half), c3), splat_of(builder, k1))
            c1, c3 = p1, p0
            k0 = builder.and_(builder.add(k0, ir.Constant(_I64, _W0)), ir.Constant(_I64, _LOW))
            k1 = builder.and_(builder.add(k1, ir.Constant(_I64, _W1)), ir.Constant(_I64, _LOW))
        for k, word in enumerate((c0, c1, c2, c3)):
            where = builder.add(to, builder.mul(stride, ir.Constant(_I64, k)))
            address = _at(context, builder, signature.args[6], words, where, _V32)
            _store(builder, builder.trunc(word, _V32), address, 4)

    return signature, generate


@intrinsic
def _bounded(typing, words, at, n, threshold, out, to):  # type: ignore[no-untyped-def]
    signature = types.uint64(words, types.int64, types.uint64, types.uint64, out, types.int64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        words, at, n, threshold, out, to = args
        word = _load(builder, _at(context, builder, signature.args[0], words, at, _V32), 4)
        factor = splat_of(builder, builder.zext(builder.trunc(n, _I32), _I64))
        product = builder.mul(builder.zext(word, _V64), factor)
        candidate = builder.trunc(builder.lshr(product, constant_of(_V64, 32)), _V32)
        _store(builder, candidate, _at(context, builder, signature.args[4], out, to, _V32), 4)
        bound = splat_of(builder, builder.trunc(threshold, _I32))
        return _bits_of(builder, builder.icmp_unsigned("<", builder.trunc(product, _V32), bound))

    return signature, generate


def _touch(builder: Any, data: Any, index: Any) -> None:
    """Prefetch ``data[index]`` of every lane: to read it, to keep it, as data."""
    kind = ir.FunctionType(ir.VoidType(), [data.type, _I32, _I32, _I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for lane in range(LANES):
        address = builder.gep(data, [builder.extract_element(index, ir.Constant(_I32, lane))])
        builder.call(prefetch, [address, *(ir.Constant(_I32, how) for how in (0, 3, 1))])


def _bitmap_word(context: Any, builder: Any, kinds: Any, args: Any) -> tuple[Any, Any, Any]:
    """(the bitmap's data, the index of each lane's word, the items)."""
    bits, base, at, items, to = args
    first = _load(builder, _at(context, builder, kinds[1], base, at, _V32), 4)
    item = _load(builder, _at(context, builder, kinds[3], items, to, _V32), 4)
    index = builder.sext(builder.add(first, builder.lshr(item, constant_of(_V32, 5))), _V64)
    return _data(context, builder, kinds[0], bits), index, item


def _filter_word(context: Any, builder: Any, kinds: Any, args: Any) -> tuple[Any, Any, Any, Any]:
    """(the filter's data, the index of each lane's word, the items, their hashes)."""
    words, first, size, at, items, to = args
    start = _load(builder, _at(context, builder, kinds[1], first, at, _V32), 4)
    count = _load(builder, _at(context, builder, kinds[2], size, at, _V32), 4)
    item = _load(builder, _at(context, builder, kinds[4], items, to, _V32), 4)
    h = builder.mul(item, constant_of(_V32, SPREAD))
    offset = builder.lshr(builder.mul(builder.zext(h, _V64), builder.zext(count, _V64)), constant_of(_V64, 32))
    return _data(context, builder, kinds[0], words), builder.add(builder.zext(start, _V64), offset), item, h


@intrinsic
def _bitmap(typing, bits, base, at, items, to):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data, index, item = _bitmap_word(context, builder, signature.args, args)
        word = _gather(builder, data, index, constant_of(_V1, 1))
        bit = builder.lshr(word, builder.and_(item, constant_of(_V32, 31)))
        return _bits_of(builder, builder.trunc(bit, _V1))

    return types.uint64(bits, base, types.int64, items, types.int64), generate


@intrinsic
def _bitmap_ahead(typing, bits, base, at, items, to):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _touch(builder, *_bitmap_word(context, builder, signature.args, args)[:2])

    return types.void(bits, base, types.int64, items, types.int64), generate


@intrinsic
def _filter(typing, words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data, index, item, h = _filter_word(context, builder, signature.args, args)
        word = _gather(builder, data, index, constant_of(_V1, 1))
        low, other = (builder.and_(x, constant_of(_V32, 31)) for x in (item, builder.lshr(h, constant_of(_V32, 8))))
        bits = builder.and_(builder.lshr(word, low), builder.lshr(word, other))
        return _bits_of(builder, builder.trunc(bits, _V1))

    return types.uint64(words, first, size, types.int64, items, types.int64), generate


@intrinsic
def _filter_ahead(typing, words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _touch(builder, *_filter_word(context, builder, signature.args, args)[:2])

    return types.void(words, first, size, types.int64, items, types.int64), generate


@intrinsic
def _keep(typing, table, mask, entry, pending, k):  # type: ignore[no-untyped-def]
    signature = types.int64(table, types.uint64, types.int64, pending, types.int64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        table, mask, entry, pending, k = args
        row = builder.shl(mask, ir.Constant(_I64, 3))
        kept = _load(builder, _at(context, builder, signature.args[0], table, row, _V16x8), 2)
        kept = builder.add(kept, splat_of(builder, builder.trunc(entry, _I16), 8))
        _store(builder, kept, _at(context, builder, signature.args[3], pending, k, _V16x8), 2)
        return builder.add(k, builder.ctpop(mask))

    return signature, generate


@intrinsic
def _order(typing, left, right, a, b, keys, n, out, at):  # type: ignore[no-untyped-def]
    i, w = types.int64, types.uint32
    signature = types.uint64(w, w, w, w, keys, i, out, i)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        left, right, a, b, keys, n, out, at = args
        lanes = ORDER_LANES
        v32, v64 = ir.VectorType(_I32, lanes), ir.VectorType(_I64, lanes)
        iota = ir.Constant(v32, list(range(lanes)))
        x, size = builder.add(splat_of(builder, left, lanes), iota), [splat_of(builder, s, lanes) for s in (a, b)]
        wraps = builder.icmp_unsigned(">=", x, size[0])
        part = [
            builder.select(wraps, builder.sub(x, size[0]), x),
            builder.add(splat_of(builder, right, lanes), builder.zext(wraps, v32)),
        ]
        wide = [builder.zext(s, v64) for s in size]
        data = _data(context, builder, signature.args[4], keys)
        for r in range(6):
            side = r % 2
            key = builder.load(builder.gep(data, [ir.Constant(_I64, r)]))
            h = builder.add(part[1 - side], splat_of(builder, key, lanes))
            h = builder.mul(builder.xor(h, builder.lshr(h, constant_of(v32, 16))), constant_of(v32, _MIX0))
            h = builder.mul(builder.xor(h, builder.lshr(h, constant_of(v32, 13))), constant_of(v32, _MIX1))
            scaled = builder.lshr(builder.mul(builder.zext(h, v64), wide[side]), constant_of(v64, 32))
            total = builder.add(part[side], builder.trunc(scaled, v32))
            less = builder.sub(total, size[side])
            part[side] = builder.select(builder.icmp_unsigned("<", total, size[side]), total, less)
        result = builder.add(builder.mul(builder.zext(part[1], v64), wide[0]), builder.zext(part[0], v64))
        _store(builder, result, _at(context, builder, signature.args[6], out, at, v64), 8)
        return _bits_of(builder, builder.icmp_signed(">=", result, splat_of(builder, n, lanes)))

    return signature, generate


@overload(philox_step)
def _(positions, at, epoch, word3, seed, tag, words, to, stride):  # type: ignore[no-untyped-def]
    return lambda positions, at, epoch, word3, seed, tag, words, to, stride: _philox(
        positions, at, epoch, word3, seed, tag, words, to, stride
    )


@overload(bounded_step)
def _(words, at, n, threshold, out, to):  # type: ignore[no-untyped-def]
    return lambda words, at, n, threshold, out, to: _bounded(words, at, n, threshold, out, to)


@overload(bitmap_step)
def _(bits, base, at, items, to):  # type: ignore[no-untyped-def]
    return lambda bits, base, at, items, to: _bitmap(bits, base, at, items, to)


@overload(bitmap_ahead)
def _(bits, base, at, items, to):  # type: ignore[no-untyped-def]
    return lambda bits, base, at, items, to: _bitmap_ahead(bits, base, at, items, to)


@overload(filter_ahead)
def _(words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    return lambda words, first, size, at, items, to: _filter_ahead(words, first, size, at, items, to)


@overload(filter_step)
def _(words, first, size, at, items, to):  # type: ignore[no-untyped-def]
    return lambda words, first, size, at, items, to: _filter(words, first, size, at, items, to)


@overload(keep_step)
def _(table, mask, entry, pending, k):  # type: ignore[no-untyped-def]
    return lambda table, mask, entry, pending, k: _keep(table, mask, entry, pending, k)


@overload(order_step)
def _(left, right, a, b, keys, n, out, at):  # type: ignore[no-untyped-def]
    return lambda left, right, a, b, keys, n, out, at: _order(left, right, a, b, keys, n, out, at)
