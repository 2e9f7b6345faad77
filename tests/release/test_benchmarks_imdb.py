"""The table of tutorial 4's models; its figures are those of the program."""

import importlib
import os
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_models_of_imdb_are_run_once_each_on_their_own_processors(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(FOLDER)
    imdb_models = importlib.import_module("imdb_models")
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

    monkeypatch.setattr(imdb_models, "run_tutorial", run_tutorial)
    path = tmp_path / "runs.json"
    options = ["--rows", "fused", "none", "--seeds", "0", "2", "--json", str(path)]
    imdb_models.main(options)
    assert len(calls) == len(set(calls)) == 4
    cores = len(os.sched_getaffinity(0))
    line = f"| **0.9100** | 0.9000, 0.9200 | 61 | {cores} | 1000 | 1,234 |"
    assert capsys.readouterr().out.count(line) == 2
    imdb_models.main([*options, "--rows", "fused"])  # known
    assert len(calls) == 4
    with pytest.raises(SystemExit):
        imdb_models.main(["--at-once", "0"])
