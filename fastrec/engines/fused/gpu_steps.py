"""The kernels of the fused engine in Triton: score, update items, update users, update what all samples share.

The mathematics of ``passes.py``, cut for a GPU. ``score_kernel`` goes row by row over a step with the weights
as they are and leaves the gradients of the logits and each row's part of its user's gradient. Then one program an item,
and one a user, sums its own samples in sorted order and moves its own row: no atomics, so that runs are equal to the
bit. Items go first, for they read the user rows from before the step.

B batch rows, N negatives, U users, I items, D dim, K steps of a block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastrec.engines.rows_cuda import read_row, softplus_sigmoid

OF_THE_STEP = ["first", "n_rows", "per_program", "k", "n_parts"]
"""Arguments that change from step to step: Triton would compile again where one is 1 or a multiple of 16."""

ITEM_ROW = tl.constexpr(1 << 31)
"""Added to an item where it is a row of the rounding's address: user rows are below, however many there are."""


@triton.jit
def rounded_bf16(value, d, row, step, seed, tag):  # type: ignore[no-untyped-def]
    """bfloat16 as int16: up with the probability of the part cut off, by the low half of word d % 4 of block d // 4.

    The address is (step lo, step hi, row, block << 16), with row = user or 2^31 + item; NaN and infinities stay as they
    are.
    """
    zero = d * 0
    c0, c1 = (step + zero).to(tl.uint32), ((step >> 32) + zero).to(tl.uint32)
    c2, c3 = (row + zero).to(tl.uint32), ((d >> 2) << 16).to(tl.uint32)
    k0, k1 = (seed + zero).to(tl.uint32), (tag + zero).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox_impl(c0, c1, c2, c3, k0, k1)
    lane = d & 3
    word = tl.where(lane == 0, w0, tl.where(lane == 1, w1, tl.where(lane == 2, w2, w3)))
    bits = value.to(tl.uint32, bitcast=True)
    finite = (bits & 0x7F800000) != 0x7F800000
    kept = tl.where(finite, bits + (word & 0xFFFF), tl.where(value != value, bits | 0x400000, bits))
    return (kept >> 16).to(tl.uint16).to(tl.int16, bitcast=True)


