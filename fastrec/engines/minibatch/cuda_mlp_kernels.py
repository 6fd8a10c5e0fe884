"""The kernels of ``cuda_mlp`` in Triton: what is between two matrix products of an MLP or NeuMF.

Activations and gathered rows are float32 or bfloat16, sums and everything of one logit float32. Kernels that draw
dropout work on tiles of SIZE Philox blocks by four units, so that a thread draws just what it needs; those that sum
work on tiles of SIZE rows by the entire width (a power of two, WIDE or DEEP).

B batch rows, N negatives, K = 1 + N columns, M = B * K samples, D dim of the GMF part, W width of a layer.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastrec.engines.rows_cuda import softplus_sigmoid

COUNTS = ["n_rows", "n_samples", "per_program", "seed", "limit"]
"""Arguments that Triton would compile again for where one is 1 or a multiple of 16."""


@triton.jit
def kept_factor(position, epoch, slot, block, seed, limit, scale, TAG: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32[SIZE, 4]: ``scale`` where a unit is kept, else 0, by the addresses of ``dropout.fill_kept``."""
    zero = block * 0
    c0, c1 = position.to(tl.uint32), (position >> 32).to(tl.uint32)
    c2, c3 = (epoch + zero).to(tl.uint32), ((slot + zero).to(tl.uint32) << 16) | block.to(tl.uint32)
    k0, k1 = (seed + zero).to(tl.uint32), (TAG + zero).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox_impl(c0, c1, c2, c3, k0, k1)
    lane = tl.arange(0, 4)[None, :]
    even = tl.where(lane == 0, w0[:, None], w2[:, None])
    odd = tl.where(lane == 1, w1[:, None], w3[:, None])
    word = tl.where((lane & 1) == 0, even, odd)
    return tl.where(word >= limit.to(tl.uint32), scale, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def first_kernel(  # type: ignore[no-untyped-def]
    u, v, bias, users, items, positions, epoch, x, n_rows, seed, limit, scale,
    TAG: tl.constexpr, DROP: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """x[r * K + j] = dropout(ReLU(u[users[r]] + v[items[r, j]] + bias)); BLOCKS, a power of two, times 4 hold a row."""
    local = tl.arange(0, SIZE)
    block = local % BLOCKS
    row = tl.program_id(0) * (SIZE // BLOCKS) + local // BLOCKS
    there = row < n_rows
    unit = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    cells = there[:, None] & (unit < WIDTH)
    user = tl.load(users + row, mask=there, other=0).to(tl.int64)
    own = tl.load(u + user[:, None] * WIDTH + unit, mask=cells, other=0.0).to(tl.float32)
    own += tl.load(bias + unit, mask=unit < WIDTH, other=0.0)
    if DROP:
        position = tl.load(positions + row, mask=there, other=0)
        at = tl.load(epoch)
    for j in range(COLUMNS):
        sample = row.to(tl.int64) * COLUMNS + j
        item = tl.load(items + sample, mask=there, other=0).to(tl.int64)
        s = own + tl.load(v + item[:, None] * WIDTH + unit, mask=cells, other=0.0).to(tl.float32)
        s = tl.where(s < 0.0, 0.0, s)
        if DROP:
            s = s * kept_factor(position, at, COLUMNS + j, block, seed, limit, scale, TAG)
        tl.store(x + sample[:, None] * WIDTH + unit, s, mask=cells)


@triton.jit(do_not_specialize=COUNTS)
def bend_kernel(  # type: ignore[no-untyped-def]
    x, bias, positions, epoch, n_samples, seed, limit, scale,
    TAG: tl.constexpr, LAYER: tl.constexpr, DROP: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """x = dropout(ReLU(x + bias)) of layer LAYER (from 1), in place."""
    local = tl.arange(0, SIZE)
    block = local % BLOCKS
    sample = tl.program_id(0) * (SIZE // BLOCKS) + local // BLOCKS
    there = sample < n_samples
    unit = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    cells = there[:, None] & (unit < WIDTH)
    place = x + sample.to(tl.int64)[:, None] * WIDTH + unit
    s = tl.load(place, mask=cells, other=0.0).to(tl.float32)
    s += tl.load(bias + unit, mask=unit < WIDTH, other=0.0)
    s = tl.where(s < 0.0, 0.0, s)
    if DROP:
        position = tl.load(positions + sample // COLUMNS, mask=there, other=0)
        slot = LAYER * COLUMNS + sample % COLUMNS
        s = s * kept_factor(position, tl.load(epoch), slot, block, seed, limit, scale, TAG)
    tl.store(place, s, mask=cells)


@triton.jit
def through(x, g, h, scale):  # type: ignore[no-untyped-def]
    """Gradient before ReLU and dropout, where it is g * h behind them: what is above 0 was active and kept."""
    return tl.where(x > 0.0, (g * scale)[:, None] * h[None, :], 0.0)


@triton.jit(do_not_specialize=COUNTS)
def last_kernel(  # type: ignore[no-untyped-def]
    users, items, x, h, bias, p, q, h_gmf, user_grad, item_grad, parts, sums, n_rows, per_program, weight, scale,
    BPR: tl.constexpr, GMF: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    DIM: tl.constexpr, DEEP: tl.constexpr, PARTS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Logits, loss and what follows from their gradients, ``per_program`` rows (a multiple of SIZE) each program.

    ``weight`` is that of one loss term. Writes the gradient before the last ReLU over x [M, W], and
    leaves of each program: parts float32 [gradient of h_gmf, of h, of the layer's bias] and sums float64 [2, PARTS], of
    the loss and of g. The GMF rows' gradients are added to user_grad and item_grad.
    """
    pid = tl.program_id(0)
    w = tl.arange(0, WIDE)
    d = tl.arange(0, DEEP)
    base = tl.load(bias)
    hx = tl.load(h + w, mask=w < WIDTH, other=0.0)
    if GMF:
        hd = tl.load(h_gmf + d, mask=d < DIM, other=0.0)
        hd_sum = tl.zeros((SIZE, DEEP), tl.float32)
    hx_sum = tl.zeros((SIZE, WIDE), tl.float32)
    bias_sum = tl.zeros((SIZE, WIDE), tl.float32)
    loss_sum = tl.zeros((SIZE,), tl.float64)
    slope_sum = tl.zeros((SIZE,), tl.float64)
    at = pid * per_program
    stop = tl.minimum(at + per_program, n_rows)
    while at < stop:
        row = at + tl.arange(0, SIZE)
        live = row < n_rows
        first = row.to(tl.int64) * COLUMNS
        cells = live[:, None] & (w < WIDTH)[None, :]
        place0 = x + first[:, None] * WIDTH + w[None, :]
        x0 = tl.load(place0, mask=cells, other=0.0).to(tl.float32)
        z0 = tl.sum(x0 * hx[None, :], 1) + base
        if GMF:
            deep = live[:, None] & (d < DIM)[None, :]
            user = tl.load(users + row, mask=live, other=0).to(tl.int64)
            p_row = tl.load(p + user[:, None] * DIM + d[None, :], mask=deep, other=0.0).to(tl.float32)
            r = p_row * hd[None, :]
            item0 = tl.load(items + first, mask=live, other=0).to(tl.int64)
            q0 = tl.load(q + item0[:, None] * DIM + d[None, :], mask=deep, other=0.0).to(tl.float32)
            z0 += tl.sum(r * q0, 1)
            mine = tl.zeros((SIZE, DEEP), tl.float32)
        slope = tl.zeros((SIZE,), tl.float32)
        if BPR:
            loss = tl.zeros((SIZE,), tl.float32)
            g0 = tl.zeros((SIZE,), tl.float32)
        else:
            loss, s0 = softplus_sigmoid(-z0)
            g0 = -weight * s0
        for j in range(1, COLUMNS):
            place = x + (first + j)[:, None] * WIDTH + w[None, :]
            xj = tl.load(place, mask=cells, other=0.0).to(tl.float32)
            z = tl.sum(xj * hx[None, :], 1) + base
            if GMF:
                item = tl.load(items + first + j, mask=live, other=0).to(tl.int64)
                qj = tl.load(q + item[:, None] * DIM + d[None, :], mask=deep, other=0.0).to(tl.float32)
                z += tl.sum(r * qj, 1)
            if BPR:
                z -= z0
            more, gj = softplus_sigmoid(z)
            loss += more
            gj = tl.where(live, gj * weight, 0.0)
            if BPR:
                g0 -= gj
            else:
                slope += gj
            dz = through(xj, gj, hx, scale)
            tl.store(place, dz, mask=cells)
            bias_sum += dz
            hx_sum += gj[:, None] * xj
            if GMF:
                mine += gj[:, None] * qj
                place = item_grad + item[:, None] * DIM + d[None, :]
                tl.atomic_add(place, gj[:, None] * r, mask=deep, sem="relaxed")
        g0 = tl.where(live, g0, 0.0)
        if not BPR:
            slope += g0
        dz = through(x0, g0, hx, scale)
        tl.store(place0, dz, mask=cells)
        bias_sum += dz
        hx_sum += g0[:, None] * x0
        if GMF:
            mine += g0[:, None] * q0
            hd_sum += mine * p_row
            tl.atomic_add(item_grad + item0[:, None] * DIM + d[None, :], g0[:, None] * r, mask=deep, sem="relaxed")
            tl.atomic_add(user_grad + user[:, None] * DIM + d[None, :], mine * hd[None, :], mask=deep, sem="relaxed")
        loss_sum += tl.where(live, loss, 0.0).to(tl.float64)
        slope_sum += slope.to(tl.float64)
        at += SIZE
    tl.store(sums + pid, tl.sum(loss_sum, 0))
    tl.store(sums + PARTS + pid, tl.sum(slope_sum, 0))
    if GMF:
        mine_parts = parts + pid * (DIM + 2 * WIDTH)
        tl.store(mine_parts + d, tl.sum(hd_sum, 0), mask=d < DIM)
        mine_parts += DIM
    else:
        mine_parts = parts + pid * (2 * WIDTH)
    tl.store(mine_parts + w, tl.sum(hx_sum, 0), mask=w < WIDTH)
    tl.store(mine_parts + WIDTH + w, tl.sum(bias_sum, 0), mask=w < WIDTH)


@triton.jit(do_not_specialize=COUNTS)
def unbend_kernel(  # type: ignore[no-untyped-def]
    x, dx, parts, n_samples, per_program, scale, WIDTH: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """dx through dropout and ReLU, in place, and each program's column sums: the gradient of the bias."""
    pid = tl.program_id(0)
    w = tl.arange(0, WIDE)
    total = tl.zeros((SIZE, WIDE), tl.float32)
    at = pid * per_program
    stop = tl.minimum(at + per_program, n_samples)
    while at < stop:
        sample = at + tl.arange(0, SIZE)
        cells = (sample < n_samples)[:, None] & (w < WIDTH)[None, :]
        place = sample.to(tl.int64)[:, None] * WIDTH + w[None, :]
        value = tl.load(dx + place, mask=cells, other=0.0).to(tl.float32)
        active = tl.load(x + place, mask=cells, other=0.0).to(tl.float32) > 0.0
        value = tl.where(active, value * scale, 0.0)
        tl.store(dx + place, value, mask=cells)
        total += value
        at += SIZE
    tl.store(parts + pid * WIDTH + w, tl.sum(total, 0), mask=w < WIDTH)


@triton.jit(do_not_specialize=COUNTS)
def scatter_kernel(  # type: ignore[no-untyped-def]
    users, items, x, dx, user_sums, item_sums, n_rows, scale,
    READY: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Add dx before the first ReLU to the rows it came through: to a user's row once, to an item's K times."""
    local = tl.arange(0, SIZE)
    block = local % BLOCKS
    row = tl.program_id(0) * (SIZE // BLOCKS) + local // BLOCKS
    there = row < n_rows
    unit = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    cells = there[:, None] & (unit < WIDTH)
    user = tl.load(users + row, mask=there, other=0).to(tl.int64)
    own = tl.zeros((SIZE, 4), tl.float32)
    for j in range(COLUMNS):
        sample = row.to(tl.int64) * COLUMNS + j
        item = tl.load(items + sample, mask=there, other=0).to(tl.int64)
        cell = sample[:, None] * WIDTH + unit
        value = tl.load(dx + cell, mask=cells, other=0.0).to(tl.float32)
        if not READY:
            active = tl.load(x + cell, mask=cells, other=0.0).to(tl.float32) > 0.0
            value = tl.where(active, value * scale, 0.0)
        own += value
        tl.atomic_add(item_sums + item[:, None] * WIDTH + unit, value, mask=cells, sem="relaxed")
    tl.atomic_add(user_sums + user[:, None] * WIDTH + unit, own, mask=cells, sem="relaxed")
