"""The specification of the recurrent layers: exact sums, Keras's own layers, and what
people have reported."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from pairwise import pairwise
from rnn_checks import CELLS, MASKS, compute, judge, make_arrays, specification
from rnn_oracle import ROWS, oracle, upstream

from hw3tf import reference
from hw3tf.reference.rnn import ACTIVATIONS

LAYERS = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "simple_rnn": keras.layers.SimpleRNN,
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("row", ROWS)
def test_masks_give_the_sums_that_are_known(cell, row):
    arrays, options, wanted = oracle(cell, row)
    for way in ("eager", "graph"):
        got = compute(
            specification, cell, arrays | upstream(cell), options, "float64", way
        )
        for name, x in wanted.items():
            np.testing.assert_array_equal(got[name], x, f"{name} {way}")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("row", ROWS)
def test_the_last_output_is_that_of_the_last_step(cell, row):
    arrays, options, wanted = oracle(cell, row)
    arrays |= upstream(cell)
    got = compute(
        specification, cell, arrays, options | {"return_sequences": False}, "float64"
    )
    np.testing.assert_array_equal(got["outputs"], wanted["outputs"][:, -1:])


def stock(cell, arrays, **options):
    """A layer of Keras with these weights, in float64."""
    units = arrays["recurrent_kernel"].shape[0]
    layer = LAYERS[cell](
        units,
        use_bias="bias" in arrays,
        return_sequences=True,
        return_state=True,
        dtype="float64",
        **options,
    )
    layer.build(arrays["inputs"].shape)
    weights = [arrays["kernel"], arrays["recurrent_kernel"]]
    if "recurrent_bias" in arrays:
        weights.append(np.stack([arrays["bias"], arrays["recurrent_bias"]]))
    elif "bias" in arrays:
        weights.append(arrays["bias"])
    layer.set_weights(weights)
    return layer


OPTIONS = {
    "plain": {},
    "backwards": {"go_backwards": True},
    "zeroed": {"zero_output_for_mask": True},
    "both": {"go_backwards": True, "zero_output_for_mask": True},
    "linear": {"activation": None},
    "relu": {"activation": "relu"},
    "hard": {"activation": "hard_sigmoid", "recurrent_activation": "hard_sigmoid"},
    "elu": {"activation": "elu", "recurrent_activation": "relu"},
    "before": {"reset_after": False},
}


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (cell, name)
        for cell, name in itertools.product(CELLS, OPTIONS)
        if not (cell != "gru" and name == "before")
    ],
)
@pytest.mark.parametrize("mask", [None, "left", "right", "holes"])
def test_results_are_those_of_the_layers_of_keras(cell, name, mask, rng):
    """To the last bits of float64: the order of the sums differs."""
    options = dict(OPTIONS[name])
    if cell == "simple_rnn":
        options.pop("recurrent_activation", None)
    after = options.get("reset_after", True)
    arrays = make_arrays(rng, cell, mask=mask, reset_after=after)
    states = [arrays[n] for n in ("initial_h", "initial_c") if n in arrays]
    want = stock(cell, arrays, **options)(
        arrays["inputs"], initial_state=states, mask=arrays.get("mask")
    )
    words = {"go_backwards": "reverse"}
    ours = {words.get(k, k): x for k, x in options.items()}
    for k in ("activation", "recurrent_activation"):
        if k in ours:
            ours[k] = keras.activations.get(ours[k])
    tensors = {k: tf.constant(x) for k, x in arrays.items() if k[:5] != "grad_"}
    got = reference.rnn(cell, **tensors, **ours, return_sequences=True)
    for x, y in zip(got, want, strict=False):
        np.testing.assert_allclose(x, y, rtol=0, atol=2**-48)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("gates", ["one", "each"])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_dropout_multiplies_what_keras_multiplies(cell, gates, after, rng):
    """Keras's own cell, whose masks are replaced: `implementation=2` has one mask of
    the inputs, `recurrent_dropout` makes it 1, with one of each gate."""
    if cell != "gru" and not after:
        return
    options = {"reset_after": after} if cell == "gru" else {}
    arrays = make_arrays(
        rng,
        cell,
        input_dropout=gates,
        recurrent_dropout="each" if gates == "each" else None,
        reset_after=after,
    )
    layer = stock(
        cell,
        arrays,
        dropout=0.5,
        recurrent_dropout=0.5 if gates == "each" else 0.0,
        **options,
    )
    kinds = {
        "input_dropout": "dropout_mask",
        "recurrent_dropout": "recurrent_dropout_mask",
    }
    for name, kind in kinds.items():
        if name in arrays:
            masks = list(tf.constant(arrays[name]))
            masks = masks[0] if len(masks) == 1 else masks
            setattr(layer.cell, f"get_{kind}", lambda _, masks=masks: masks)
    states = [arrays[n] for n in ("initial_h", "initial_c") if n in arrays]
    want = layer(arrays["inputs"], initial_state=states, training=True)
    tensors = {k: tf.constant(x) for k, x in arrays.items() if k[:5] != "grad_"}
    got = reference.rnn(cell, **tensors, **options, return_sequences=True)
    for x, y in zip(got, want, strict=False):
        np.testing.assert_allclose(x, y, rtol=0, atol=2**-48)


def test_lengths_mask_what_a_mask_does(rng):
    arrays = make_arrays(rng, "lstm", batch=4, mask="holes", lengths=True)
    tensors = {k: tf.constant(x) for k, x in arrays.items() if k[:5] != "grad_"}
    lengths = tensors.pop("lengths")
    both = np.arange(7) < lengths.numpy()[:, None]
    want = reference.rnn("lstm", **tensors | {"mask": both & arrays["mask"]})
    got = reference.rnn("lstm", **tensors, lengths=lengths)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)


def test_nan_in_a_masked_step_reaches_nothing(rng):
    arrays = make_arrays(rng, "lstm", mask="holes")
    want = compute(specification, "lstm", arrays, {})
    arrays["inputs"][~arrays["mask"]] = np.nan
    got = compute(specification, "lstm", arrays, {})
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x, name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(dtype, rng):
    """The states between the steps are float32: 100 steps cost no more than one."""
    arrays = make_arrays(rng, "gru", timesteps=100)
    tensors = {k: tf.cast(x, dtype) for k, x in arrays.items() if k[:5] != "grad_"}
    got = reference.rnn("gru", **tensors)
    want = reference.rnn(
        "gru", **{k: tf.cast(x, "float32") for k, x in tensors.items()}
    )
    for x, y in zip(got[:2], want[:2], strict=True):
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, tf.cast(y, dtype))


OF_ARRAYS = {
    "biases": [True, False],
    "states": [True, False],
    "mask": [None, *MASKS],
    "lengths": [False, True],
    "input_dropout": [None, "one", "each"],
    "recurrent_dropout": [None, "one", "each"],
}
OF_CALLS = {
    "activation": list(ACTIVATIONS),
    "reverse": [False, True],
    "return_sequences": [True, False],
    "zero_output_for_mask": [False, True],
}
GATED = {"recurrent_activation": list(ACTIVATIONS)}
OF_CELLS = {
    "lstm": GATED,
    "gru": GATED | {"reset_after": [True, False]},
    "simple_rnn": {},
}


@pytest.mark.parametrize("cell", CELLS)
def test_the_judge_of_the_kernel_computes_the_same(cell):
    """Results and all gradients: `numpy_rnn`, in NumPy, stands for the specification in
    the tests of the kernel."""
    for number, case in enumerate(pairwise(OF_ARRAYS | OF_CALLS | OF_CELLS[cell])):
        arrays = make_arrays(
            np.random.default_rng(number),
            cell,
            timesteps=4,
            reset_after=case.get("reset_after", True),
            size=2.0,  # hard activations meet both of their corners
            **{name: case[name] for name in OF_ARRAYS},
        )
        options = {name: x for name, x in case.items() if name not in OF_ARRAYS}
        got, want = (
            compute(function, cell, arrays, options, "float64")
            for function in (judge, specification)
        )
        assert got.keys() == want.keys()
        for name, x in want.items():
            np.testing.assert_allclose(
                got[name], x, rtol=0, atol=1e-12 * np.abs(x).max(), err_msg=str(case)
            )


REPORTED = {
    # tensorflow#33138
    "lstm": (
        {
            "kernel": [[0.5] * 4],
            "recurrent_kernel": [[0.25] * 4],
            "bias": [0.0, 1, 0, 0],
        },
        {},
        [0.17426972, 0.31693833, 0.42237569],
    ),
    # tensorflow#46515
    "gru": (
        {
            "kernel": [[0.5] * 3],
            "recurrent_kernel": [[0.25] * 3],
            "bias": [0.0] * 3,
            "recurrent_bias": [0.0, 0, 1],
        },
        {},
        [0.30521243, 0.4941265, 0.615875],
    ),
    "gru before": (
        {
            "kernel": [[0.5] * 3],
            "recurrent_kernel": [[0.25] * 3],
            "bias": [0.0, 0, 1],
        },
        {"reset_after": False},
        [0.34173028, 0.54663141, 0.67583628],
    ),
}


@pytest.mark.parametrize("case", REPORTED)
def test_numbers_that_people_have_reported(case):
    arrays, options, want = REPORTED[case]
    tensors = {name: tf.constant(x, "float64") for name, x in arrays.items()}
    outputs, *_ = reference.rnn(
        case.split()[0],
        tf.ones((1, 3, 1), "float64"),
        **tensors,
        return_sequences=True,
        **options,
    )
    np.testing.assert_allclose(outputs[0, :, 0], want, rtol=0, atol=5e-9)
