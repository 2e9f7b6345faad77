"""Short runs of benchmarks that compare frameworks. Their workers are in the process of
the tests, which has imported its framework already."""

import importlib
import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def load(monkeypatch, name):
    """The program benchmarks/NAME.py."""
    monkeypatch.syspath_prepend(str(FOLDER))

    class Here:
        def __init__(self, module, *arguments, **_):
            self.worker = importlib.import_module(module).Worker(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def demand(self, do, **message):
            return getattr(self.worker, do)(**message)

        ask = demand

    program = importlib.import_module(name)
    monkeypatch.setattr(importlib.import_module("harness"), "Process", Here)
    return program


def forget():
    """Other tests import other modules of these names."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and FOLDER in pathlib.Path(file).parents:
            del sys.modules[name]


def run(program, *options, file):
    """The results of a short run, and its page as words."""
    results = program.main(
        ["--quick", *options, "--json", str(file)]
        + ["--markdown", str(file.with_suffix(".md"))]
    )
    assert json.loads(file.read_text()) == results
    return results, " ".join(file.with_suffix(".md").read_text().split())


def check_calls(monkeypatch, framework, folder):
    """Calls of a framework are timed, forward and training, its own and ours."""
    calls = load(monkeypatch, "libraries.calls")
    results, page = run(calls, f"--frameworks={framework}", file=folder / "calls.json")
    (case,) = results["cases"]
    assert list(case["calls"]) == ["forward", "training"]
    for libraries in case["calls"].values():
        assert list(libraries) == ["hw3tf", "its own"]
        for times in libraries.values():
            assert 0 < times["best"] <= times["median"] < 1e5
    assert f"| {framework} | " in page
    forget()


def check_pools(monkeypatch, framework, folder):
    """Each kind of attention is timed in turn with products, and at once."""
    pools = load(monkeypatch, "libraries.pools")
    results, page = run(pools, f"--frameworks={framework}", file=folder / "pools.json")
    assert [case["size"] for case in results["cases"]] == list(pools.SIZES)
    for case in results["cases"]:
        kinds = pools.KINDS[framework]
        assert tuple(case["turns"]) == tuple(case["at_once"]) == kinds
        for shares in case["at_once"].values():
            assert shares["dense"] > 0
            assert shares["attention"] > 0
        for kind in kinds:
            assert f"| {framework} | {case['size']} | {kind} | " in page
    forget()


def check_models(monkeypatch, backend, path, folder):
    """A layer and a model are fused, on the path `path`, and as exact as stock."""
    pytest.importorskip("keras_hub")  # .ci/matrix.py has none
    program = load(monkeypatch, "models.backends")
    results, page = run(
        program,
        f"--backends={backend}",
        "--cases=LSTM,bert-base-512",
        file=folder / "models.json",
    )
    for case in results["cases"]:
        assert case["path"] == path
        assert case["fused"] == 1
        # Sums of float32 in another order.
        assert case["difference"] < 1e-5
        for one in case["results"]:
            assert one["ratio"] == one["best"]["stock"] / one["best"]["accelerated"]
    for what in ("LSTM, inference", "LSTM, training", "bert-base-512, inference"):
        assert f"| {backend} | {what} | " in page
    forget()
