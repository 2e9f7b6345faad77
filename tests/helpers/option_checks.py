"""The judge of calls with options: output, logsumexp and every gradient."""

import keras
import numpy as np
import tensorflow as tf

from hw3tf import ops, reference

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}
EPS["bfloat16"] = 2.0**-7


def make_arrays(rng, batch, query_length, key_length, heads, kv_heads, size, value_dim):
    """Standard normal float64 arrays: what goes into a call and its gradient."""
    shapes = {
        "query": (batch, query_length, heads, size),
        "key": (batch, key_length, kv_heads, size),
        "value": (batch, key_length, kv_heads, value_dim),
        "grad_output": (batch, query_length, heads, value_dim),
        "grad_logsumexp": (batch, heads, query_length),
    }
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def real(dtype):
    return "float64" if dtype == "float64" else "float32"


def scores_shape(arrays):
    batch, query_length, heads, _ = arrays["query"].shape
    return batch, heads, query_length, arrays["key"].shape[1]


def run(function, arrays, dtype, options, graph=False, jit_compile=None):
    """Dict of float64 arrays: the results of `function` and its gradients.

    Args:
        arrays: As `make_arrays` returns them, with `bias` if there is one;
            without `grad_logsumexp` none is asked for.
        dtype: Of query, key and value; the bias stays in that of `real`.
        options: Keyword arguments; those that are arrays enter a graph with
            unknown sizes, except those of 1.
        graph: Whether to run in a `tf.function` of unknown sizes.
        jit_compile: Of that `tf.function`.
    """
    inputs = ["query", "key", "value"] + ["bias"] * ("bias" in arrays)
    logsumexp = "grad_logsumexp" in arrays
    tensors = {
        n: tf.cast(x, real(dtype) if n in ("bias", "grad_logsumexp") else dtype)
        for n, x in arrays.items()
    }
    tensors |= {n: tf.constant(x) for n, x in options.items() if np.ndim(x)}
    numbers = {n: x for n, x in options.items() if not np.ndim(x)}
    if logsumexp:
        numbers["return_logsumexp"] = True

    def compute(tensors):
        given = {n: x for n, x in tensors.items() if not n.startswith("grad_")}
        with tf.GradientTape() as tape:
            tape.watch([given[n] for n in inputs])
            results = function(**given, **numbers)
        results = list(results) if logsumexp else [results]
        weights = [
            tensors[n] for n in ("grad_output", "grad_logsumexp") if n in tensors
        ]
        grads = tape.gradient(
            results, [given[n] for n in inputs], output_gradients=weights
        )
        names = ["output"] + ["logsumexp"] * logsumexp
        names += [f"grad_{n}" for n in inputs]
        return dict(zip(names, [*results, *grads], strict=True))

    if graph:
        spec = {
            n: tf.TensorSpec(unknown(n, x), x.dtype, name=n) for n, x in tensors.items()
        }
        # Autograph, which would only read these functions, takes as long as the rest.
        compute = tf.function(
            compute, input_signature=[spec], autograph=False, jit_compile=jit_compile
        )
    results = compute(tensors)
    for name, x in results.items():
        wide = name in ("logsumexp", "grad_bias")
        assert x.dtype == (real(dtype) if wide else dtype), name
    return {n: tf.cast(x, "float64").numpy() for n, x in results.items()}


def unknown(name, x):
    """The shape of `x` with every size unknown that may be: heads, sizes of heads
    and sizes of 1 are known."""
    if name in ("query", "key", "value", "grad_output"):
        return [None, None, *x.shape[2:]]
    return [size if size == 1 else None for size in x.shape]


def keras_attention(query, key, value, bias=None, **options):
    """Keras's own, given the masks in all their forms as one."""
    scale = options.pop("scale", None)
    mask = reference.visible_keys(
        tf.zeros((query.shape[0], query.shape[2], query.shape[1], key.shape[1])),
        **options,
    )
    return keras.ops.dot_product_attention(query, key, value, bias, mask, scale)


def assert_threads_change_no_bit(arrays, dtype, options, threads=(1, 2, 5, 1)):
    """Results and gradients are the same with every number of threads."""
    results = []
    try:
        for number in threads:
            ops.set_num_threads(number)
            results.append(run(ops.dot_product_attention, arrays, dtype, options))
    finally:
        ops.set_num_threads(0)
    for other in results[1:]:
        for name, x in results[0].items():
            np.testing.assert_array_equal(x, other[name], name)


