"""Any shape and any options of the recurrent layers, drawn by Hypothesis, against the
judge: results and all gradients."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rnn_checks import CELLS, MASKS, check, make_arrays

DROPOUTS = st.sampled_from([None, "one", "each"])
# Without bounds a state grows, and with it what rounding does.
BOUNDED = st.sampled_from(["tanh", "sigmoid", "hard_sigmoid"])


@st.composite
def calls(draw):
    """(cell, arrays, options, dtype) of a call."""
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
    return cell, arrays, options, draw(st.sampled_from(["float32", "float64"]))


# derandomize: the same examples in every run; on a busy machine drawing is slow.
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(call=calls())
def test_any_shape_and_options_are_as_exact_as_keras(call):
    cell, arrays, options, dtype = call
    shapes = {name: x.shape for name, x in arrays.items()}
    check(cell, arrays, options, dtype, what=f"{cell} {options} {dtype} {shapes}")
