"""The benchmarks that measure JAX, in short."""

from library_benchmarks import check_calls, check_models, check_pools


def test_small_calls_are_timed(monkeypatch, tmp_path):
    check_calls(monkeypatch, "jax", tmp_path)


def test_threads_of_two_libraries_are_measured_together(monkeypatch, tmp_path):
    check_pools(monkeypatch, "jax", tmp_path)


def test_layers_and_models_are_measured(monkeypatch, tmp_path):
    check_models(monkeypatch, "jax", "ffi", tmp_path)