def plain_attention(arrays, options):
    """The attention to compare with: Keras's own if it can, else the reference, which
    is the same arithmetic. Keras knows no dropout, cap and logsumexp, refuses one
    key/value head for many query heads, and warns of a single key."""
    (_, keys, kv_heads, _), heads = arrays["key"].shape, arrays["query"].shape[2]
    own = keys > 1 and (kv_heads > 1 or heads == 1) and "grad_logsumexp" not in arrays
    if own and not {"dropout_rate", "attn_logits_soft_cap"} & set(options):
        return keras_attention
    return reference.dot_product_attention


def rounded(arrays, dtype):
    """The arrays rounded to `dtype`, as all implementations get them."""
    return {
        n: x if n == "grad_logsumexp" else tf.cast(tf.cast(x, dtype), "float64").numpy()
        for n, x in arrays.items()
    }


def with_rounded_output(arrays, rounding, options):
    """The gradients, in float64, of a backward pass that has the output only as
    it was returned: rounded.

    It subtracts `sum(output * grad_output)` of every query; what the `rounding`
    (exact output minus output) takes off that sum comes out as a gradient of the
    logsumexp would. Every fused attention has this error, and Keras, which keeps
    the weights, has not. It shows where the exact gradient is zero: of a bias
    that is the same for all keys, or for a query that sees one key only.
    """
    shift = np.moveaxis(np.sum(rounding * arrays["grad_output"], axis=-1), 2, 1)
    shift += arrays.get("grad_logsumexp", 0.0)
    shifted = {**arrays, "grad_logsumexp": shift}
    return run(reference.dot_product_attention, shifted, "float64", options)


def check(
    arrays, dtype="float32", options=None, graph=False, terms=1.0, jit_compile=None
):
    """Asserts that `hw3tf.ops.dot_product_attention` is as exact as Keras.

    The judge is the reference in float64. The error may be twice that of Keras
    in the same dtype (`plain_attention`) or, of gradients, twice that which the
    rounding of the output to the dtype causes (`with_rounded_output`), plus a few
    units in the last place, for where Keras happens to hit the exact value.

    The logsumexp is float32 for every narrower dtype, and so is its bound. In
    float64 the judge rounds as much as the judged: the bound is the error of
    float32, three times (two for the judged, one for the judge), by the ratio of
    the units.

    Args:
        arrays, dtype, options, graph, jit_compile: As `run`.
        terms: The size of the terms whose differences the results are.
    """
    options = options or {}
    arrays = rounded(arrays, dtype)
    got = run(ops.dot_product_attention, arrays, dtype, options, graph, jit_compile)
    exact = run(reference.dot_product_attention, arrays, "float64", options)
    narrow = "float32" if dtype == "float64" else dtype
    plain = run(plain_attention(arrays, options), arrays, narrow, options)
    if "logsumexp" in got and narrow != "float32":
        single = run(reference.dot_product_attention, arrays, "float32", options)
        plain["logsumexp"] = single["logsumexp"]
    rounding = exact["output"] - got["output"]
    model = None  # computed where it is needed: in few cases
    for name, x in got.items():
        if not x.size:
            continue
        truth, ours, theirs = exact[name], x, plain[name]
        if name == "logsumexp":
            seen = np.isfinite(truth)
            np.testing.assert_array_equal(np.isneginf(ours), ~seen)
            truth, ours, theirs = (np.where(seen, y, 0) for y in (truth, ours, theirs))
        unit = EPS[real(dtype) if name == "logsumexp" else dtype]
        ratio = 3 * EPS["float64"] / EPS["float32"] if dtype == "float64" else 2
        # A value in 16 bits is a float32 one rounded: half a unit.
        units = 1 if unit > EPS["float32"] else 4
        few = units * unit * max(terms, np.abs(truth).max())
        error = np.abs(ours - truth).max()
        bound = ratio * np.abs(theirs - truth).max() + few
        if error > bound and name.startswith("grad"):
            model = model or with_rounded_output(arrays, rounding, options)
            bound = 2 * np.abs(model[name] - truth).max() + few
        assert error <= bound, f"{name}: error {error:.2e} > {bound:.2e}"
    return got
