"""Comparison of bits with those of earlier versions, tests/data/golden.json."""

import functools
import json

import golden_numbers
import keras
import numpy as np
import pytest

from hw3tf import ops, reference

GOLDEN = json.loads(golden_numbers.FILE.read_text())
# Of the largest number of a result: what rounding may change.
ROUNDING = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
DTYPES = {name: case[1] for name, case in golden_numbers.ATTENTION.items()}
DTYPES |= {name: case[2] for name, case in golden_numbers.RNN.items()}
REWRITE = (
    "If the change is meant, run `python tests/helpers/golden_numbers.py` and say in "
    "CHANGELOG.md that results differ by rounding."
)
float_bits = functools.cache(golden_numbers.float_bits)


@pytest.mark.parametrize("name", golden_numbers.DROPOUT)
def test_what_dropout_keeps_never_changes(name):
    """Nor may this file: a training that is resumed drops what it would have."""
    shape, rate, seed = golden_numbers.DROPOUT[name]
    for function in (ops.attention_dropout_mask, reference.attention_dropout_mask):
        keep = keras.ops.convert_to_numpy(function(*shape, rate=rate, seed=seed))
        assert keep.dtype == bool
        assert golden_numbers.digest(keep) == GOLDEN["dropout"][name]


@pytest.mark.parametrize("name", golden_numbers.RECURRENCES)
def test_integer_states_never_change(name, path):
    inputs, options = golden_numbers.recurrence_inputs(name)
    states = keras.ops.convert_to_numpy(ops.integer_rnn(**inputs, **options))
    assert golden_numbers.digest(states) == GOLDEN["integers"][name]


def test_bits_of_an_instruction_set_are_acknowledged():
    """Those of this process; kernels/test_core.py runs the others."""
    got = float_bits()
    known = GOLDEN["attention"].get(got["set"])
    if known is None or known["compiler"] != got["compiler"]:
        pytest.skip(f"no bits of {got['set']}, {got['compiler']}, are recorded")
    changed = [c for c, bits in known["bits"].items() if got["bits"][c] != bits]
    assert not changed, f"Other bits in {changed} on {got['set']}. {REWRITE}"
    assert got["bits"].keys() == known["bits"].keys(), REWRITE


def test_numbers_of_any_compiler_are_those_of_earlier_versions():
    for case, results in float_bits()["numbers"].items():
        tolerance = ROUNDING[DTYPES[case]]
        for result, numbers in results.items():
            want = np.array(GOLDEN["numbers"][case][result])
            size = max(1, np.abs(want).max())
            np.testing.assert_allclose(
                numbers, want, rtol=0, atol=tolerance * size, err_msg=f"{case} {result}"
            )


def test_inputs_do_not_come_from_a_generator_that_may_change():
    """The digests mean something only while their inputs are these."""
    np.testing.assert_array_equal(
        golden_numbers.words((4,), 1), [606170405, 3755434245, 1634724340, 229757278]
    )
    assert golden_numbers.FILE.stat().st_size < 30_000
