"""Exact k-center greedy (farthest-first traversal; Gonzalez 1985, Sener & Savarese arXiv:1708.00489): the engine of
`pcoreset` (probabilities, Euclidean) and `coreset` (features, cosine).

**What is computed.** For each point the squared distance m_i to its nearest centre; each pick is argmax_i m_i (ties:
the lowest index), becomes a centre, and lowers m. A distance is *defined* as numpy's `((x - c) ** 2).sum()` over
float64 rows, to the bit: differences and squares rounded once each, added in numpy's pairwise order (eight lanes,
leaves of at most 128, `_plan`). Whatever the path below, every m_i that is kept comes from that one definition, so the
picks are those of the obvious float64 brute force for any input; chunks, threads and skipping cannot change them.
Cosine is the same on rows x * (1 / sqrt((x ** 2).sum())); its radii are cosine distances, 1 - cos = m / 2.

**What is skipped on a CPU, and why that is safe.** u = 2^-53, C columns, D = d(new centre, centre of i):
1. Triangle inequality: d(x, new) >= D - d(x, centre), so m_i can fall only if d(x, centre) > D / 2. A computed squared
   distance is within (C + 2) u, relative, of the true one (a sum of C non-negative terms), so the test
   m_i > D^2 / 4 * (1 - 8 (C + 4) u) errs only towards computing. D^2 in the underflow or overflow range skips nothing.
2. Partial sums: rounding is monotone, so adding terms >= 0 never lowers a computed sum; once a subtree of the pairwise
   sum has reached m_i, the whole sum has too. No margin is needed.
3. Labelled centres: one float32 matrix product gives |c|^2 - 2 x.c for all of them, within
   e = (C + 16) 2^-22 |c| (2 |x| + |c|): the bound for any order of summation, with or without FMA, four times over.
   Only centres within 2 e of the least can be the nearest, and only those are computed.

**Cost.** N (L + k) C multiply-adds at worst; clustered points (a VLM's predictions) need a few per cent of the N k C
part. Memory beyond the inputs: under 100 bytes a point, (L + k) C float64 centres, and chunks of a few MB. When few
points are skipped the distances between centres are not worth computing: measured at each pick, retried at every
16th. Small inputs use plain numpy (no compilation); CUDA and MPS an unpruned running minimum in torch.
"""

import contextlib
import importlib.util
import platform
import shutil
import threading
import warnings

import llvmlite.binding
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from tqdm import tqdm

U = 2.0**-53
SMALL = 4_000_000  # N * C * (L + k) up to which plain numpy beats loading the compiled kernels
PARALLEL = 4_000_000  # N * C from which a pick is worth waking the other cores: barriers are dear on a busy machine
BLOCK, STRIPES = 256, 64  # stripe s, a unit of parallel work, owns the blocks of points s, s + 64, s + 128, ...
_compiled = threading.Lock()  # numba's fallback threading layer aborts the process when entered twice


