"""Full rows of float32 in one call: products with several rows at once, and linear combinations with their norm.

The dimension is a compile-time constant, so a row is a few unrolled vector operations and a last one under a mask. Sums
run in one order everywhere: the norm that an update returns is bit for bit what ``squared`` finds in the stored row.
These functions exist in compiled code only.

I items, D dim.
"""

# ruff: noqa: ARG001 - Numba fixes the arguments of an intrinsic and of its builder.

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrec.lanes import WIDTH

AT_ONCE = 4
"""Rows per step of ``dots``: 16 lanes are two AVX2 registers, so four sums, the row and a product take 12 of 16."""

_I1, _I32, _I64, _F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR, _FOUR = ir.VectorType(_F32, WIDTH), ir.VectorType(_F32, AT_ONCE)


def parts(dim: int) -> list[tuple[int, int]]:
    """(first column, lanes) of the vectors of a row, the possibly short one first."""
    tail = (dim - 1) % WIDTH + 1
    return [(dim - tail, tail)] + [(d, WIDTH) for d in range(0, dim - tail, WIDTH)]


def shuffled(builder: Any, x: Any, y: Any, order: list[int]) -> Any:
    """Lanes ``order`` of x followed by y."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(order)), order))


def splatted(builder: Any, value: Any, n: int = WIDTH) -> Any:
    """A vector of ``n`` lanes equal to one value."""
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, _I32(0))
    return shuffled(builder, one, one, [0] * n)


def vector(builder: Any, name: str, *args: Any) -> Any:
    """One of LLVM's intrinsics over 16 float32: fma, fabs, maxnum, rint."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v16f32"), args)


def _mask(n: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I1, WIDTH), [int(k < n) for k in range(WIDTH)])


def read(builder: Any, row: Any, first: int, n: int) -> Any:
    """Lanes [first, first + n) of a row; the others are 0 and not read."""
    at = builder.bitcast(builder.gep(row, [_I64(first)]), _VECTOR.as_pointer())
    if n == WIDTH:
        return builder.load(at, align=4)
    kind = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _I32, _mask(n).type, _VECTOR])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
    return builder.call(masked, [at, _I32(4), _mask(n), ir.Constant(_VECTOR, [0.0] * WIDTH)])


def _write(builder: Any, value: Any, row: Any, first: int, n: int) -> None:
    at = builder.bitcast(builder.gep(row, [_I64(first)]), _VECTOR.as_pointer())
    if n == WIDTH:
        builder.store(value, at, align=4)
        return
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _I32, _mask(n).type])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v16f32.p0")
    builder.call(masked, [value, at, _I32(4), _mask(n)])


def row_of(context: Any, builder: Any, kind: Any, value: Any, row: Any, dim: int) -> Any:
    """Pointer to ``array[row]``; a one-dimensional array is one row."""
    data = context.make_array(kind)(context, builder, value).data
    return data if kind.ndim == 1 else builder.gep(data, [builder.mul(row, _I64(dim))])


def checked(*arrays: Any) -> None:
    """Refuse, at compile time, what the pointer arithmetic here is not for."""
    for array in arrays:
        if array.layout != "C" or array.dtype != types.float32:
            raise TypeError(f"rows are C-contiguous float32, not {array}")


def folded(builder: Any, value: Any, width: int = 1) -> Any:
    """Sum of the lanes by halves, down to ``width`` lanes; a scalar where that is 1."""
    while value.type.count > max(width, 1):
        half = value.type.count // 2
        low, high = (shuffled(builder, value, value, list(range(k, k + half))) for k in (0, half))
        value = builder.fadd(low, high)
    return builder.extract_element(value, _I32(0)) if width == 1 else value


@intrinsic(prefer_literal=True)
def squared(typing: Any, x: Any, i: Any, dim: Any) -> Any:
    """Sum of the squares of row x[i]."""
    checked(x)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row = row_of(context, builder, signature.args[0], args[0], args[1], n)
        return _norm(builder, [read(builder, row, *part) for part in parts(n)])

    return types.float32(x, types.intp, dim), build


def _norm(builder: Any, values: list[Any]) -> Any:
    total = builder.fmul(values[0], values[0])
    for v in values[1:]:
        total = vector(builder, "fma", v, v, total)
    return folded(builder, total)


@intrinsic(prefer_literal=True)
def combine(typing: Any, out: Any, o: Any, a: Any, x: Any, i: Any, b: Any, y: Any, j: Any, dim: Any) -> Any:
    """out[o] = a * x[i] + b * y[j], and the sum of its squares; every array may be the same one."""
    checked(out, x, y)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, first, second = (
            row_of(context, builder, signature.args[k], args[k], args[k + at], n) for k, at in ((0, 1), (3, 1), (6, 1))
        )
        a, b = splatted(builder, args[2]), splatted(builder, args[5])
        values = [
            vector(builder, "fma", a, read(builder, first, *part), builder.fmul(b, read(builder, second, *part)))
            for part in parts(n)
        ]
        for v, part in zip(values, parts(n)):
            _write(builder, v, target, *part)
        return _norm(builder, values)

    return types.float32(out, types.intp, types.float32, x, types.intp, types.float32, y, types.intp, dim), build


@intrinsic(prefer_literal=True)
def dots(typing: Any, r: Any, q: Any, scale: Any, ids: Any, at: Any, x: Any, dim: Any) -> Any:
    """x[at + k] = r . q[i] * scale[i] for i = ids[at + k], k in 0 to 3.

    r float32[D], q float32[I, D], scale float32[I], ids int32[...], x float32[...].
    """
    checked(r, q, scale, x)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        row, table, factors, numbers, out = (
            context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1, 2, 3, 5)
        )
        rows, scales = [], ir.Constant(_FOUR, ir.Undefined)
        for k in range(AT_ONCE):
            i = builder.sext(builder.load(builder.gep(numbers, [builder.add(args[4], _I64(k))])), _I64)
            rows.append(builder.gep(table, [builder.mul(i, _I64(n))]))
            scales = builder.insert_element(scales, builder.load(builder.gep(factors, [i])), _I32(k))
        sums: list[Any] = []
        for part in parts(n):
            mine = read(builder, row, *part)
            theirs = [read(builder, other, *part) for other in rows]
            if not sums:
                sums = [builder.fmul(mine, v) for v in theirs]
            else:
                sums = [vector(builder, "fma", mine, v, s) for v, s in zip(theirs, sums)]
        sums = [folded(builder, s, 4) for s in sums]
        # four rows of four lanes: lanes 0 + 2 and 1 + 3 of two rows at a time, then 0 + 1
        pairs = [
            builder.fadd(shuffled(builder, a, b, [0, 1, 4, 5]), shuffled(builder, a, b, [2, 3, 6, 7]))
            for a, b in (sums[:2], sums[2:])
        ]
        found = builder.fadd(*(shuffled(builder, pairs[0], pairs[1], order) for order in ([0, 2, 4, 6], [1, 3, 5, 7])))
        place = builder.bitcast(builder.gep(out, [args[4]]), _FOUR.as_pointer())
        builder.store(builder.fmul(found, scales), place, align=4)
        return context.get_dummy_value()

    return types.void(r, q, scale, ids, types.intp, x, dim), build
