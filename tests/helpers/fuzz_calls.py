"""Random calls for fuzz_ops.py: valid ones, and those of a hostile caller."""

import ml_dtypes
import numpy as np

FLOATS = ("float32", "float64", "float16", ml_dtypes.bfloat16)
DTYPES = (*FLOATS, "int8", "uint8", "int32", "int64", "uint64", "bool", "complex64")
DTYPES = (*DTYPES, ">f4", "longdouble", "object", "U3", "V2", "datetime64[s]")
# Refused as lengths, and as sizes more than any memory holds.
HUGE = (2**32 + 1, *(2**n for n in (31, *range(40, 63))), 2**63 - 1)
INTEGERS = (-(2**64), -(2**63), -(2**31), -2, -1, 0, 1, 3, 7, *HUGE, 2**63, 2**64)
REALS = (-1e300, -1.0, -0.1, 0.0, 1e-60, 0.5, 1.0, 1.5, 1e300)
REALS = (*REALS, float("inf"), float("-inf"), float("nan"))
NO_ARRAYS = (None, (), [], [[1.0], [2.0, 3.0]], "x", b"x", 1.5, object(), {}, True)


class Random:
    """Choices of a seed."""

    def __init__(self, seed):
        self.numpy = np.random.default_rng(seed)

    def below(self, count):
        return int(self.numpy.integers(count))

    def one_in(self, count):
        return self.below(count) == 0

    def of(self, choices):
        return choices[self.below(len(choices))]

    def size(self, most):
        """From 1 on; small ones are as likely as large ones."""
        return int((most + 0.999) ** self.numpy.random())

    def normal(self, *shape, dtype="float32"):
        return self.numpy.standard_normal(shape).astype(dtype)

    def bools(self, *shape):
        return self.numpy.random(shape) < self.of((0.1, 0.5, 0.9))


def real_of(dtype):
    return "float64" if dtype == "float64" else "float32"


def broadcasting(random, whole):
    shape = [n if random.one_in(2) else 1 for n in whole]
    return shape[random.below(4) :]


def add_options(random, call, whole, dtype):
    """Bias, mask, causality, window, soft cap, dropout: each one call in three."""
    if random.one_in(3):
        shape = broadcasting(random, whole)
        call["bias"] = random.normal(*shape, dtype=real_of(dtype))
    if random.one_in(3):
        call["mask"] = random.bools(*broadcasting(random, whole))
    if random.one_in(3):
        call["is_causal"] = True
    if random.one_in(3):
        call["window_before"] = random.below(9) - 1
        call["window_after"] = random.below(9) - 1
    if random.one_in(3):
        call["soft_cap"] = random.of((0.5, 3.0))
    if random.one_in(3):
        call["dropout_rate"] = random.of((0.1, 0.5))
        call["dropout_seed"] = random.below(2**62)


def make_call(random, packed):
    """The keywords of `hw3tf._core.attention_forward` for a call that is valid."""
    dtype = random.of(FLOATS)
    batch, kv_heads, group = random.size(3), random.size(2), random.size(3)
    lengths = [random.size(40), random.size(40)]
    rows, splits = [[batch, n] for n in lengths], []
    if packed:
        for i in range(2):
            cuts = random.numpy.integers(lengths[i] + 1, size=batch - 1)
            cuts = np.array([0, *sorted(cuts), lengths[i]], "int64")
            splits.append(cuts)
            rows[i], lengths[i] = [lengths[i]], int(np.diff(cuts).max())
    heads, size, value_dim = kv_heads * group, random.size(20), random.size(20)
    call = {
        "query": random.normal(*rows[0], heads, size, dtype=dtype),
        "key": random.normal(*rows[1], kv_heads, size, dtype=dtype),
        "value": random.normal(*rows[1], kv_heads, value_dim, dtype=dtype),
        "scale": random.of((1.0, -0.3, 0.0, size**-0.5)),
    }
    add_options(random, call, (batch, heads, *lengths), dtype)
    if packed:
        return call | {"query_splits": splits[0], "key_splits": splits[1]}
    for name, length in zip(("query", "key"), lengths, strict=True):
        if random.one_in(4):
            call[f"{name}_mask"] = random.bools(batch, length)
        if random.one_in(4):
            numbers = random.numpy.integers(length + 1, size=batch, dtype="int32")
            call[f"{name}_lengths"] = numbers
    return call


