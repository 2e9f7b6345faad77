"""Random models under every method by which Keras runs them, against stock Keras.
`nox -s fuzz` draws more of them (fuzz_models.py)."""

import pytest
from hypothesis import HealthCheck, given, settings
from model_cases import cases, check


# Few: each makes and traces three models.
@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_model_computes_what_stock_keras_does(count):
    # derandomize: the same examples in every run.
    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(case=cases())
    def example(case):
        check(case)

    example()
