"""The benchmarks of benchmarks/libraries that measure JAX, in short."""

from library_benchmarks import check_calls, check_pools


def test_small_calls_are_timed(monkeypatch, tmp_path):
    check_calls(monkeypatch, "jax", tmp_path)


def test_threads_of_two_libraries_are_measured_together(monkeypatch, tmp_path):
    check_pools(monkeypatch, "jax", tmp_path)
