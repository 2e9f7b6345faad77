"""The numbers of our recurrent layers: those of Keras, gradients too, and those that
can be computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from recurrent_checks import (
    MASKS,
    NAMES,
    assert_equals_keras,
    mask_named,
    number_of_states,
    results,
    trio,
)

import hw3tf

FEATURES, UNITS = 4, 6
OPTIONS = {
    "plain": {},
    "all outputs": {"return_sequences": True},
    "state": {"return_state": True, "return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "last, backwards": {"go_backwards": True, "return_state": True},
    "zeros": {"zero_output_for_mask": True, "return_sequences": True},
    "last, zeros": {"zero_output_for_mask": True},
    "unrolled": {"unroll": True, "return_sequences": True, "return_state": True},
    "without bias": {"use_bias": False},
    "relu": {"activation": "relu"},
    "linear": {"activation": None},
    "hard sigmoid": {"activation": "hard_sigmoid"},
    "function of ops": {"activation": keras.ops.tanh},
    "function of TensorFlow": {"activation": tf.tanh, "return_sequences": True},
}
GATED = {
    "hard gates": {"recurrent_activation": "hard_sigmoid"},
    "relu gates": {"recurrent_activation": keras.ops.relu},
    "a product per gate": {"implementation": 1},
}
RESET_BEFORE = {
    "reset before": {"reset_after": False},
    "reset before, without bias": {"reset_after": False, "use_bias": False},
    "reset before, a product per gate": {"reset_after": False, "implementation": 1},
}
CASES = {
    f"{name}, {what}": (name, options)
    for name in NAMES
    for what, options in (
        OPTIONS
        | (GATED if name != "SimpleRNN" else {})
        | (RESET_BEFORE if name == "GRU" else {})
    ).items()
}


def sequences(rng, batch=3, timesteps=5, features=FEATURES):
    return rng.standard_normal((batch, timesteps, features))


def initial(rng, name, batch=3, units=UNITS):
    return [rng.standard_normal((batch, units)) for _ in range(number_of_states(name))]


# Options that have to do with masks meet all of them, in one layer or another, and by
# night in every layer. Each of the other options meets one: all pairs of options are in
# ops/test_rnn_pairwise.py.
WITH_ALL_MASKS = ("backwards", "zeros")
CASES_AND_MASKS = [
    pytest.param(
        case,
        mask,
        marks=[]
        if (NAMES.index(CASES[case][0]) + j) % len(NAMES) == 0 or j == i % len(MASKS)
        else pytest.mark.slow,
    )
    for i, case in enumerate(CASES)
    for j, mask in enumerate(MASKS)
    if case.endswith(WITH_ALL_MASKS) or j == i % len(MASKS)
]


@pytest.mark.parametrize(("case", "mask"), CASES_AND_MASKS)
def test_values_and_gradients_are_as_exact_as_keras(case, mask, rng, rnn_calls):
    name, options = CASES[case]
    layers = trio(name, FEATURES, units=UNITS, **options)
    states = initial(rng, name) if mask != "none" else ()
    what = f"{case}, {mask}"
    assert_equals_keras(layers, sequences(rng), states, what, mask=mask_named(mask))
    assert len(rnn_calls) == 1  # ours, and not Keras's


@pytest.mark.parametrize(
    "timesteps", [1, 2, 31, pytest.param(67, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_sizes(name, timesteps, rng):
    layers = trio(name, 5, units=17, return_sequences=True)
    mask = rng.random((4, timesteps)) < 0.7
    assert_equals_keras(layers, sequences(rng, 4, timesteps, 5), mask=mask)


# Layers that sum up their inputs, and count exactly: what they begin with, the weights
# without a bias, and the bias of each kind.
SUMS = {
    "SimpleRNN": ([[1]], [[1]], [0]),
    "LSTM": ([[0, 0, 1, 0]], [[0, 0, 0, 0]], [1, 1, 0, 1]),
    "GRU": ([[0, 0, 1]], [[0, 0, 1]], [[0, 0, 0], [0, 1, 0]]),
}
# mask, zeros, backwards -> outputs, last state, gradients of the sum of the outputs
# with respect to the inputs and to the first state.
BY_HAND = {
    ("11100", False, False): ([11, 13, 16, 16, 16], 16, [5, 4, 3, 0, 0], 5),
    ("11100", True, False): ([11, 13, 16, 0, 0], 16, [3, 2, 1, 0, 0], 3),
    ("11100", False, True): ([0, 0, 13, 15, 16], 16, [1, 2, 3, 0, 0], 3),
    ("00111", False, False): ([0, 0, 13, 17, 22], 22, [0, 0, 3, 2, 1], 3),
    ("00111", False, True): ([15, 19, 22, 22, 22], 22, [0, 0, 3, 4, 5], 5),
    ("10101", False, False): ([11, 11, 14, 14, 19], 19, [5, 0, 3, 0, 1], 5),
    ("00000", False, False): ([0, 0, 0, 0, 0], 10, [0, 0, 0, 0, 0], 0),
}


def summing(name, **options):
    """A layer of one unit that adds each input to its state."""
    linear = {"activation": None}
    if name != "SimpleRNN":
        linear["recurrent_activation"] = None
    layer = getattr(hw3tf.layers, name)(1, **linear, **options)
    layer.build((None, 5, 1))
    layer.set_weights([np.array(w, "float32") for w in SUMS[name]])
    return layer


@pytest.mark.parametrize("by_hand", BY_HAND, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_sums_by_hand(name, by_hand, rnn_calls):
    mask, zeros, backwards = by_hand
    outputs, last, by_inputs, by_state = BY_HAND[by_hand]
    layer = summing(
        name,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=zeros,
        go_backwards=backwards,
    )
    x = tf.constant([[[1.0], [2.0], [3.0], [4.0], [5.0]]])
    states = [tf.constant([[10.0]])] * number_of_states(name)
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        valid = [[step == "1" for step in mask]]
        y, *found = layer(x, initial_state=states, mask=np.array(valid))
        loss = tf.reduce_sum(y)
    gradients = tape.gradient(loss, [x, states[-1]])
    np.testing.assert_array_equal(y[0, :, 0], outputs)
    np.testing.assert_array_equal(found[-1], [[last]])
    np.testing.assert_array_equal(gradients[0][0, :, 0], by_inputs)
    np.testing.assert_array_equal(gradients[1], [[by_state]])
    assert rnn_calls


@pytest.mark.parametrize("name", NAMES)
def test_last_output_of_a_masked_step_is_the_state_or_zero(name):
    """keras-team/keras#17596"""
    x = np.arange(1.0, 6, dtype="float32")[None, :, None]
    mask = np.array([[True, True, True, False, False]])
    for zeros, last in ((False, 6), (True, 0)):
        layer = summing(name, zero_output_for_mask=zeros)
        np.testing.assert_array_equal(layer(x, mask=mask), [[last]])