def k_center_greedy(points, centers, k, *, metric="euclidean", progress=False):
    """Pick k rows of `points`, each the farthest from `centers` and from the picks before it.

    points: (N, C), centers: (L, C); numpy or torch, float16/bfloat16/float32/float64, any device. With L = 0 every
    distance is infinite: the first pick is index 0, its radius inf. metric: "euclidean" or "cosine" (rows need not be
    normalised). Returns CPU tensors whatever came in: indices (k,) int64 in pick order, and radii (k,) float64, the
    largest distance from any point to its nearest centre before that pick (cosine: 1 - cos). A point is never picked
    twice; once the radius is 0 it warns "pool exhausted at pick t" (indices[:t] were useful) and goes on with unpicked
    points in index order. Raises ValueError for NaN or infinite rows, k outside 0..N, or shapes that do not fit.

    >>> k_center_greedy(np.array([[0.0], [1.0], [5.0]]), np.array([[0.0]]), 2)
    (tensor([2, 1]), tensor([5., 1.], dtype=torch.float64))
    """
    points, centers = _checked(points, "points"), _checked(centers, "centers")
    (n, width), labelled = points.shape, len(centers)
    if centers.shape[1] != width:
        raise ValueError(f"points {tuple(points.shape)} and centers {tuple(centers.shape)} differ in columns")
    if not 0 <= k <= n:
        raise ValueError(f"k = {k} picks asked of {n} points; k must be in 0..{n}")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric {metric!r} is unknown; choose 'euclidean' or 'cosine'")
    cosine = metric == "cosine"
    centers = centers.detach().cpu().double().numpy() if torch.is_tensor(centers) else centers.astype(np.float64)
    centers = np.ascontiguousarray(centers)
    _refuse_nonfinite(centers, (centers**2).sum(1), "centers", cosine)
    if cosine:
        centers *= (1 / np.sqrt((centers**2).sum(1)))[:, None]

    half = _dtype_name(points) == "float16"
    if n * width * (labelled + k) <= SMALL:
        path = _plain
    elif (torch.is_tensor(points) and points.device.type != "cpu") or (half and not _has_half()):
        path = _running_minimum
    else:
        path = _pruned
    indices, squared = path(points, centers, k, cosine, progress)
    radii = squared / 2 if cosine else np.sqrt(squared)
    if k and radii[-1] == 0:
        t = int(np.argmin(radii))
        warnings.warn(f"pool exhausted at pick {t} of {k}: every remaining point equals a centre (radius 0); "
                      "unpicked points follow in index order", stacklevel=2)  # fmt: skip
    return torch.from_numpy(indices), torch.from_numpy(radii)


def _checked(x, name):
    """x as a 2-D floating array or tensor, without a copy unless its rows are not contiguous."""
    if not torch.is_tensor(x):
        x = np.asarray(x)
    if _dtype_name(x) not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"{name} has dtype {x.dtype}; choose float16, bfloat16, float32 or float64")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected 2-D with at least one column")
    if torch.is_tensor(x):
        return x.detach() if x.stride(1) == 1 else x.detach().contiguous()
    return x if x.strides[1] == x.itemsize and x.dtype.isnative else np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def _dtype_name(x):
    return str(x.dtype).removeprefix("torch.") if torch.is_tensor(x) else x.dtype.name


def _refuse_nonfinite(x, squared_norms, name, cosine):
    """Raise for rows that hold NaN or inf, or have no direction; squared_norms (n,) finds the suspects cheaply."""
    suspects = np.flatnonzero(~np.isfinite(squared_norms))
    rows = x[torch.from_numpy(suspects).to(x.device)].cpu().double().numpy() if torch.is_tensor(x) else x[suspects]
    bad, what = suspects[~np.isfinite(rows).all(1)], "NaN or infinite values"
    if cosine and not len(bad):
        bad, what = np.flatnonzero(~np.isfinite(squared_norms) | (squared_norms == 0)), "no usable norm for cosine"
    if len(bad):
        raise ValueError(f"{name}: {len(bad)} of {len(x)} rows have {what}, first {bad[:5].tolist()}")


# Small inputs: the definition itself, in numpy. ---------------------------------------------------------------------


def _plain(points, centers, k, cosine, progress):
    points = points.cpu().double().numpy() if torch.is_tensor(points) else points.astype(np.float64)  # (N, C)
    points = np.ascontiguousarray(points)
    norms = (points**2).sum(1)
    _refuse_nonfinite(points, norms, "points", cosine)
    if cosine:
        points = points * (1 / np.sqrt(norms))[:, None]
    m = np.full(len(points), np.inf)
    for c in centers:
        np.minimum(m, ((points - c) ** 2).sum(1), out=m)
    indices, squared = np.empty(k, np.int64), np.empty(k)
    for t in tqdm(range(k), disable=not progress, desc="k-center"):
        i = indices[t] = m.argmax()
        squared[t] = m[i]
        np.minimum(m, ((points - points[i]) ** 2).sum(1), out=m)
        m[i] = -1  # picked: never again
    return indices, squared


# CPU: compiled and pruned. ------------------------------------------------------------------------------------------


