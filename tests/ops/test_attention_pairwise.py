"""Every two options of attention together, on the kernel, against the judge."""

import itertools

import numpy as np
import pytest
from option_checks import check, make_arrays, scores_shape
from pairwise import pairwise

FACTORS = {
    "path": ["op", "pybind"],
    "graph": [False, True],
    "dtype": ["float32", "bfloat16", "float16", "float64"],
    "batch": [1, 3],
    "lengths": [(33, 70), (1, 37), (70, 33), (5, 5), (17, 130), (50, 1)],
    "heads": [(4, 2), (3, 3), (6, 1), (1, 1)],
    "sizes": [(8, 8), (17, 5), (4, 20), (40, 40)],
    "bias": [None, "BNTS", "N1S", "TS", "BNT1", "B111", "1N11"],
    "mask": [None, "BNTS", "B11S", "TS", "N1S", "B1T1", "numeric"],
    "query_mask": [False, True],
    "key_mask": [None, "holes", "prefix"],
    "query_lengths": [False, True],
    "key_lengths": [False, True],
    "is_causal": [False, True],
    "sliding_window": [None, 1, 6, 100],
    "attn_logits_soft_cap": [None, 1.5],
    "scale": [None, -0.4],
    "dropout": [None, 0.3],
    "logsumexp": [False, True],
}
CASES = pairwise(FACTORS)


def shape_of(letters, whole):
    return tuple(whole["BNTS".index(c)] if c != "1" else 1 for c in letters)


def arguments(case, rng):
    """The arrays and the options of a case."""
    arrays = make_arrays(
        rng, case["batch"], *case["lengths"], *case["heads"], *case["sizes"]
    )
    whole = batch, _, query_length, key_length = scores_shape(arrays)
    if not case["logsumexp"]:
        del arrays["grad_logsumexp"]
    if case["bias"]:
        arrays["bias"] = rng.standard_normal(shape_of(case["bias"], whole))
    options = {
        name: case[name]
        for name in ("is_causal", "sliding_window", "attn_logits_soft_cap", "scale")
        if case[name] not in (None, False)
    }
    # Few are masked by each option: many options together leave something.
    if case["mask"] == "numeric":
        options["mask"] = (rng.random(whole) < 0.85) * np.float32(2.5)
    elif case["mask"]:
        options["mask"] = rng.random(shape_of(case["mask"], whole)) < 0.85
    if case["query_mask"]:
        options["query_mask"] = rng.random((batch, query_length)) < 0.85
    if case["key_mask"] == "holes":
        options["key_mask"] = rng.random((batch, key_length)) < 0.85
    elif case["key_mask"]:
        ends = rng.integers(0, key_length + 1, (batch, 1))
        options["key_mask"] = np.arange(key_length) < ends
    for name, length in (("query", query_length), ("key", key_length)):
        if case[f"{name}_lengths"]:
            options[f"{name}_lengths"] = rng.integers(length // 2, length + 1, batch)
    if case["dropout"]:
        options |= {"dropout_rate": case["dropout"], "dropout_seed": 3}
    return arrays, options


@pytest.mark.parametrize("number", range(len(CASES)))
def test_every_two_options_together_are_as_exact_as_keras(number, monkeypatch):
    case = CASES[number]
    monkeypatch.setenv("HW3TF_PATH", case["path"])
    arrays, options = arguments(case, np.random.default_rng(number))
    check(arrays, case["dtype"], options, case["graph"])


def test_all_pairs_are_among_the_cases():
    for a, b in itertools.combinations(FACTORS, 2):
        met = {(str(case[a]), str(case[b])) for case in CASES}
        assert len(met) == len(FACTORS[a]) * len(FACTORS[b])
    assert len(CASES) < 80