def make_recurrence(random):
    """The keywords of `hw3tf._core.integer_rnn` for a call that is valid."""
    state = random.of(("int32", "int64"))
    weight = "int8" if state == "int32" and random.one_in(2) else state
    wide = ("int64",) if state == "int64" else ()
    given = random.of(("bool", "int8", "uint8", "int16", "int32", *wide))
    batch, timesteps = random.below(4), random.below(9)
    features, units = random.size(4), random.size(5)

    def integers(dtype, *shape):
        most = random.of((1, 3, 100, 2**62))
        info = None if dtype == "bool" else np.iinfo(dtype)
        low, high = (0, 1) if info is None else (info.min, info.max)
        low, high = max(low, -most), min(high, most)
        return random.numpy.integers(low, high, shape, "int64", True).astype(dtype)

    call = {
        "inputs": integers(given, batch, timesteps, features),
        "kernel": integers(weight, features, units),
        "recurrent_kernel": integers(weight, units, units),
        "activation": random.of(("none", "relu", "sign", "clip")),
        "overflow": random.of(("raise", "wrap", "saturate")),
        "clip_low": -random.below(50),
        "clip_high": random.below(50),
        "reverse": random.one_in(2),
        "return_sequences": random.one_in(2),
        "fractional_bits": random.of((0, 0, 0, 1, 8)),
    }
    if random.one_in(2):
        call["bias"] = integers(state, units)
    if random.one_in(2):
        call["initial_state"] = integers(state, batch, units)
    if random.one_in(3):
        call["mask"] = random.bools(batch, timesteps)
    return call


RNN_GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}
ACTIVATIONS = ("tanh", "sigmoid", "relu", "linear", "hard_sigmoid")


def make_rnn(random):
    """A recurrent cell, and the keywords of its forward function in `hw3tf._core` for a
    call that is valid."""
    cell, dtype = random.of(sorted(RNN_GATES)), random.of(FLOATS)
    batch, timesteps = random.below(12), random.size(12)
    features, units = random.size(20), random.size(40)
    gates = RNN_GATES[cell]

    def weights(*shape):
        return (random.numpy.standard_normal(shape) / shape[0] ** 0.5).astype(dtype)

    call = {
        "inputs": random.normal(batch, timesteps, features, dtype=dtype),
        "kernel": weights(features, gates * units),
        "recurrent_kernel": weights(units, gates * units),
        "activation": random.of(ACTIVATIONS),
        "reverse": random.one_in(2),
        "return_sequences": random.one_in(2),
        "zero_output_for_mask": random.one_in(2),
    }
    shapes = {"bias": (gates * units,), "initial_h": (batch, units)}
    if cell != "simple_rnn":
        call["recurrent_activation"] = random.of(ACTIVATIONS)
    if cell == "lstm":
        shapes["initial_c"] = (batch, units)
    if cell == "gru":
        call["reset_after"] = random.one_in(2)
        if call["reset_after"]:
            shapes["recurrent_bias"] = (gates * units,)
    first = random.of((1, gates))
    shapes["input_dropout"] = (first, batch, features)
    shapes["recurrent_dropout"] = (random.of((1, gates)), batch, units)
    for name, shape in shapes.items():
        if random.one_in(2):
            call[name] = random.normal(*shape, dtype=dtype)
    if random.one_in(3):
        call["mask"] = random.bools(batch, timesteps)
    if random.one_in(3):
        numbers = random.numpy.integers(timesteps + 1, size=batch, dtype="int32")
        call["lengths"] = numbers
    return cell, call


def of_shape(shape, dtype):
    """Zeros in a few bytes; None where NumPy has no such array."""
    try:
        return np.broadcast_to(np.zeros((), dtype), shape)
    except (ValueError, OverflowError):
        return None