def _plan(width):
    """numpy's pairwise tree over `width` columns: rows (first column, sums to join after this leaf), and an end row."""
    plan = []

    def split(lo, n):
        if n <= 128:
            plan.append([lo, 0])
        else:
            left = n // 2 - n // 2 % 8
            split(lo, left)
            split(lo + left, n - left)
            plan[-1][1] += 1

    split(0, width)
    return np.array([*plan, [width, 0]])


def _has_half():
    """LLVM turns half into one F16C instruction; x86 before 2012 lacks it."""
    return platform.machine() not in ("x86_64", "AMD64") or llvmlite.binding.get_host_cpu_features().get("f16c", False)


def _emit_row(context, builder, array_type, array, row):
    """LLVM that reads `lanes` values of one row as float64; uint16 holds float16 bits, int16 bfloat16 bits."""
    view = context.make_array(array_type)(context, builder, array)
    stride = cgutils.unpack_tuple(builder, view.strides, 2)[0]
    start = cgutils.pointer_add(builder, view.data, builder.mul(row, stride))
    raw = {types.float64: ir.DoubleType(), types.float32: ir.FloatType(), types.uint16: ir.HalfType(),
           types.int16: ir.IntType(16)}[array_type.dtype]  # fmt: skip
    size = array_type.dtype.bitwidth // 8

    def read(column, lanes):
        def wide(t):
            return ir.VectorType(t, lanes) if lanes > 1 else t

        at = cgutils.pointer_add(builder, start, builder.mul(column, ir.Constant(column.type, size)))
        v = builder.load(builder.bitcast(at, wide(raw).as_pointer()), align=size)
        if array_type.dtype is types.int16:
            v = builder.zext(v, wide(ir.IntType(32)))
            v = builder.shl(v, ir.Constant(v.type, [16] * lanes if lanes > 1 else 16))
            v = builder.bitcast(v, wide(ir.FloatType()))
        return v if array_type.dtype is types.float64 else builder.fpext(v, wide(ir.DoubleType()))

    return read


@intrinsic
def _value(_, x, i, j):
    """x[i, j] as float64."""

    def codegen(context, builder, signature, args):
        return _emit_row(context, builder, signature.args[0], args[0], args[1])(args[2], 1)

    return types.float64(x, types.intp, types.intp), codegen


@intrinsic
def _leaf(_, x, i, scale, c, j, lo, hi):
    """sum((x[i, lo:hi] * scale - c[j, lo:hi]) ** 2), at most 128 columns, in numpy's order: eight lanes, the rest."""

    def codegen(context, builder, signature, args):
        x, i, scale, c, j, lo, hi = args
        index, lanes8, add = lo.type, ir.VectorType(ir.DoubleType(), 8), builder.fadd
        read_x = _emit_row(context, builder, signature.args[0], x, i)
        read_c = _emit_row(context, builder, signature.args[3], c, j)
        scales = ir.Constant(lanes8, ir.Undefined)
        for n in range(8):
            scales = builder.insert_element(scales, scale, ir.Constant(ir.IntType(32), n))

        def square(column, lanes):
            t = builder.fmul(read_x(column, lanes), scales if lanes > 1 else scale)
            t = builder.fsub(t, read_c(column, lanes))
            return builder.fmul(t, t)

        eight, one = ir.Constant(index, 8), ir.Constant(index, 1)
        whole = builder.add(lo, builder.mul(builder.udiv(builder.sub(hi, lo), eight), eight))
        sums = cgutils.alloca_once_value(builder, ir.Constant(lanes8, [0.0] * 8))
        with cgutils.for_range_slice(builder, lo, whole, eight, index) as (column, _):
            builder.store(add(builder.load(sums), square(column, 8)), sums)
        r = [builder.extract_element(builder.load(sums), ir.Constant(ir.IntType(32), n)) for n in range(8)]
        r = add(add(add(r[0], r[1]), add(r[2], r[3])), add(add(r[4], r[5]), add(r[6], r[7])))
        total = cgutils.alloca_once_value(builder, r)
        with cgutils.for_range_slice(builder, whole, hi, one, index) as (column, _):
            builder.store(add(builder.load(total), square(column, 1)), total)
        return builder.load(total)

    f8, n = types.float64, types.intp
    return f8(x, n, f8, c, n, n, n), codegen


