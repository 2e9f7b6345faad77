"""Any shape and any options of the recurrent layers, drawn by Hypothesis, against the
judge: results and all gradients."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rnn_checks import (
    CELLS,
    MASKS,
    compute,
    eps_of,
    judge,
    kernel,
    make_arrays,
    rms,
    rounded,
)

DROPOUTS = st.sampled_from([None, "one", "each"])
# Without bounds a state grows, and with it what rounding does.
BOUNDED = st.sampled_from(["tanh", "sigmoid", "hard_sigmoid"])


@st.composite
def calls(draw):
    """(cell, arrays, options) of a call."""
    cell = draw(st.sampled_from(CELLS))
    reset_after = draw(st.booleans())
    arrays = make_arrays(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        cell,
        batch=draw(st.integers(1, 20)),
        timesteps=draw(st.integers(1, 20)),
        features=draw(st.integers(1, 40)),
        units=draw(st.integers(1, 70)),
        biases=draw(st.booleans()),
        states=draw(st.booleans()),
        mask=draw(st.sampled_from([None, *MASKS])),
        lengths=draw(st.booleans()),
        input_dropout=draw(DROPOUTS),
        recurrent_dropout=draw(DROPOUTS),
        reset_after=reset_after,
    )
    options = {"activation": draw(BOUNDED)}
    if cell != "simple_rnn":
        options["recurrent_activation"] = draw(BOUNDED)
    if cell == "gru":
        options["reset_after"] = reset_after
    for name in ("reverse", "return_sequences", "zero_output_for_mask"):
        options[name] = draw(st.booleans())
    return cell, rounded(arrays, "float32"), options


# derandomize: the same examples in every run; on a busy machine drawing is slow.
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(call=calls())
def test_any_shape_and_options_are_as_exact_as_keras(call):
    cell, arrays, options = call
    truth, plain, got = (
        compute(function, cell, arrays, options, dtype)
        for function, dtype in (
            (judge, "float64"),
            (judge, "float32"),
            (kernel, "float32"),
        )
    )
    for name, x in got.items():
        # Hypothesis looks for inputs on which Keras is lucky. Gradients are sums of up
        # to 20 x 20 terms of the order of 1, whose rounding remains where they cancel.
        rounding = 20 * eps_of("float32") * max(1.0, rms(truth[name]))
        bound = 2 * rms(plain[name] - truth[name]) + rounding
        assert x.shape == truth[name].shape
        assert rms(x - truth[name]) <= bound, f"{name} of {cell} {options}"