def other_shape(random, x):
    """An axis less, an axis more, another size, at times a huge one beside a 0."""
    shape, axis = list(x.shape), random.below(x.ndim or 1)
    kind = random.below(6)
    if kind == 0 and shape:
        del shape[axis]
    elif kind == 1:
        shape.insert(axis, random.of((0, 1, 2)))
    elif kind == 2 and shape:
        shape[axis] = random.of((0, shape[axis] + 1, max(0, shape[axis] - 1)))
    elif kind == 3 and shape:
        shape[axis] = random.of(HUGE)
    elif kind == 4 and len(shape) > 1:
        shape[axis], shape[axis - 1] = 0, random.of(HUGE)
    else:
        random.numpy.shuffle(shape)
    return of_shape(shape, x.dtype)


def other_layout(random, x):
    """The same kind of array, read through strides that few arrays have."""
    if x.ndim == 0:
        return x
    kind = random.below(6)
    if kind == 0:
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if kind == 1:
        return np.flip(x, random.below(x.ndim))
    if kind == 2:
        return np.asfortranarray(x)
    if kind == 3:
        return x.swapaxes(0, random.below(x.ndim))
    if kind == 4:
        return np.broadcast_to(x[:1], x.shape) if x.shape[0] else x
    if x.dtype.hasobject:  # no bytes are an object
        return x
    memory = bytearray(x.nbytes + 1)
    return np.frombuffer(memory, x.dtype, x.size, 1).reshape(x.shape)


def other_values(random, x):
    """Numbers that are not meant: NaN in floats, any integer in lengths and splits."""
    x = x.copy()
    if not x.size:
        return x
    at = random.below(x.size)
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        near = random.of((-1, 0, 1, 5, 41, info.min, info.max, info.max // 2))
        x.flat[at] = max(info.min, min(near, info.max))
        if random.one_in(2):
            random.numpy.shuffle(x.reshape(-1))
    elif x.dtype.kind == "b":
        x[...] = random.one_in(2)
    elif x.dtype in [np.dtype(name) for name in FLOATS]:
        x.flat[at] = random.of((np.nan, np.inf, -np.inf, 6e4, 1e-5))
    return x


def other_dtype(random, x):
    if max(x.shape, default=0) > 10**6:  # also beside a 0, for NumPy
        return x
    return np.zeros(x.shape, random.of(DTYPES))


def spoil(random, call):
    """Changes one thing of a call, in place; returns its name."""
    name = random.of(sorted(call))
    x = call[name]
    if isinstance(x, np.ndarray):
        if random.one_in(12):
            call[name] = random.of(NO_ARRAYS)
            return name
        change = (other_shape, other_shape, other_layout, other_values, other_dtype)
        if x.size > 10**6:  # it is in a few bytes, its copy would not be
            change = (other_shape,)
        changed = random.of(change)(random, x)
        if changed is not None:
            call[name] = changed
    elif isinstance(x, bool):
        call[name] = random.of((None, 2, "yes", 1.5))
    elif isinstance(x, str):
        call[name] = random.of(("", "none\0", "x" * 1000, None, 3))
    elif random.one_in(8):
        call[name] = random.of(NO_ARRAYS)
    elif isinstance(x, int):
        call[name] = random.of(INTEGERS)
    else:
        call[name] = random.of(REALS)
    return name


def spoiled(random, call):
    """Up to three things changed, or some option added that was not there."""
    extras = {
        "window_before": INTEGERS,
        "window_after": INTEGERS,
        "soft_cap": REALS,
        "dropout_rate": REALS,
        "key_splits": (np.array([0, 2**63 - 1, 3]), np.array([], "int64")),
        "query_splits": (np.array([0, 5, 3]), np.zeros(1, "int64")),
        "key_lengths": (np.array([41], "int32"), np.array([-1, 2], "int32")),
    }
    for _ in range(1 + random.below(3)):
        if "query" in call and random.one_in(4):
            name = random.of(sorted(extras))
            call[name] = random.of(extras[name])
        else:
            spoil(random, call)
    return call
