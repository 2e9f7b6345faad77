"""Recurrences that count in whole numbers, so that every result is known exactly.

Without activations a simple RNN with weights 1 is the running sum; so are the `c` of an
LSTM whose candidate is the input and whose gates are 1, and the state of a GRU whose
candidate is input plus state.
"""

import numpy as np

START = 10.0
INPUTS = np.arange(1.0, 6.0)[None, :, None]
LINEAR = {"activation": "linear", "recurrent_activation": "linear"}

WEIGHTS = {
    "simple_rnn": {"kernel": [[1.0]], "recurrent_kernel": [[1.0]]},
    "lstm": {
        "kernel": [[0.0, 0.0, 1.0, 0.0]],
        "recurrent_kernel": [[0.0] * 4],
        "bias": [1.0, 1.0, 0.0, 1.0],
    },
    "gru": {
        "kernel": [[0.0, 0.0, 1.0]],
        "recurrent_kernel": [[0.0, 0.0, 1.0]],
        "recurrent_bias": [0.0, 1.0, 0.0],
    },
}

# Mask, zeros where it masks, backwards: the outputs, the last state, and the gradients
# of the sum of the outputs: of the inputs, and of the initial state (of the LSTM: c).
ROWS = {
    "11100": ("11100", False, False, [11, 13, 16, 16, 16], 16, [5, 4, 3, 0, 0], 5),
    "11100 zeroed": ("11100", True, False, [11, 13, 16, 0, 0], 16, [3, 2, 1, 0, 0], 3),
    "11100 backwards": (
        "11100",
        False,
        True,
        [0, 0, 13, 15, 16],
        16,
        [1, 2, 3, 0, 0],
        3,
    ),
    "00111": ("00111", False, False, [0, 0, 13, 17, 22], 22, [0, 0, 3, 2, 1], 3),
    "00111 backwards": (
        "00111",
        False,
        True,
        [15, 19, 22, 22, 22],
        22,
        [0, 0, 3, 4, 5],
        5,
    ),
    "10101": ("10101", False, False, [11, 11, 14, 14, 19], 19, [5, 0, 3, 0, 1], 5),
    "00000": ("00000", False, False, [0, 0, 0, 0, 0], 10, [0, 0, 0, 0, 0], 0),
}


def oracle(cell, row):
    """Operands, options, and the results and gradients that are wanted, by name."""
    mask, zeroed, backwards, outputs, state, of_inputs, of_state = ROWS[row]
    state_name = "initial_c" if cell == "lstm" else "initial_h"
    arrays = {name: np.asarray(x) for name, x in WEIGHTS[cell].items()}
    arrays |= {"inputs": INPUTS, "initial_h": np.full((1, 1), START)}
    arrays[state_name] = np.full((1, 1), START)
    arrays["mask"] = np.array([[bit == "1" for bit in mask]])
    options = {
        **LINEAR,
        "reverse": backwards,
        "zero_output_for_mask": zeroed,
        "return_sequences": True,
    }
    wanted = {
        "outputs": np.reshape(outputs, (1, 5, 1)),
        "last_c" if cell == "lstm" else "last_h": np.full((1, 1), state),
        "gradient of inputs": np.reshape(of_inputs, (1, 5, 1)),
        f"gradient of {state_name}": np.full((1, 1), of_state),
    }
    return arrays, options, wanted


def upstream(cell):
    """The gradients of a loss that is the sum of the outputs."""
    zeros = np.zeros((1, 1))
    states = {"grad_last_h": zeros}
    if cell == "lstm":
        states["grad_last_c"] = zeros
    return {"grad_outputs": np.ones((1, 5, 1)), **states}