@pytest.mark.parametrize("name", NAMES)
def test_both_directions_sum_up_padded_sequences(name, rnn_calls):
    """keras-team/keras#4192: 1, 2, 3 is 6 from either side, wherever the padding is."""
    for x, mask in (([1, 2, 3, 0, 0], "11100"), ([0, 0, 1, 2, 3], "00111")):
        x = np.array(x, "float32")[None, :, None]
        mask = np.array([[step == "1" for step in mask]])
        layer = keras.layers.Bidirectional(summing(name))
        layer.build(x.shape)
        layer.set_weights([np.array(w, "float32") for w in SUMS[name]] * 2)
        np.testing.assert_array_equal(layer(x, mask=mask), [[6, 6]])
    assert len(rnn_calls) == 4


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_both_directions_give_zeros_for_masked_steps(name, unroll):
    """Unrolled, Keras gives zeros for other steps of the second direction."""
    layer = keras.layers.Bidirectional(
        summing(name, return_sequences=True, unroll=unroll)
    )
    x = np.arange(1.0, 6, dtype="float32")[None, :, None]
    layer.build(x.shape)
    layer.set_weights([np.array(w, "float32") for w in SUMS[name]] * 2)
    y = layer(x, mask=np.array([[True, True, True, False, False]]))
    np.testing.assert_array_equal(y[0, :, 0], [1, 3, 6, 0, 0])
    np.testing.assert_array_equal(y[0, :, 1], [6, 5, 3, 0, 0])


def constant(values):
    return keras.initializers.Constant(values)


def test_lstm_of_a_bug_report():
    """tensorflow/tensorflow#33138, computed in float64 from the formula."""
    layer = hw3tf.layers.LSTM(
        1,
        kernel_initializer=constant(0.5),
        recurrent_initializer=constant(0.25),
        return_sequences=True,
    )
    y = layer(np.ones((1, 3, 1), "float32"))
    np.testing.assert_allclose(
        y[0, :, 0], [0.17426972, 0.31693833, 0.42237569], rtol=3e-7
    )


