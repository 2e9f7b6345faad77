"""Any shape and any options, drawn by Hypothesis, against the judge."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from option_checks import check, make_arrays, scores_shape

LENGTHS = st.one_of(st.integers(1, 12), st.integers(1, 150))
SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9])


def sometimes(strategy):
    return st.one_of(st.none(), strategy)


@st.composite
def calls(draw):
    """(arrays, dtype, options) of a call."""
    batch, kv_heads, group = (draw(st.integers(1, 3)) for _ in range(3))
    lengths = draw(LENGTHS), draw(LENGTHS)
    sizes = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = make_arrays(rng, batch, *lengths, kv_heads * group, kv_heads, *sizes)
    whole = scores_shape(arrays)

    def broadcasting():
        kept = [draw(st.booleans()) for _ in whole]
        shape = [n if keep else 1 for n, keep in zip(whole, kept, strict=True)]
        return shape[draw(st.integers(0, 3)) :]

    if draw(st.booleans()):
        del arrays["grad_logsumexp"]
    if draw(st.booleans()):
        arrays["bias"] = rng.standard_normal(broadcasting())
    options = {
        "is_causal": draw(st.booleans()),
        "sliding_window": draw(sometimes(LENGTHS)),
        "attn_logits_soft_cap": draw(sometimes(st.sampled_from([0.5, 3.0, 50.0]))),
        "scale": draw(sometimes(st.sampled_from([-0.3, 0.0, 1.0]))),
    }
    options = {n: x for n, x in options.items() if x not in (None, False)}
    if draw(st.booleans()):
        options["mask"] = rng.random(broadcasting()) < draw(SHARES)
    for name, length in (("query", lengths[0]), ("key", lengths[1])):
        if draw(st.booleans()):
            options[f"{name}_mask"] = rng.random((batch, length)) < draw(SHARES)
        if draw(st.booleans()):
            options[f"{name}_lengths"] = rng.integers(0, length + 1, batch)
    if draw(st.booleans()):
        options["dropout_rate"] = draw(st.sampled_from([0.1, 0.5]))
        options["dropout_seed"] = draw(st.integers(-(2**63), 2**64 - 1))
    dtype = draw(st.sampled_from(["float32", "float64", "bfloat16", "float16"]))
    return arrays, dtype, options


# derandomize: the same examples in every run; on a busy machine drawing is slow. Each
# takes 0.2 s; `nox -s fuzz` draws more.
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(call=calls())
def test_any_shape_and_options_are_as_exact_as_keras(call):
    arrays, dtype, options = call
    # Hypothesis looks for inputs on which Keras is lucky. The gradient of a score
    # is the difference of two sums of value_dim products, times a key or a query
    # and the scale: normal numbers, three standard deviations each.
    size, value_dim = (arrays[n].shape[3] for n in ("key", "value"))
    scale = abs(options.get("scale", size**-0.5))
    terms = 9 * max(1.0, scale * value_dim**0.5) / (1 - options.get("dropout_rate", 0))
    narrow = dtype in ("bfloat16", "float16")  # one of their units is larger
    check(arrays, dtype, options, terms=1.0 if narrow else terms)
