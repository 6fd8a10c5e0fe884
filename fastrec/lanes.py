"""Rows of float32 as vectors of 16 lanes, spelled out for LLVM instead of hoped for from its vectoriser.

A ``Lanes`` value is one AVX-512 register, two of AVX2 or four of NEON. Sums run in the order written here, so results
do not depend on what a compiler finds profitable. These functions exist in compiled code only.
"""

# ruff: noqa: ARG001 - Numba fixes the arguments of an intrinsic and of its builder.

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from fastrec.jit import inline

WIDTH = 16
_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_INTEGERS = ir.VectorType(_I32, WIDTH)


class Lanes(types.Type):
    """Numba type of 16 float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def constant_of(vector: Any, value: Any) -> ir.Constant:
    """A vector constant with all lanes equal."""
    return ir.Constant(vector, [value] * vector.count)


def splat_of(builder: Any, value: Any, count: int = WIDTH) -> Any:
    """A vector of ``count`` lanes equal to one scalar."""
    vector = ir.VectorType(value.type, count)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(one, undefined, constant_of(ir.VectorType(_I32, count), 0))


def _constant(value: float) -> ir.Constant:
    return constant_of(_VECTOR, float(np.float32(value)))


def _call(builder: Any, name: str, *args: Any) -> Any:
    """One of LLVM's vector intrinsics over Lanes: fma, fabs, maxnum, rint."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v16f32"), args)


def _pointer(context: Any, builder: Any, kind: Any, value: Any, row: Any, column: Any) -> Any:
    """Address of ``array[row, column]`` as a vector's; a one-dimensional array counts as one long row."""
    array = context.make_array(kind)(context, builder, value)
    at = column
    if kind.ndim == 2:
        at = builder.add(builder.mul(row, cgutils.unpack_tuple(builder, array.shape)[1]), column)
    return builder.bitcast(builder.gep(array.data, [at]), _VECTOR.as_pointer())


def _mask(n: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I1, WIDTH), [int(k < n) for k in range(WIDTH)])


def _check(array: Any, n: Any) -> None:
    if array.layout != "C" or array.dtype != types.float32:
        raise TypeError(f"lanes read and write C-contiguous float32, not {array}")
    if not isinstance(n, types.IntegerLiteral):
        raise TypeError(f"the number of lanes must be known when the kernel is compiled, not {n}")


def _read(builder: Any, at: Any, n: int) -> Any:
    """``n`` lanes from an address; the others are 0 and not read."""
    if n == WIDTH:
        return builder.load(at, align=4)
    kind = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _I32, ir.VectorType(_I1, WIDTH), _VECTOR])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
    return builder.call(masked, [at, _I32(4), _mask(n), _constant(0.0)])


def _write(builder: Any, value: Any, at: Any, n: int) -> None:
    """``n`` lanes to an address."""
    if n == WIDTH:
        builder.store(value, at, align=4)
        return
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _I32, ir.VectorType(_I1, WIDTH)])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v16f32.p0")
    builder.call(masked, [value, at, _I32(4), _mask(n)])


def _halved(builder: Any, value: Any) -> Any:
    """Sum of the lanes by halves: a fixed order."""
    width = WIDTH
    while width > 1:
        width //= 2
        parts = [
            builder.shuffle_vector(
                value,
                ir.Constant(value.type, ir.Undefined),
                ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width))),
            )
            for first in (0, width)
        ]
        value = builder.fadd(*parts)
    return builder.extract_element(value, _I32(0))


@intrinsic(prefer_literal=True)
def load(typing: Any, array: Any, row: Any, column: Any, n: Any) -> Any:
    """``array[row, column:column + n]``; lanes from the compile-time constant ``n`` on are 0 and not read."""
    _check(array, n)
    n_lanes = n.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _read(builder, _pointer(context, builder, signature.args[0], *args[:3]), n_lanes)

    return lanes(array, types.intp, types.intp, n), build


@intrinsic(prefer_literal=True)
def store(typing: Any, array: Any, row: Any, column: Any, n: Any, value: Any) -> Any:
    """``array[row, column:column + n] = value``; nothing beyond ``n`` lanes is written."""
    _check(array, n)
    n_lanes = n.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, args[4], _pointer(context, builder, signature.args[0], *args[:3]), n_lanes)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, n, lanes), build


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """All lanes equal to one float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat_of(builder, args[0])

    return lanes(types.float32), build


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fma", *args)

    return lanes(lanes, lanes, lanes), build


@intrinsic
def mul(typing: Any, x: Any, y: Any) -> Any:
    """x * y."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return lanes(lanes, lanes), build


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """Sum of the lanes as a float32, by halves: a fixed order."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _halved(builder, args[0])

    return types.float32(lanes), build


# Steps over entire rows of a compile-time length, in vectors of 16 and a masked tail. They are intrinsics, not inlined
# functions: Numba counts the references of every array passed to a function, by atomic additions; the sampler of
# ``sampling/kernels.py`` has figures for that.


def _pieces(dim: int) -> list[tuple[int, int]]:
    """(column, lanes) of a row's vectors, the tail first: sums begin with it."""
    tail = (dim - 1) % WIDTH + 1
    return [(dim - tail, tail), *((d, WIDTH) for d in range(0, dim - tail, WIDTH))]


@intrinsic(prefer_literal=True)
def dot(typing: Any, a: Any, i: Any, b: Any, j: Any, dim: Any) -> Any:
    """Sum over d < dim of a[i, d] * b[j, d], as a float32."""
    _check(a, dim)
    _check(b, dim)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, s = signature.args, None
        for d, width in _pieces(n):
            x = _read(builder, _pointer(context, builder, kinds[0], args[0], args[1], _I64(d)), width)
            y = _read(builder, _pointer(context, builder, kinds[2], args[2], args[3], _I64(d)), width)
            s = builder.fmul(x, y) if s is None else _call(builder, "fma", x, y, s)
        return _halved(builder, s)

    return types.float32(a, types.intp, b, types.intp, dim), build


