"""The benchmarks that measure PyTorch, in short."""

import pytest
from library_benchmarks import check_calls, check_models, check_pools

torch = pytest.importorskip("torch")


def test_small_calls_are_timed(monkeypatch, tmp_path):
    check_calls(monkeypatch, "torch", tmp_path)


def test_threads_of_two_libraries_are_measured_together(monkeypatch, tmp_path):
    with torch.no_grad():  # the program switches gradients off, too
        check_pools(monkeypatch, "torch", tmp_path)
    assert torch.is_grad_enabled()


def test_layers_and_models_are_measured(monkeypatch, tmp_path):
    check_models(monkeypatch, "torch", "torch", tmp_path)
