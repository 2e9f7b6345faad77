"""Random models under every method by which Keras runs them, against stock Keras.
`nox -s fuzz` draws more of them (fuzz_models.py)."""

from hypothesis import HealthCheck, given, settings
from model_cases import cases, check


# derandomize: the same examples in every run. Few: each makes and traces three models.
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(case=cases())
def test_a_model_computes_what_stock_keras_does(case):
    check(case)
