"""The attention weights that dropout keeps, in pure Keras."""

from keras import backend, ops

from hw3tf._types import Tensor

# Philox4x32-10; csrc/kernels/attention/dropout.h is the same in C++.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SIGN = 0x80000000


def attention_dropout_mask(
    batch_size: int | Tensor,
    num_heads: int | Tensor,
    query_length: int | Tensor,
    key_length: int | Tensor,
    rate: float,
    seed: int | Tensor,
) -> Tensor:
    """The attention weights that dropout keeps.

    The mask depends on its arguments alone, and is bit for bit that of the kernels:
    `(seed, batch entry, head, query, key)` decides whether a weight is kept. The
    generator is Philox4x32-10 with the key `(seed % 2**32, seed // 2**32)` and
    the counter `(key // 4, query, head, batch entry)`; word `key % 4` of the
    four keeps its weight if it is at least `rate * 2**32`.

    Args:
        batch_size, num_heads, query_length, key_length: Integers or scalar
            integer tensors.
        rate: Number from 0 to 1, exclusive: the share that is dropped.
        seed: Integer from `-2**63` to `2**64 - 1` or scalar integer tensor; a
            negative one counts as the unsigned one of the same 64 bits.

    Returns:
        Boolean tensor of shape `(batch_size, num_heads, query_length,
        key_length)`, `True` where the weight is kept.

    Example:

    >>> keep = attention_dropout_mask(2, 4, 100, 100, rate=0.3, seed=1)
    >>> round(float(ops.mean(ops.cast(keep, "float32"))), 2)
    0.7

    Reference:
        - [Salmon et al., 2011](https://doi.org/10.1145/2063384.2063405)
    """
    groups = (key_length + 3) // 4
    words = philox(
        (
            ops.arange(groups, dtype="int32"),
            ops.arange(query_length, dtype="int32")[:, None],
            ops.arange(num_heads, dtype="int32")[:, None, None],
            ops.arange(batch_size, dtype="int32")[:, None, None, None],
        ),
        _halves(seed),
    )
    bits = ops.reshape(
        ops.stack(words, axis=-1), (batch_size, num_heads, query_length, groups * 4)
    )
    # Words are unsigned, int32 is signed: flipping the highest bit makes them
    # comparable.
    threshold = min(int(rate * 2**32 + 0.5), 2**32 - 1)
    keep = ops.bitwise_xor(bits, _int32(_SIGN)) >= _int32(threshold ^ _SIGN)
    return keep[..., :key_length]


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32: four random words from a counter and a key.

    Args:
        counter: Four int32 tensors that broadcast to each other.
        key: Two scalar int32 tensors.

    Returns:
        Four int32 tensors, to be read as unsigned.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0 = ops.bitwise_xor(ops.bitwise_xor(high1, c1), k0)
        c2 = ops.bitwise_xor(ops.bitwise_xor(high0, c3), k1)
        c1, c3 = low1, low0
        k0, k1 = k0 + _int32(_WEYL[0]), k1 + _int32(_WEYL[1])
    return c0, c1, c2, c3


def _multiply(x: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of the 64 bits of `x * multiplier`.

    int32 is what every backend multiplies modulo 2**32, XLA included; the high
    word comes from products of halves, which do not overflow 32 bits.
    """
    x_low, x_high = _low_half(x), _high_half(x)
    m_low, m_high = multiplier & 0xFFFF, multiplier >> 16
    middle = x_high * m_low + _high_half(x_low * m_low)
    other = x_low * m_high + _low_half(middle)
    high = x_high * m_high + _high_half(middle) + _high_half(other)
    return high, x * _int32(multiplier)


def _low_half(x: Tensor) -> Tensor:
    return ops.bitwise_and(x, _int32(0xFFFF))


def _high_half(x: Tensor) -> Tensor:
    # The shift copies the sign; the mask takes the copies away.
    return ops.bitwise_and(ops.right_shift(x, _int32(16)), _int32(0xFFFF))


def _int32(word: int) -> Tensor:
    """The int32 tensor with the bits of an unsigned 32-bit Python integer."""
    return ops.convert_to_tensor(word - 2**32 if word >= 2**31 else word, "int32")


def words_of_seed(seed: int | Tensor) -> Tensor:
    """The low and the high 32 bits of a 64-bit seed, as an int32 tensor of shape
    `(2,)`, which counts as a seed, too."""
    return ops.stack(_halves(seed))


def _halves(seed: int | Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high 32 bits of a 64-bit seed, as int32 tensors."""
    if isinstance(seed, int):
        return _int32(seed % 2**32), _int32((seed >> 32) % 2**32)
    seed = ops.convert_to_tensor(seed)
    if seed.shape == (2,):
        words = ops.cast(seed, "int32")
        return words[0], words[1]
    dtype = backend.standardize_dtype(seed.dtype)
    if dtype in ("int64", "uint64"):
        seed = ops.cast(seed, "int64")
        high = ops.right_shift(seed, ops.cast(32, "int64"))
    elif dtype.startswith("u"):
        high = ops.zeros_like(seed)
    else:
        seed = ops.cast(seed, "int32")
        high = ops.right_shift(seed, _int32(31))  # 0, or -1 for a negative seed
    return ops.cast(seed, "int32"), ops.cast(high, "int32")
