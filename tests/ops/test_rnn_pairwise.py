"""Every two options of the recurrent layers together, on the kernel, against the judge:
results and all gradients."""

import itertools

import numpy as np
import pytest
from pairwise import pairwise
from rnn_checks import CELLS, MASKS, check, make_arrays

from hw3tf.reference.rnn import ACTIVATIONS

SHARED = {
    "way": ["op eager", "op graph", "pybind eager", "pybind graph", "xla"],
    "dtype": ["float32", "float64", "float16", "bfloat16"],
    "batch": [1, 3, 17],
    "timesteps": [1, 2, 13, 31],
    "features": [1, 5, 16, 37],
    "units": [1, 7, 16, 33, 64],
    "biases": [True, False],
    "states": [True, False],
    "mask": [None, *MASKS],
    "lengths": [False, True],
    "input_dropout": [None, "one", "each"],
    "recurrent_dropout": [None, "one", "each"],
    "activation": list(ACTIVATIONS),
    "reverse": [False, True],
    "return_sequences": [True, False],
    "zero_output_for_mask": [False, True],
}
GATED = {"recurrent_activation": ["sigmoid", "tanh", "relu", "linear", "hard_sigmoid"]}
FACTORS = {
    "lstm": SHARED | GATED,
    "gru": SHARED | GATED | {"reset_after": [True, False]},
    "simple_rnn": SHARED,
}
CASES = {cell: pairwise(factors) for cell, factors in FACTORS.items()}
OF_ARRAYS = (
    "batch",
    "timesteps",
    "features",
    "units",
    "biases",
    "states",
    "mask",
    "lengths",
    "input_dropout",
    "recurrent_dropout",
    "reset_after",
)


@pytest.mark.parametrize(
    ("cell", "number"),
    [(cell, number) for cell in CELLS for number in range(len(CASES[cell]))],
)
def test_every_two_options_together_are_as_exact_as_keras(cell, number, monkeypatch):
    case = CASES[cell][number]
    path, way = case["way"].split() if " " in case["way"] else ("op", "xla")
    monkeypatch.setenv("HW3TF_PATH", path)
    functions = (case["activation"], case.get("recurrent_activation"))
    without_limit = sum(f in ("relu", "linear") for f in functions)
    arrays = make_arrays(
        np.random.default_rng(number),
        cell,
        size=(1.0, 0.3, 0.1)[without_limit],
        **{name: case[name] for name in OF_ARRAYS if name in case},
    )
    words = [name for name in case if name not in (*OF_ARRAYS, "way", "dtype")]
    options = {name: case[name] for name in (*words, "reset_after") if name in case}
    check(cell, arrays, options, case["dtype"], way, what=str(case))


def test_all_pairs_are_among_the_cases():
    for cell, factors in FACTORS.items():
        for a, b in itertools.combinations(factors, 2):
            met = {(str(case[a]), str(case[b])) for case in CASES[cell]}
            assert len(met) == len(factors[a]) * len(factors[b])
        assert len(CASES[cell]) < 60