@intrinsic(prefer_literal=True)
def square_of_sum(typing: Any, x: Any, a: Any, i: Any, b: Any, j: Any, dim: Any) -> Any:
    """Sum over d < dim of (x * a[i, d] + b[j, d]) ** 2, as a float32: what Adagrad adds for a row's gradient."""
    _check(a, dim)
    _check(b, dim)
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, s = signature.args, None
        x = splat_of(builder, args[0])
        for d, width in _pieces(n):
            v = _read(builder, _pointer(context, builder, kinds[1], args[1], args[2], _I64(d)), width)
            w = _read(builder, _pointer(context, builder, kinds[3], args[3], args[4], _I64(d)), width)
            v = _call(builder, "fma", x, v, w)
            s = builder.fmul(v, v) if s is None else _call(builder, "fma", v, v, s)
        return _halved(builder, s)

    return types.float32(types.float32, a, types.intp, b, types.intp, dim), build


@intrinsic(prefer_literal=True)
def add_rows(typing: Any, w: Any, x: Any, table: Any, ids: Any, count: Any, dim: Any) -> Any:
    """w[:dim] += sum over k < count of x[k] * table[ids[k]], in the order of k; a vector of w stays in registers."""
    for array in (w, x, table):
        _check(array, dim)
    if ids.layout != "C" or ids.dtype != types.int64:
        raise TypeError(f"rows are named by C-contiguous int64, not {ids}")
    n = dim.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        factors, rows = (context.make_array(kinds[k])(context, builder, args[k]).data for k in (1, 3))
        total_of = cgutils.alloca_once(builder, _VECTOR)
        for d, width in _pieces(n):
            at = _pointer(context, builder, kinds[0], args[0], _I64(0), _I64(d))
            builder.store(_read(builder, at, width), total_of)
            with cgutils.for_range(builder, args[4]) as loop:
                factor = splat_of(builder, builder.load(builder.gep(factors, [loop.index])))
                row = builder.load(builder.gep(rows, [loop.index]))
                v = _read(builder, _pointer(context, builder, kinds[2], args[2], row, _I64(d)), width)
                builder.store(_call(builder, "fma", factor, v, builder.load(total_of)), total_of)
            _write(builder, builder.load(total_of), at, width)
        return context.get_dummy_value()

    return types.void(w, x, table, ids, types.intp, dim), build


# exp(r) on |r| <= ln 2 / 2, and ln 2 in two parts. Source: Cephes, expf (Moshier).
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


@intrinsic
def exp_minus_abs(typing: Any, x: Any) -> Any:
    """exp(-abs(x)) to 2 units in the last place, at least exp(-87); NaN gives exp(-87)."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        t = _call(builder, "maxnum", builder.fneg(_call(builder, "fabs", args[0])), _constant(-87.0))
        k = _call(builder, "rint", builder.fmul(t, _constant(1.4426950408889634)))
        r = _call(builder, "fma", k, _constant(-_LN2_HIGH), t)
        r = _call(builder, "fma", k, _constant(-_LN2_LOW), r)
        y = _constant(_EXP[0])
        for c in _EXP[1:]:
            y = _call(builder, "fma", y, r, _constant(c))
        y = builder.fadd(_call(builder, "fma", y, builder.fmul(r, r), r), _constant(1.0))
        exponent = builder.add(builder.fptosi(k, _INTEGERS), ir.Constant(_INTEGERS, [127] * WIDTH))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [23] * WIDTH)), _VECTOR)
        return builder.fmul(y, power)

    return lanes(lanes), build


@intrinsic
def sigmoid(typing: Any, x: Any, e: Any) -> Any:
    """1 / (1 + exp(-x)) from x and ``e = exp_minus_abs(x)``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, e = args
        top = builder.select(builder.fcmp_ordered(">=", x, _constant(0.0)), _constant(1.0), e)
        return builder.fdiv(top, builder.fadd(_constant(1.0), e))

    return lanes(lanes, lanes), build


@intrinsic
def greater(typing: Any, x: Any, y: Any) -> Any:
    """The greater of two values in every lane; of a number and NaN the number."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "maxnum", *args)

    return lanes(lanes, lanes), build


@intrinsic
def greatest(typing: Any, x: Any) -> Any:
    """The greatest of the lanes."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [_VECTOR])
        name = "llvm.vector.reduce.fmax.v16f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return types.float32(lanes), build


@intrinsic(prefer_literal=True)
def prefetch(typing: Any, array: Any, row: Any, n_bytes: Any, to_write: Any) -> Any:
    """Ask for the first ``n_bytes`` of a row, to read it (0) or to write it (1), both compile-time constants.

    Asking to write takes the lines away from every other core: for rows that all read it costs more than it saves.
    """
    size, write = n_bytes.literal_value, to_write.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], args[0], args[1], _I64(0))
        text = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [text, _I32, _I32, _I32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        first = builder.bitcast(at, text)
        for offset in range(0, size, 64):
            builder.call(fetch, [builder.gep(first, [_I64(offset)]), _I32(write), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, n_bytes, to_write), build


@inline
def scratch(n):  # type: ignore[no-untyped-def]
    """float32 zeros for ``n`` and up to the next multiple of 16, beginning on a cache line."""
    wide = -(-n // WIDTH) * WIDTH
    memory = np.zeros(wide + WIDTH, np.float32)
    start = (-(memory.ctypes.data >> 2)) & (WIDTH - 1)
    return memory[start : start + wide]