@triton.jit(do_not_specialize=OF_THE_STEP)
def score_kernel(  # type: ignore[no-untyped-def]
    users, items, p, q, h, user_bias, item_bias, bias, g, w, slopes, losses, slope_parts, h_parts,
    first, n_rows, per_program, scale,
    BPR: tl.constexpr, GMF: tl.constexpr, BF16: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Rows [first, first + n_rows) of a block, ``per_program`` (a multiple of SIZE) each program.

    Fills g float32[rows of the block, 1+N] (dloss/dlogit of the mean), w float32[n_rows, D] (the user's gradient of the
    row, times h in GMF), slopes float32[n_rows], and per program losses and slope_parts float64 and h_parts float32[D].
    """
    pid = tl.program_id(0)
    d = tl.arange(0, WIDTH)
    base = tl.load(bias)
    if GMF:
        hv = tl.load(h + d, mask=d < DIM, other=0.0)
    loss_sum = tl.zeros((SIZE,), tl.float64)
    slope_sum = tl.zeros((SIZE,), tl.float64)
    h_sum = tl.zeros((SIZE, WIDTH), tl.float32)
    at = pid * per_program
    stop = tl.minimum(at + per_program, n_rows)
    while at < stop:
        k = at + tl.arange(0, SIZE)
        live = k < n_rows
        cells = live[:, None] & (d < DIM)[None, :]
        row = (first + k).to(tl.int64)
        user = tl.load(users + row, mask=live, other=0).to(tl.int64)
        p_row = read_row(p, user[:, None] * DIM + d[None, :], cells, BF16)
        if GMF:
            r = p_row * hv[None, :]
            offset = base + tl.zeros((SIZE,), tl.float32)
        else:
            r = p_row
            offset = base + tl.load(user_bias + user, mask=live, other=0.0)
        item = tl.load(items + row * COLUMNS, mask=live, other=0).to(tl.int64)
        q0 = read_row(q, item[:, None] * DIM + d[None, :], cells, BF16)
        x0 = tl.sum(r * q0, 1) + offset
        if not GMF:
            x0 += tl.load(item_bias + item, mask=live, other=0.0)
        slope = tl.zeros((SIZE,), tl.float32)
        if BPR:
            loss = tl.zeros((SIZE,), tl.float32)
            g0 = tl.zeros((SIZE,), tl.float32)
            mine = tl.zeros((SIZE, WIDTH), tl.float32)
        else:
            loss, s0 = softplus_sigmoid(-x0)
            g0 = -scale * s0
            mine = g0[:, None] * q0
            slope += g0
        for j in range(1, COLUMNS):
            item = tl.load(items + row * COLUMNS + j, mask=live, other=0).to(tl.int64)
            qj = read_row(q, item[:, None] * DIM + d[None, :], cells, BF16)
            z = tl.sum(r * qj, 1) + offset
            if not GMF:
                z += tl.load(item_bias + item, mask=live, other=0.0)
            if BPR:
                z -= x0
            more, gj = softplus_sigmoid(z)
            loss += more
            gj = gj * scale
            if BPR:
                g0 -= gj
            else:
                slope += gj
            mine += gj[:, None] * qj
            tl.store(g + row * COLUMNS + j, gj, mask=live)
        if BPR:
            mine += g0[:, None] * q0
        tl.store(g + row * COLUMNS, g0, mask=live)
        if GMF:
            h_sum += mine * p_row
            mine = mine * hv[None, :]
        else:
            tl.store(slopes + k, slope, mask=live)
        tl.store(w + k.to(tl.int64)[:, None] * DIM + d[None, :], mine, mask=cells)
        loss_sum += tl.where(live, loss, 0.0).to(tl.float64)
        slope_sum += tl.where(live, slope, 0.0).to(tl.float64)
        at += SIZE
    tl.store(losses + pid, tl.sum(loss_sum, 0))
    tl.store(slope_parts + pid, tl.sum(slope_sum, 0))
    if GMF:
        tl.store(h_parts + pid * DIM + d, tl.sum(h_sum, 0), mask=d < DIM)


@triton.jit
def moved(value, gradient, sums, at, lr, divisor, ADAGRAD: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row after one step; row-wise Adagrad counts the mean square of its gradient."""
    if ADAGRAD:
        total = tl.load(sums + at) + tl.sum(gradient * gradient, 0) / divisor
        tl.store(sums + at, total)
        lr = lr / (tl.sqrt(total) + 1e-10)
    return value - lr * gradient


@triton.jit
def move_row(  # type: ignore[no-untyped-def]
    table, sums, bias, bias_sums, at, gradient, slope, decay, lr, random_row, step, seed, tag,
    BIASED: tl.constexpr, ADAGRAD: tl.constexpr, BF16: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Row ``at`` of a table, and its bias, after one step with L2 ``decay``."""
    d = tl.arange(0, WIDTH)
    value = read_row(table, at * DIM + d, d < DIM, BF16)
    value = moved(value, gradient + decay * value, sums, at, lr, DIM, ADAGRAD)
    if BF16:
        tl.store(table + at * DIM + d, rounded_bf16(value, d, random_row, step, seed, tag), mask=d < DIM)
    else:
        tl.store(table + at * DIM + d, value, mask=d < DIM)
    if BIASED:
        value = tl.load(bias + at)
        gradient = slope + decay * value
        if ADAGRAD:
            total = tl.load(bias_sums + at) + gradient * gradient
            tl.store(bias_sums + at, total)
            lr = lr / (tl.sqrt(total) + 1e-10)
        tl.store(bias + at, value - lr * gradient)


@triton.jit(do_not_specialize=OF_THE_STEP)
def items_kernel(  # type: ignore[no-untyped-def]
    users, order, starts, g, p, q, h, item_bias, item_sum, item_bias_sum, lrs, step_at, k, n_items, l2, seed, tag,
    GMF: tl.constexpr, ADAGRAD: tl.constexpr, BF16: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Step ``k`` of a block, one program an item: sum over its samples, ``order`` from ``starts``, and move its row."""
    i = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    lo = tl.load(starts + k * n_items + i)
    hi = tl.load(starts + k * n_items + i + 1)
    if lo < hi:
        total = tl.zeros((SIZE, WIDTH), tl.float32)
        slope = tl.zeros((SIZE,), tl.float32)
        at = lo
        while at < hi:
            place = at + tl.arange(0, SIZE)
            live = place < hi
            sample = tl.load(order + place, mask=live, other=0)
            gs = tl.load(g + sample, mask=live, other=0.0)
            user = tl.load(users + sample // COLUMNS, mask=live, other=0).to(tl.int64)
            cells = live[:, None] & (d < DIM)[None, :]
            total += gs[:, None] * read_row(p, user[:, None] * DIM + d[None, :], cells, BF16)
            slope += gs
            at += SIZE
        gradient = tl.sum(total, 0)
        if GMF:
            gradient = gradient * tl.load(h + d, mask=d < DIM, other=0.0)
        decay = l2 * (hi - lo).to(tl.float32)
        move_row(
            q, item_sum, item_bias, item_bias_sum, i, gradient, tl.sum(slope, 0), decay, tl.load(lrs + k),
            i + ITEM_ROW, tl.load(step_at) + k, seed, tag, not GMF, ADAGRAD, BF16, DIM, WIDTH,
        )  # fmt: skip


@triton.jit(do_not_specialize=OF_THE_STEP)
def users_kernel(  # type: ignore[no-untyped-def]
    order, starts, w, slopes, p, user_bias, user_sum, user_bias_sum, lrs, step_at, k, first, n_users, l2, seed, tag,
    GMF: tl.constexpr, ADAGRAD: tl.constexpr, BF16: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Step ``k`` of a block, whose rows begin at ``first``: one program a user sums its rows and moves its row."""
    u = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    lo = tl.load(starts + k * n_users + u)
    hi = tl.load(starts + k * n_users + u + 1)
    if lo < hi:
        total = tl.zeros((SIZE, WIDTH), tl.float32)
        slope = tl.zeros((SIZE,), tl.float32)
        at = lo
        while at < hi:
            place = at + tl.arange(0, SIZE)
            live = place < hi
            row = (tl.load(order + place, mask=live, other=0) - first).to(tl.int64)
            cells = live[:, None] & (d < DIM)[None, :]
            total += tl.load(w + row[:, None] * DIM + d[None, :], mask=cells, other=0.0)
            if not GMF:
                slope += tl.load(slopes + row, mask=live, other=0.0)
            at += SIZE
        decay = l2 * ((hi - lo) * COLUMNS).to(tl.float32)
        move_row(
            p, user_sum, user_bias, user_bias_sum, u, tl.sum(total, 0), tl.sum(slope, 0), decay, tl.load(lrs + k),
            u, tl.load(step_at) + k, seed, tag, not GMF, ADAGRAD, BF16, DIM, WIDTH,
        )  # fmt: skip


@triton.jit(do_not_specialize=OF_THE_STEP)
def shared_kernel(  # type: ignore[no-untyped-def]
    losses, slope_parts, h_parts, bias, bias_sum, h, h_sum, total, lrs, k, n_parts, weight, l2, output_l2, output_lr,
    GMF: tl.constexpr, ADAGRAD: tl.constexpr, DIM: tl.constexpr, PARTS: tl.constexpr, COLUMN: tl.constexpr,
    SETTLED: tl.constexpr,
):  # fmt: skip
    """Sum the programs' parts: the bias, COLUMN elements of h a program, and ``weight`` times the loss onto total."""
    pid = tl.program_id(0)
    part = tl.arange(0, PARTS)
    live = part < n_parts
    lr = tl.load(lrs + k)
    h_lr = lr * output_lr
    if not ADAGRAD:  # summed over all samples, the step would overshoot
        lr, h_lr = tl.minimum(lr, SETTLED), tl.minimum(h_lr, SETTLED)
    if pid == 0:
        loss = tl.sum(tl.load(losses + part, mask=live, other=0.0), 0)
        tl.store(total, tl.load(total) + loss * weight)
        value = tl.load(bias)
        gradient = tl.sum(tl.load(slope_parts + part, mask=live, other=0.0), 0).to(tl.float32) + l2 * value
        tl.store(bias, single(value, gradient, bias_sum, lr, True, ADAGRAD))
    if GMF:
        d = pid * COLUMN + tl.arange(0, COLUMN)
        inside = d < DIM
        cells = live[:, None] & inside[None, :]
        gradients = tl.sum(tl.load(h_parts + part[:, None] * DIM + d[None, :], mask=cells, other=0.0), 0)
        value = tl.load(h + d, mask=inside, other=0.0)
        gradients += output_l2 * value
        tl.store(h + d, single(value, gradients, h_sum + d, h_lr, inside, ADAGRAD), mask=inside)


@triton.jit
def single(value, gradient, sums, lr, inside, ADAGRAD: tl.constexpr):  # type: ignore[no-untyped-def]
    """Weights that are rows of their own, after one step."""
    if ADAGRAD:
        total = tl.load(sums, mask=inside, other=0.0) + gradient * gradient
        tl.store(sums, total, mask=inside)
        lr = lr / (tl.sqrt(total) + 1e-10)
    return value - lr * gradient
