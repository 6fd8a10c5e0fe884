"""A copy of the item rows in 8 bits that tells, without a doubt, which scores cannot pass a bound.

A row of 64 float32 is four cache lines, its codes are one. The cosine of two rows from codes is off by at most a known
amount, so a loss that only looks at scores above a margin reads the codes of every negative, and the row itself only
where the margin is within reach: on Gowalla for about one negative in fifty. What is computed is the same bit for bit.

Codes of an item row q with norm |q|: round(q / |q| / step), step = max |q| / |q| / 127; those of the user's unit row r
have 15 bits. With S the integer dot product, |r . q / |q| - step * unit * S| is at most
step * (|r|_1 / 2 + 127 * D * unit / 2), and what float32 rounding adds is far below the slack given here.
Source: the idea is that of the filter-and-refine step of Weber, Schek and Blott, VLDB 1998 (VA-file).

I items, D dim.
"""

# ruff: noqa: ARG001 - Numba fixes the arguments of an intrinsic and of its builder.

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrec.engines.fused.rows import checked, folded, parts, read, row_of, shuffled, splatted, vector
from fastrec.jit import inline
from fastrec.lanes import WIDTH

LANES = 16
"""Codes a product: 16 of 8 bits widened to 16 bits are one AVX2 register, and two of their products one sum."""

GROUP = 8
"""Rows per step."""

