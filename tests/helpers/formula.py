"""Attention and Philox as formulas: NumPy and Python integers, loops, float64.

`hw3tf.reference` is the judge of the kernels, and this is the judge of the reference,
with which it shares no line.
"""

import numpy as np


def attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    attn_logits_soft_cap=None,
    *,
    query_mask=None,
    key_mask=None,
    query_lengths=None,
    key_lengths=None,
    sliding_window=None,
    keep=None,
    dropout_rate=0.0,
):
    """(output, logsumexp, scores) in float64, one query at a time.

    `keep`: the boolean array of the weights that dropout keeps.
    """
    query, key, value = (np.asarray(x, "float64") for x in (query, key, value))
    batch, query_length, heads, size = query.shape
    key_length, kv_heads = key.shape[1:3]
    whole = (batch, heads, query_length, key_length)
    bias = np.broadcast_to(0.0 if bias is None else bias, whole)
    mask = np.broadcast_to(True if mask is None else mask, whole).astype(bool)
    scale = 1 / np.sqrt(size) if scale is None else scale
    output = np.zeros((batch, query_length, heads, value.shape[3]))
    logsumexp = np.zeros(whole[:3])
    scores = np.zeros(whole)

    def sees(b, n, t, s):
        return (
            mask[b, n, t, s]
            and (not is_causal or s <= t)
            and (sliding_window is None or -sliding_window < t - s < sliding_window)
            and (query_mask is None or query_mask[b, t])
            and (key_mask is None or key_mask[b, s])
            and (query_lengths is None or t < query_lengths[b])
            and (key_lengths is None or s < key_lengths[b])
        )

    for b, n, t in np.ndindex(*whole[:3]):
        head = n // (heads // kv_heads)
        seen = [s for s in range(key_length) if sees(b, n, t, s)]
        if not seen:
            output[b, t, n] = value[b, :, head].mean(axis=0)
            logsumexp[b, n, t] = -np.inf
            scores[b, n, t] = 1 / key_length
            continue
        x = scale * key[b, seen, head] @ query[b, t, n]
        if attn_logits_soft_cap is not None:
            x = attn_logits_soft_cap * np.tanh(x / attn_logits_soft_cap)
        x = x + bias[b, n, t, seen]
        weights = np.exp(x - x.max())
        logsumexp[b, n, t] = x.max() + np.log(weights.sum())
        weights = weights / weights.sum()
        scores[b, n, t, seen] = weights
        if keep is not None:
            weights = weights * keep[b, n, t, seen] / (1 - dropout_rate)
        output[b, t, n] = weights @ value[b, seen, head]
    return output, logsumexp, scores


def philox(counter, key):
    """Philox4x32-10 on Python integers: four words."""
    counter, key, word = list(counter), list(key), 2**32
    for _ in range(10):
        product0, product1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            product1 // word ^ counter[1] ^ key[0],
            product1 % word,
            product0 // word ^ counter[3] ^ key[1],
            product0 % word,
        ]
        key = [(key[0] + 0x9E3779B9) % word, (key[1] + 0xBB67AE85) % word]
    return counter


def dropout_mask(batch, heads, query_length, key_length, rate, seed):
    """The weights that dropout keeps, one at a time."""
    keep = np.zeros((batch, heads, query_length, key_length), bool)
    seed %= 2**64
    for b, n, t, s in np.ndindex(*keep.shape):
        words = philox((s // 4, t, n, b), (seed % 2**32, seed // 2**32))
        keep[b, n, t, s] = words[s % 4] >= int(rate * 2**32 + 0.5)
    return keep
