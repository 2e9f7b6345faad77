"""Tests of the benchmark of whole models."""

import importlib
import importlib.util
import json
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("benchmarks")


def ask_here(case, do, **message):
    """What models/run.py asks a process for, in this one: others would each take
    seconds to import TensorFlow, for one call."""
    worker = importlib.import_module("models.worker")
    return getattr(worker.Worker(json.dumps(vars(case))), do)(**message)


@pytest.fixture
def program(monkeypatch):
    """models/run.py, whose process measures times. It measures memory in this one."""
    program = importlib.import_module("models.run")
    ask = program.ask

    def answer(case, do, **message):
        return (ask_here if do == "peak" else ask)(case, do, **message)

    monkeypatch.setattr(program, "ask", answer)
    return program


def test_models_are_measured_as_they_are_and_accelerated(program, tmp_path, capsys):
    """Tiny models through the real program: a training step, and memory alone."""
    page = tmp_path / "README.md"
    page.write_text(
        "before\n<!-- models/run.py writes from here -->\nold\n<!-- to here -->\n"
    )
    program.main(
        ["--quick", "--no-peaks", "--cases", "bert-small-*,llama-like-4096"]
        + ["--json", str(tmp_path / "m.json"), "--markdown", str(page)]
    )
    printed, log = capsys.readouterr()
    training, memory = json.loads((tmp_path / "m.json").read_text())["cases"]
    assert training["fused"] == [1, 1]
    # Sums of float32 in another order, and not the same function twice.
    assert 0 < training["difference"] < 1e-5
    assert set(training["rounds"]) == {"stock", "accelerated"}
    best = {kind: min(times) for kind, times in training["rounds"].items()}
    assert training["ratio"] == best["stock"] / best["accelerated"]
    assert "ratio" not in memory
    assert memory["verdict"].startswith("25% of the memory: ")
    assert set(memory["peak_mib"]) == {"stock", "accelerated"}
    if sys.platform == "linux":
        assert all(mib >= 0 for mib in memory["peak_mib"].values())
    assert "[2 of 2, " in log
    for text in (printed, page.read_text()):
        rows = [" ".join(line.split()) for line in text.splitlines()]
        assert any(row.startswith("| bert-small-training-512 | ") for row in rows)
        assert any(row.startswith("| llama-like-4096 | - | ") for row in rows)
    assert page.read_text().startswith("before\n<!--")
    assert "\nold\n" not in page.read_text()


def test_recurrent_models_are_measured(program, tmp_path, capsys, monkeypatch):
    """A tiny one, which has a dictionary of inputs."""
    monkeypatch.setattr(program, "ask", ask_here)
    program.main(
        ["--quick", "--no-peaks", "--cases", "dates-*-training"]
        + ["--json", str(tmp_path / "m.json")]
    )
    printed = capsys.readouterr().out
    (dates,) = json.loads((tmp_path / "m.json").read_text())["cases"]
    assert dates["fused"] == [2, 2]
    assert 0 < dates["difference"] < 1e-5
    assert dates["verdict"].startswith("1.50x: ")
    assert "encoder-decoder for dates, LSTM, 1 x 128 units; training" in printed


def test_generation_is_measured_in_tokens(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, "ask", ask_here)
    name = "gpt2-small-generation-8"
    program.main(
        ["--quick", "--no-peaks", "--cases", name, "--json", str(tmp_path / "m.json")]
    )
    printed = capsys.readouterr().out
    (case,) = json.loads((tmp_path / "m.json").read_text())["cases"]
    assert case["fused"] == [1, 1]
    assert 0 < case["difference"] < 1e-5
    assert "generation of 32 tokens, batch 8 of 64" in printed
    # Two sequences of 16 tokens each, in the tiny case.
    rates = [f"{2 * 16 / case[kind]['best']:.1f}" for kind in program.KINDS]
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"| {name} | {rates[0]} | {rates[1]} | {case['ratio']:.2f}x |" in rows


RECURRENT = ("imdb-bilstm", "fashion-rows-gru", "characters-lstm", "forecaster-lstm")


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_models_train_and_run(name):
    cases = importlib.import_module("models.cases")
    worker = importlib.import_module("models.worker")
    for kind in ("training", "inference"):
        case = cases.shrunk(cases.CASES[f"{name}-{kind}"])
        given = worker.tensors(cases.inputs(case, np.random.default_rng(0)))
        result = worker.function(case, cases.build(case))(given)
        assert isinstance(result, dict) == (kind == "training")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratio": 1.3}, "1.30x: met"),
        ({"ratio": 1.29}, "1.30x: missed"),
        ({"memory_bar": 0.25}, "25% of the memory: met"),
        (
            {"memory_bar": 0.25, "peak_mib": {"stock": 8, "accelerated": 2}},
            "25% of the memory: missed",
        ),
        ({"memory_bar": 0.25, "peak_mib": None}, "memory: unknown"),
    ],
    ids=str,
)
def test_bars_of_models_are_judged(changes, words):
    models = importlib.import_module("models.run")
    result = {"bar": 1.3, "memory_bar": None}
    result["peak_mib"] = {"stock": 8.1, "accelerated": 2}
    assert models.verdict(result | changes) == words


def test_models_without_a_match_are_refused():
    models = importlib.import_module("models.run")
    with pytest.raises(SystemExit):
        models.main(["--cases", "nothing"])
    assert models.main(["--cases", "gpt2-*", "--list"]) is None


def test_profile_of_a_model_tells_what_the_kernel_takes(capsys):
    program = importlib.import_module("models.profile")
    for more, calls in ((["--stock"], None), ([], 1)):  # one layer, one attention
        kinds = program.main(["gpt2-small-1024", "--quick", *more])
        assert kinds.get("Hw3tfAttention", [0, None])[1] == calls
        assert "processors busy" in capsys.readouterr().out


def test_profile_of_generation_sees_the_operations_of_the_loop():
    program = importlib.import_module("models.profile")
    for more in (["--stock"], []):
        kinds = program.main(["gpt2-small-generation-8", "--quick", *more])
        assert kinds["MatMul"][1] > 16  # one at least for every token
