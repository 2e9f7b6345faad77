"""Attention with every option as a formula in NumPy: the judge of `hw3tf._core`,
which takes and returns NumPy arrays, too."""

import numpy as np

from hw3tf import _core


def visible(shape, options):
    """(B, N, T, S), True where a query sees a key."""
    t, s = np.arange(shape[2])[:, None], np.arange(shape[3])
    see = np.ones(shape, bool)
    if options.get("is_causal"):
        see &= s <= t
    if options.get("window_before", -1) >= 0:
        see &= s >= t - options["window_before"]
    if options.get("window_after", -1) >= 0:
        see &= s <= t + options["window_after"]
    if options.get("mask") is not None:
        see &= options["mask"]
    if options.get("query_mask") is not None:
        see &= options["query_mask"][:, None, :, None]
    if options.get("key_mask") is not None:
        see &= options["key_mask"][:, None, None, :]
    if options.get("query_lengths") is not None:
        see &= t < options["query_lengths"][:, None, None, None]
    if options.get("key_lengths") is not None:
        see &= s < options["key_lengths"][:, None, None, None]
    return see


def dropout_factors(shape, options):
    """(B, N, T, S): 0 where a weight is dropped, else 1 / (1 - rate)."""
    if "dropout_factors" in options:
        return options["dropout_factors"]
    rate, seed = options.get("dropout_rate", 0.0), options.get("dropout_seed", 0)
    return _core.attention_dropout_mask(shape, rate=rate, seed=seed) / (1 - rate)


def sum_to(x, shape):
    """The gradient of a broadcast from `shape`."""
    shape = (1,) * (x.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return x.sum(axes, keepdims=True)


def compute_type(dtype, exactly):
    """float32, or float64 for float64; `exactly`, the next wider type."""
    if dtype == "float64":
        return np.longdouble if exactly else np.float64
    return np.float64 if exactly else np.float32


def attention(
    query, key, value, grad_output, grad_logsumexp=None, *, exactly=True, **options
):
    """[output, logsumexp, grad_query, grad_key, grad_value, grad_bias].

    `exactly`: in a wider type than the kernel's. Otherwise in the kernel's type, with
    the kernel's roundings; the error of that result is the bound of the kernel's.
    """
    dtype, wide = query.dtype, compute_type(query.dtype, exactly)

    def rounded(x):
        return x if exactly else x.astype(dtype).astype(wide)

    q, k, v, g = (x.astype(wide) for x in (query, key, value, grad_output))
    groups = q.shape[2] // k.shape[2]
    k, v = (np.repeat(x, groups, axis=2) for x in (k, v))
    scale, cap = wide(options["scale"]), wide(options.get("soft_cap", 0.0))
    z = scale * np.einsum("btnh,bsnh->bnts", q, k)
    slope = np.ones_like(z)
    if cap:
        slope = 1 - np.tanh(z / cap) ** 2
        z = cap * np.tanh(z / cap)
    bias = options.get("bias")
    if bias is not None:
        z = z + bias
    see = visible(z.shape, options)
    sees = see.any(-1, keepdims=True)
    z = np.where(see, z, wide(-np.inf))
    top = np.where(sees, z.max(-1, keepdims=True), wide(0))
    e = np.exp(z - top)
    total = e.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        logsumexp = (top + np.log(total))[..., 0]
    p = np.where(sees, e / np.where(sees, total, 1), 1 / wide(k.shape[1]))
    kept = np.where(sees, dropout_factors(z.shape, options), 1.0).astype(wide)
    output = rounded(np.einsum("bnts,bsnv->btnv", p * kept, v))

    dp = kept * np.einsum("btnv,bsnv->bnts", g, v)
    dz = dp - np.einsum("btnv,btnv->bnt", g, output)[..., None]
    if grad_logsumexp is not None:
        dz = dz + grad_logsumexp[..., None]
    dz = np.where(sees, p * dz, wide(0))
    dx = scale * slope * dz

    def grouped(x):
        return x.reshape(*x.shape[:2], -1, groups, x.shape[-1]).sum(3)

    return [
        output,
        logsumexp,
        rounded(np.einsum("bnts,bsnh->btnh", dx, k)),
        rounded(grouped(np.einsum("bnts,btnh->bsnh", dx, q))),
        rounded(grouped(np.einsum("bnts,btnv->bsnv", p * kept, g))),
        None if bias is None else sum_to(dz, bias.shape).reshape(bias.shape),
    ]


def cut(x, b, queries, keys):
    """The index of what belongs to sequence `b` in a bias or a mask."""
    batch = slice(b, b + 1) if x.shape[0] > 1 else slice(None)
    return batch, slice(None), slice(queries), slice(keys)


def packed_attention(
    query, key, value, grad_output, grad_logsumexp, query_splits, key_splits, **options
):
    """The same of packed sequences, one after the other."""
    total = [np.zeros(grad_output.shape), np.zeros(grad_logsumexp.shape)]
    total += [np.zeros(x.shape) for x in (query, key, value)]
    bias, mask = options.pop("bias", None), options.pop("mask", None)
    total.append(None if bias is None else np.zeros(bias.shape))
    lengths = np.diff(query_splits), np.diff(key_splits)
    scores = (len(lengths[0]), query.shape[1], *(x.max(initial=0) for x in lengths))
    factors = dropout_factors(scores, options)
    for b, (queries, keys) in enumerate(zip(*lengths, strict=True)):
        q = slice(query_splits[b], query_splits[b + 1])
        k = slice(key_splits[b], key_splits[b + 1])
        if keys == 0:
            total[1][:, q] = -np.inf
        if keys == 0 or queries == 0:
            continue
        own = {**options, "dropout_factors": factors[cut(factors, b, queries, keys)]}
        for name, x in (("bias", bias), ("mask", mask)):
            own[name] = None if x is None else x[cut(x, b, queries, keys)]
        results = attention(
            query[None, q],
            key[None, k],
            value[None, k],
            grad_output[None, q],
            grad_logsumexp[None, :, q],
            **own,
        )
        total[0][q], total[1][:, q] = results[0][0], results[1][0]
        total[2][q], total[3][k], total[4][k] = (x[0] for x in results[2:5])
        if bias is not None:
            total[5][cut(bias, b, queries, keys)] += results[5]
    return total