@pytest.mark.parametrize(
    ("reset_after", "wanted"),
    [
        (True, [0.30521243, 0.4941265, 0.615875]),
        (False, [0.34173028, 0.54663141, 0.67583628]),
    ],
)
def test_gru_of_a_bug_report(reset_after, wanted):
    """tensorflow/tensorflow#46515: a bias within the product that is reset."""
    layer = hw3tf.layers.GRU(1, reset_after=reset_after, return_sequences=True)
    layer.build((1, 3, 1))
    bias = [[0, 0, 0], [0, 0, 1]] if reset_after else [0, 0, 1]
    kernels = np.full((1, 3), 0.5), np.full((1, 3), 0.25)
    layer.set_weights([*kernels, np.array(bias)])
    y = layer(np.ones((1, 3, 1), "float32"))
    np.testing.assert_allclose(y[0, :, 0], wanted, rtol=3e-7)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_a_masked_step_reaches_no_gradient(name, rng):
    """In Keras it is in all of them."""
    ours, theirs, _ = trio(name, FEATURES, units=UNITS, return_sequences=True)
    x = sequences(rng).astype("float32")
    mask = mask_named("right")
    clean = results(ours, x, mask=mask)
    x[~mask] = np.nan
    for got, wanted in zip(results(ours, x, mask=mask), clean, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert np.isnan(results(theirs, x, mask=mask)[1]).any()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_policies(name, policy, rng, rnn_calls):
    layers = trio(name, FEATURES, units=UNITS, dtype=policy, return_state=True)
    for mask in ("none", "holes"):
        assert_equals_keras(
            layers, sequences(rng), initial(rng, name), mask=mask_named(mask)
        )
    assert len(rnn_calls) == 2
    y, *states = layers[0](sequences(rng))
    assert {str(x.dtype.name) for x in (y, *states)} == {policy.split("_")[-1]}
    weight = "float64" if policy == "float64" else "float32"
    assert {w.dtype for w in layers[0].trainable_weights} == {weight}


@pytest.mark.parametrize("shape", ["(1, T)", "(B, T, 1)", "numbers"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_masks(name, known, shape, rng, rnn_calls):
    ours, theirs, _ = trio(name, FEATURES, units=UNITS, return_sequences=True)
    x, mask = sequences(rng).astype("float32"), mask_named("holes")
    if shape == "(1, T)":
        mask = mask[:1]
    elif shape == "(B, T, 1)":
        mask = mask[:, :, None]
    elif shape == "numbers":
        mask = mask * np.float32(-2)

    def run(layer):
        if known:
            return layer(x, mask=mask)
        last = (1,) if mask.ndim == 3 else ()
        specs = [
            tf.TensorSpec((None, None, FEATURES)),
            tf.TensorSpec((None, None, *last), mask.dtype),
        ]
        call = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=specs)
        return call(x, mask)

    np.testing.assert_allclose(run(ours), run(theirs), rtol=0, atol=2e-6)
    assert len(rnn_calls) == 1


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_mask_in_a_list(name, rng, rnn_calls):
    """Of such the first counts, as in Keras."""
    ours, theirs, _ = trio(name, FEATURES, units=UNITS)
    x, mask = sequences(rng).astype("float32"), mask_named("holes")
    given = [mask, None]
    np.testing.assert_allclose(ours(x, mask=given), theirs(x, mask=given), atol=2e-6)
    assert rnn_calls


@pytest.mark.parametrize("name", NAMES)
def test_a_state_for_the_whole_batch(name, rng):
    ours = trio(name, FEATURES, units=UNITS, return_state=True)[0]
    x, states = sequences(rng), initial(rng, name, batch=1)
    repeated = [np.repeat(s, 3, axis=0) for s in states]
    one, three = results(ours, x, states), results(ours, x, repeated)
    for a, b in zip(one, three, strict=True):
        if a.shape != b.shape:  # the gradients of the states
            b = b.sum(axis=0, keepdims=True)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_is_known_when_the_graph_runs(name, rng, rnn_calls):
    """A state and a mask for the whole batch serve as in Keras; others are refused by
    their names. States that are not given are not copied."""
    ours, theirs, _ = trio(name, FEATURES, units=UNITS)
    count = number_of_states(name)

    def graph(layer):
        @tf.function(
            input_signature=[
                tf.TensorSpec((None, None, FEATURES)),
                tf.TensorSpec((None, None), "bool"),
                *[tf.TensorSpec((None, UNITS))] * count,
            ]
        )
        def run(x, mask, *states):
            return layer(x, mask=mask, initial_state=list(states))

        return run

    def numbers(states):
        return [s.astype("float32") for s in states]

    x, mask = sequences(rng).astype("float32"), mask_named("holes")
    ours_in_graph, theirs_in_graph = graph(ours), graph(theirs)
    for rows in (1, 3):
        given = x, mask[:rows], *numbers(initial(rng, name, batch=rows))
        got, wanted = ours_in_graph(*given), theirs_in_graph(*given)
        np.testing.assert_allclose(got, wanted, atol=2e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`initial_h` must have"):
        ours_in_graph(x, mask, *numbers(initial(rng, name, batch=2)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`mask` must have"):
        ours_in_graph(x, mask[:2], *numbers(initial(rng, name)))
    assert len(rnn_calls) == 1
    alone = tf.function(ours, input_signature=[tf.TensorSpec((None, None, FEATURES))])
    graph = alone.get_concrete_function().graph
    assert "BroadcastTo" not in {op.type for op in graph.get_operations()}


@pytest.mark.parametrize("name", NAMES)
def test_integers_are_floats(name):
    """As in Keras, whose products promote them."""
    ours, theirs, _ = trio(name, FEATURES, units=UNITS)
    x = np.arange(3 * 5 * FEATURES, dtype="int32").reshape((3, 5, FEATURES)) % 3
    np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=2e-6)
