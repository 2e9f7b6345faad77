"""The table of tutorial 4's models; its figures are those of the program."""

import importlib
import os

import pytest


def test_models_of_imdb_are_run_once_each_on_their_own_processors(
    tmp_path, monkeypatch, capsys, benchmarks
):
    accuracy = importlib.import_module("imdb.accuracy")
    calls = []

    def run_tutorial(arguments, seed, processors):
        calls.append((tuple(arguments), seed))
        return {
            "accuracy": 0.9 + 0.01 * seed,
            "seconds": 60.0 + seed,
            "peak_mib": 1000.0,
            "parameters": 1234,
            "cores": len(processors),
        }

    monkeypatch.setattr(accuracy, "run_tutorial", run_tutorial)
    path = tmp_path / "runs.json"
    options = ["--rows", "fused", "none", "--seeds", "0", "2", "--json", str(path)]
    accuracy.main(options)
    assert len(calls) == len(set(calls)) == 4
    cores = len(os.sched_getaffinity(0))
    line = f"| **0.9100** | 0.9000, 0.9200 | 61 | {cores} | 1,000 | 1,234 |"
    assert " ".join(capsys.readouterr().out.split()).count(line) == 2
    accuracy.main([*options, "--rows", "fused"])  # known
    assert len(calls) == 4
    with pytest.raises(SystemExit):
        accuracy.main(["--at-once", "0"])