@njit(error_model="numpy", cache=True)
def _distance(x, i, scale, c, j, limit, plan, stack):
    """|x[i] * scale - c[j]|^2 as defined above, or any lower bound of it that has reached `limit`."""
    top, d = 0, 0.0
    for leaf in range(len(plan) - 1):
        d = _leaf(x, i, scale, c, j, plan[leaf, 0], plan[leaf + 1, 0])
        for _ in range(plan[leaf, 1]):
            top -= 1
            d = stack[top] + d
        if d >= limit:
            break
        stack[top] = d
        top += 1
    return d


@njit(parallel=True, error_model="numpy", cache=True)
def _squared_norms(x, zero, plan, stacks):
    out = np.empty(len(x))
    for s in prange(STRIPES):
        stack = stacks[s]
        for i in range(s * len(x) // STRIPES, (s + 1) * len(x) // STRIPES):
            out[i] = _distance(x, i, 1.0, zero, 0, np.inf, plan, stack)
    return out


@njit(parallel=True, error_model="numpy", cache=True)
def _as_float32(x, lo, scale, out):
    for r in prange(len(out)):
        for j in range(x.shape[1]):
            out[r, j] = _value(x, lo + r, j) * scale[lo + r]


@njit(parallel=True, error_model="numpy", cache=True)
def _nearest_labelled(x, lo, scale, c, pairs, m, near, plan, stacks):
    """m and near over the (point, centre) pairs, given as (point - lo) * len(c) + centre, ascending."""
    for s in prange(STRIPES):
        p, end, stack = s * len(pairs) // STRIPES, (s + 1) * len(pairs) // STRIPES, stacks[s]
        while 0 < p < len(pairs) and pairs[p] // len(c) == pairs[p - 1] // len(c):
            p += 1  # this point belongs to the stripe where its pairs begin
        while p < len(pairs) and (p < end or (p > 0 and pairs[p] // len(c) == pairs[p - 1] // len(c))):
            i, j = lo + pairs[p] // len(c), pairs[p] % len(c)
            d = _distance(x, i, scale[i], c, j, m[i], plan, stack)
            if d < m[i]:
                m[i], near[i] = d, j
            p += 1


@njit(error_model="numpy", cache=True)
def _lower(x, scale, c, new, bound, m, near, best, plan, stack, stripe):
    """m, near and best (the farthest point of each block) after centre `new`; returns how many distances it took."""
    todo, total = np.empty(BLOCK, np.int64), 0
    for block in range(stripe, len(best), STRIPES):
        lo, count = block * BLOCK, 0
        hi = min(lo + BLOCK, len(m))
        for i in range(lo, hi):  # collected first, without branches: they would be mispredicted
            todo[count] = i
            count += m[i] > bound[near[i]]
        for i in todo[:count]:
            d = _distance(x, i, scale[i], c, new, m[i], plan, stack)
            if d < m[i]:
                m[i], near[i] = d, new
        far = lo
        for i in range(lo + 1, hi):
            if m[i] > m[far]:
                far = i
        best[block] = far
        total += count
    return total


@njit(parallel=True, error_model="numpy", cache=True)
def _greedy(x, scale, c, known, first, last, m, near, best, indices, squared, computed, plan, stacks):
    """Picks first..last-1. c[:known] are labelled, c[known + t] becomes pick t; computed[0]: points last computed."""
    n, width = x.shape
    bound = np.zeros(len(c))  # m_i can fall only if m_i > bound[near[i]]
    for t in range(first, last):
        new = known + t - 1  # the pick before this one, not yet in m
        if t > 0 and (computed[0] + new < n or t % 16 == 0):
            for s in prange(STRIPES):
                stack = stacks[s]
                for j in range(s, new, STRIPES):
                    d = _distance(c, j, 1.0, c, new, 4.1 * squared[t - 1], plan, stack)
                    bound[j] = d * (0.25 - 2 * (width + 4) * U) if 1e-280 < d < 1e300 else 0.0
        else:
            bound[:] = 0.0
        if t > 0:
            total = 0
            for s in prange(STRIPES):
                total += _lower(x, scale, c, new, bound, m, near, best, plan, stacks[s], s)
            computed[0] = total
        pick = best[0]
        for block in range(len(best)):
            if m[best[block]] > m[pick]:
                pick = best[block]
        indices[t], squared[t] = pick, m[pick]
        m[pick] = -1.0  # picked: never again
        for j in range(width):
            c[known + t, j] = _value(x, pick, j) * scale[pick]


def _pruned(points, centers, k, cosine, progress):
    """The same as `_plain` with what the module docstring says skipped, on all cores."""
    x = points
    if torch.is_tensor(x):
        x = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
    x = x.view(np.uint16) if x.dtype == np.float16 else x
    (n, width), known = x.shape, len(centers)
    plan, stacks = _plan(width), np.empty((STRIPES, 64))
    c = np.zeros((known + k + 1, width))
    c[:known] = centers
    with _compiled, _threads(n * width):
        norms = _squared_norms(x, c[-1:], plan, stacks)
        _refuse_nonfinite(points, norms, "points", cosine)
        scale = 1 / np.sqrt(norms) if cosine else np.ones(n)
        m, near = np.full(n, np.inf), np.zeros(n, np.int32)
        if known:
            norms = np.ones(n) if cosine else np.sqrt(norms)
            _add_labelled(x, scale, norms, c[:known], m, near, plan, stacks, progress)
        best = np.array([lo + m[lo : lo + BLOCK].argmax() for lo in range(0, n, BLOCK)])
        indices, squared, computed = np.empty(k, np.int64), np.empty(k), np.zeros(1, np.int64)
        step = max(1, 10**9 // (n * width))  # picks a call: Ctrl-C and the bar get their turn between calls
        with tqdm(total=k, disable=not progress, desc="k-center") as bar:
            for t in range(0, k, step):
                last = min(t + step, k)
                _greedy(x, scale, c, known, t, last, m, near, best, indices, squared, computed, plan, stacks)
                bar.update(last - t)
    return indices, squared


@contextlib.contextmanager
def _threads(work):
    """One thread for picks too short to share; the caller's setting is put back."""
    before = numba.get_num_threads()
    numba.set_num_threads(before if work >= PARALLEL else 1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _add_labelled(x, scale, norms, c, m, near, plan, stacks, progress):
    """m, near against all labelled centres at once, by hints from a float32 matrix product (docstring, 3)."""
    (n, width), known = x.shape, len(c)
    c_norms = np.sqrt((c**2).sum(1))
    peak = max(norms.max(), c_norms.max())
    usable = 1e-140 < peak < 1e140  # else the hints stay 0 and everything is computed
    peak = peak if usable else 1.0
    norms, top = norms / peak, c_norms.max() / peak
    slack = (width + 16) * (2.0**-21 * top * (2 * norms + top) + 2.0**-48 * (norms + top) ** 2) + 1e-30
    slack = slack.astype(np.float32) if usable else np.ones(n, np.float32)
    to_unit = scale / peak
    weights = np.vstack([-2 * (c / peak).T, (c_norms / peak) ** 2]).astype(np.float32)  # (C + 1, L)
    rows = min(n, max(256, 2**20 // (width + known)))
    a, hints = np.ones((rows, width + 1), np.float32), np.zeros((rows, known), np.float32)
    for lo in tqdm(range(0, n, rows), disable=not progress, desc="labelled centres"):
        r = min(rows, n - lo)
        if usable:
            _as_float32(x, lo, to_unit, a[:r])
            np.matmul(a[:r], weights, out=hints[:r])
        close = hints[:r] <= (hints[:r].min(1) + slack[lo : lo + r])[:, None]
        _nearest_labelled(x, lo, scale, c, np.flatnonzero(close), m, near, plan, stacks)


# CUDA, MPS: unpruned, bounded by reading the points. ----------------------------------------------------------------


def _running_minimum(points, centers, k, cosine, progress, wide=None):
    """Reads every point once a pick for a lower bound of its distance, and computes the defined distance only where the
    bound (off by `away` and `shrink`: rounding of inputs and of sums) lies under m. MPS has no float64: its bound is
    float32, and the few rows to compute go to the CPU."""
    points = torch.as_tensor(points)
    (n, width), known, device = points.shape, len(centers), points.device
    exact = torch.device("cpu") if device.type == "mps" else device
    wide = wide or (torch.float64 if device == exact else torch.float32)
    compiled = device.type == "cuda" and n * width * (known + k) > 2**32 and _can_compile()
    may_fall = torch.compile(_may_fall) if compiled else _may_fall  # one fused read of the points
    rows = max(1, 2**22 // width)

    norms = torch.cat([_pairwise(part.to(exact).double() ** 2) for part in points.split(rows)] or [torch.empty(0)])
    _refuse_nonfinite(points, norms.cpu().numpy(), "points", cosine)
    scale = 1 / norms.sqrt() if cosine else torch.ones_like(norms)  # (N,)
    peak = 1.0 if cosine else float(norms.max().sqrt())
    scale_wide, centers = scale.to(device, wide), torch.from_numpy(centers).to(exact)
    # float16 values are multiples of 2^-24: sums of squares below 2^5 are exact in float64, so their order is free.
    grid = points.dtype == torch.float16 and not cosine and peak**2 < 8 and (centers * 2.0**24 % 1 == 0).all()
    grid = grid and (centers**2).sum(1).lt(8).all()

    m = torch.full((n,), torch.inf, dtype=torch.float64, device=exact)
    root = torch.full((n,), torch.inf, dtype=wide, device=device)  # sqrt(m), rounded up; -inf once m can fall no more
    u = torch.finfo(wide).eps
    shrink = torch.tensor(1 - (width + 8) * u, dtype=wide, device=device)
    indices, squared = np.empty(k, np.int64), np.empty(k)
    for t in tqdm(range(-known, k), disable=not progress, desc="k-center"):
        if t < 0:
            c = centers[t]
        else:
            i = indices[t] = int(m.argmax())
            squared[t] = m[i]
            c = points[i].to(exact).double() * scale[i]
            m[i], root[i] = -1, -torch.inf  # picked: never again
        away = (2 * u * (c.norm() + peak) + (1e-18 if wide == torch.float32 else 1e-150)).to(device, wide)
        c_wide = c.to(device, wide)
        for lo in range(0, n, n if compiled else rows):
            part = slice(lo, n if compiled else lo + rows)
            mask = may_fall(points[part], scale_wide[part], c_wide, root[part], shrink, away)
            for fell in (mask.nonzero().squeeze(1) + lo).split(rows):
                at = fell.to(exact)
                d = (points[fell].to(exact).double() * scale[at, None] - c) ** 2
                m[at] = torch.minimum(m[at], d.sum(1) if grid else _pairwise(d))
                root[fell] = torch.where(m[at] > 0, m[at].sqrt() * (1 + 4 * u), -torch.inf).to(device, wide)
    return indices, squared


def _may_fall(x, scale, c, root, shrink, away):
    """Whether each row's distance to c might be under `root`. (n, C) -> (n,) bool. NaN and overflow: it might."""
    d = ((x.to(c.dtype) * scale[:, None] - c) ** 2).sum(1).sqrt()
    return ~(d * shrink - away >= root) | d.isinf()


def _pairwise(squares):
    """(n, C) float64 -> (n,): the row sums in numpy's order."""
    n = squares.shape[1]
    if n > 128:
        left = n // 2 - n // 2 % 8
        return _pairwise(squares[:, :left]) + _pairwise(squares[:, left:])
    whole, total = n - n % 8, 0.0
    if whole:
        lanes = squares[:, :8]
        for lo in range(8, whole, 8):
            lanes = lanes + squares[:, lo : lo + 8]
        for _ in range(3):
            lanes = lanes[:, 0::2] + lanes[:, 1::2]
        total = lanes[:, 0]
    for j in range(whole, n):
        total = total + squares[:, j]
    return total


def _can_compile():
    """torch.compile on CUDA needs triton and a C compiler."""
    return bool(importlib.util.find_spec("triton")) and any(map(shutil.which, ("cc", "gcc", "clang")))