SLACK = np.float32(1.0 + 1e-4)
_HALF = np.float32(0.5)
_TOP = np.float32(127.0)
_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def stride(dim: int) -> int:
    """Bytes of a row of codes."""
    return -(-dim // LANES) * LANES


@intrinsic(prefer_literal=True)
def within_reach(
    typing: Any, codes: Any, steps: Any, mine: Any, ids: Any, at: Any, unit: Any, slack: Any, bound: Any, width: Any
) -> Any:
    """Bit k of the result: the score of item ids[at + k] may exceed ``bound``, for k in 0 to 7.

    codes int8[I, W], steps float32[I], mine int16[W], unit and slack: see ``encode_user``; width W is a compile-time
    constant.
    """
    n = width.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table, factors, row, numbers = (
            context.make_array(signature.args[k])(context, builder, args[k]).data for k in range(4)
        )
        at, unit, slack, bound = args[4:8]
        v8, v16 = ir.VectorType(_I8, LANES), ir.VectorType(_I16, LANES)
        wide = ir.VectorType(_I32, LANES)
        mine = []
        for first in range(0, n, LANES):
            part = builder.load(builder.bitcast(builder.gep(row, [_I64(first)]), v16.as_pointer()), align=2)
            mine.append(builder.sext(part, wide))
        even, odd = list(range(0, LANES, 2)), list(range(1, LANES, 2))
        sums, scales = [], ir.Constant(ir.VectorType(_F32, GROUP), ir.Undefined)
        for k in range(GROUP):
            i = builder.sext(builder.load(builder.gep(numbers, [builder.add(at, _I64(k))])), _I64)
            scales = builder.insert_element(scales, builder.load(builder.gep(factors, [i])), _I32(k))
            first_code = builder.gep(table, [builder.mul(i, _I64(n))])
            total: list[Any] = []
            for first in range(0, n, LANES):
                part = builder.load(builder.bitcast(builder.gep(first_code, [_I64(first)]), v8.as_pointer()), align=1)
                product = builder.mul(builder.sext(part, wide), mine[first // LANES], flags=["nsw"])
                pairs = builder.add(
                    shuffled(builder, product, product, even), shuffled(builder, product, product, odd)
                )  # one instruction on x86: pmaddwd
                total = [builder.add(total[0], pairs) if total else pairs]
            sums += total
        while len(sums) > 1:  # 8 vectors of 8 lanes to one: lanes of two vectors are paired at a time
            half = sums[0].type.count
            order = [list(range(first, 2 * half, 2)) for first in (0, 1)]
            sums = [
                builder.add(*(shuffled(builder, a, b, lanes) for lanes in order)) for a, b in zip(sums[::2], sums[1::2])
            ]
        score = builder.sitofp(sums[0], ir.VectorType(_F32, GROUP))
        score = builder.fadd(builder.fmul(score, splatted(builder, unit, GROUP)), splatted(builder, slack, GROUP))
        mask = builder.fcmp_unordered(">", builder.fmul(score, scales), splatted(builder, bound, GROUP))
        return builder.zext(builder.bitcast(mask, ir.IntType(GROUP)), _I64)

    f = types.float32
    return types.uint64(codes, steps, mine, ids, types.intp, f, f, f, width), build


def _top(builder: Any, values: list[Any]) -> Any:
    """The greatest absolute value of all lanes."""
    top = vector(builder, "fabs", values[0])
    for v in values[1:]:
        top = vector(builder, "maxnum", top, vector(builder, "fabs", v))
    kind = ir.FunctionType(_F32, [top.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fmax.v16f32"), [top])


def _put(builder: Any, values: list[Any], dim: int, scale: Any, row: Any, kind: Any) -> None:
    """round(value * scale) of a row's vectors, as integers of ``kind``; lanes past the row are 0."""
    for v, (first, _) in zip(values, parts(dim)):
        whole = vector(builder, "rint", builder.fmul(v, splatted(builder, scale)))
        code = builder.trunc(builder.fptosi(whole, ir.VectorType(_I32, WIDTH)), ir.VectorType(kind, WIDTH))
        at = builder.bitcast(builder.gep(row, [_I64(first)]), code.type.as_pointer())
        builder.store(code, at, align=1)


def _quotient(builder: Any, limit: float, top: Any) -> Any:
    """limit / top, and 0 where top is 0: a row of zeros has codes of zeros."""
    zero = ir.Constant(_F32, 0.0)
    return builder.select(builder.fcmp_ordered(">", top, zero), builder.fdiv(ir.Constant(_F32, limit), top), zero)


@intrinsic(prefer_literal=True)
def encode_item(typing: Any, q: Any, i: Any, inverse: Any, codes: Any, steps: Any, dim: Any) -> Any:
    """Codes and step of item row q[i], whose norm is 1 / ``inverse``."""
    checked(q, steps)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = row_of(context, builder, signature.args[0], args[0], args[1], n)
        values = [read(builder, row, *part) for part in parts(n)]
        top = _top(builder, values)
        target = row_of(context, builder, signature.args[3], args[3], args[1], stride(n))
        _put(builder, values, n, _quotient(builder, 127.0, top), target, _I8)
        steps = context.make_array(signature.args[4])(context, builder, args[4]).data
        step = builder.fdiv(builder.fmul(top, args[2]), ir.Constant(_F32, 127.0))
        builder.store(step, builder.gep(steps, [args[1]]))
        return context.get_dummy_value()

    return types.void(q, types.intp, types.float32, codes, steps, dim), build


@intrinsic(prefer_literal=True)
def _encode_user(typing: Any, r: Any, mine: Any, dim: Any) -> Any:
    """Codes int16 of the unit row r; returns (unit, |r|_1)."""
    checked(r)
    n = dim.literal_value
    limit = user_limit(n)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, target = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1))
        values = [read(builder, row, *part) for part in parts(n)]
        top = _top(builder, values)
        _put(builder, values, n, _quotient(builder, limit, top), target, _I16)
        ones = vector(builder, "fabs", values[0])
        for v in values[1:]:
            ones = builder.fadd(ones, vector(builder, "fabs", v))
        found = [builder.fdiv(top, ir.Constant(_F32, limit)), folded(builder, ones)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float32, 2)(r, mine, dim), build


def user_limit(dim: int) -> float:
    """Largest code of a user: 15 bits, or as many as keep the sum of D products below 2^31."""
    return float(min(32767, 16_000_000 // dim))


@inline
def encode_user(r, mine, dim):  # type: ignore[no-untyped-def]
    """Codes int16 of the unit row r into ``mine``; returns (unit, slack) of ``within_reach``."""
    unit, ones = _encode_user(r, mine, dim)
    return unit, (ones * _HALF + _TOP * np.float32(dim) * unit * _HALF) * SLACK


def empty(n_items: int, dim: int) -> tuple[Any, Any]:
    """(codes int8[I, W] of zeros that begin on a cache line, steps float32[I])."""
    width = stride(dim)
    memory = np.zeros(n_items * width + 64, np.int8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_items * width].reshape(n_items, width), np.zeros(n_items, np.float32)
