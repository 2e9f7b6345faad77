"""Tests of the benchmark of LSTM, GRU and simple RNN: that all peers compute the same,
what counts as work, bars, pictures, and the program itself."""

import dataclasses
import functools
import importlib
import json
import logging
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import hw3tf

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def cases():
    return importlib.import_module("recurrence.layers.cases")


@pytest.fixture
def report():
    return importlib.import_module("recurrence.layers.report")


@pytest.fixture(scope="module")
def peer(benchmarks):
    """Makes a library of the benchmark in this process, each once."""
    import tensorflow as tf

    load = importlib.import_module("libraries.peer").load
    peers = importlib.import_module("recurrence.layers.peers")
    known, made = peers.PEERS | peers.JUDGE, {}
    with pytest.MonkeyPatch.context() as patch:
        # TensorFlow has begun, and takes no other number of threads.
        for name in ("intra", "inter"):
            setting = f"set_{name}_op_parallelism_threads"
            patch.setattr(tf.config.threading, setting, lambda n: None)
        for name in ("NPROC", "JAX_PLATFORMS"):  # which the peer of JAX sets
            patch.setenv(name, "")
        logger = logging.getLogger("hw3tf")  # which that of hw3tf listens to
        before = (logger.level, list(logger.handlers))

        def make(name):
            if name not in made:
                made[name] = load(known, name, 1)
            return made[name]

        yield make
        logger.setLevel(before[0])
        logger.handlers[:] = before[1]


def rows(cases, peer, case, inputs=None, way=""):
    """The sampled numbers of a library."""
    inputs = cases.make_inputs(case) if inputs is None else inputs
    arrays = peer.to_numpy(peer.prepare(case, inputs, way)())
    where = cases.sampled(case)
    assert [x.shape for x in arrays] == list(case.result_shapes.values())
    return {n: x[where[n]] for n, x in zip(where, arrays, strict=True)}


SMALL = (3, 5, 4, 6)


@pytest.fixture(scope="module")
def right(benchmarks, peer):
    """The judge's numbers of a case, computed once."""
    cases = importlib.import_module("recurrence.layers.cases")
    return functools.cache(lambda case: rows(cases, peer("judge"), case))


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("hw3tf", "hw3tf"),
        ("hw3tf-core", "hw3tf"),
        ("torch", "torch"),
        ("jax", "jax"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
    ],
)
def test_all_libraries_compute_the_same(cases, peer, right, library, package, request):
    """As Keras does: what is padded, and a stack of two directions where possible."""
    pytest.importorskip(package)
    if library == "hw3tf-core":  # which is told the number of threads
        request.addfinalizer(lambda: hw3tf.ops.set_num_threads(0))
    library = peer(library)
    more = {"layers": 2, "bidirectional": True}
    stack = cases.Case("gru", SMALL, training=True, **more)
    gru = cases.Case("gru", SMALL, training=True)
    for case in (
        cases.Case("lstm", SMALL, training=True, shortest=2),
        cases.Case("simple_rnn", SMALL, training=True),
        gru if library.refuses(stack) else stack,
    ):
        if library.refuses(case):
            case = dataclasses.replace(case, training=False)
        assert library.refuses(case) == ""
        found = rows(cases, library, case, way=library.ways(case)[0])
        assert cases.wrong(case, found, right(case)) == "", case.name
    assert library.note() == ""


def test_what_runtimes_and_the_kernel_cannot_compute(cases, peer, request):
    request.addfinalizer(lambda: hw3tf.ops.set_num_threads(0))
    training = cases.Case("lstm", SMALL, training=True)
    assert peer("onnxruntime").refuses(training) == "onnxruntime has no backward pass"
    stack = cases.Case("gru", SMALL, layers=2, bidirectional=True)
    assert "one layer" in peer("onnxruntime").refuses(stack)
    assert "one layer" in peer("hw3tf-core").refuses(stack)
    assert peer("keras").refuses(stack) == ""


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_row_is_of_layers_that_need_each_other(cases, peer, cell):
    """Each begins with the states of the one before, with inputs of its own."""
    library, case = peer("hw3tf"), cases.Case(cell, SMALL, training=True)
    call = library.prepare(case, cases.make_inputs(case), "")
    outputs, grads = call.row()
    assert len(outputs) == call.count == 4
    assert len(grads) == 4 * (1 + 3)
    states = None
    for seed, output in enumerate(outputs):
        inputs = cases.make_inputs(case, seed)
        run, _ = library.model(case, inputs.weights, return_state=True)
        right, *states = run(inputs.inputs, initial_state=states)
        np.testing.assert_allclose(output, right, atol=1e-6)


def test_long_calls_are_timed_one_by_one(cases, peer, monkeypatch):
    library, case = peer("hw3tf"), cases.Case("simple_rnn", SMALL)
    inputs, module = cases.make_inputs(case), sys.modules[type(library).__module__]
    assert library.prepare(case, inputs, "").count == 4
    monkeypatch.setattr(module, "SHORT_FLOPS", case.flops - 1)
    assert not hasattr(library.prepare(case, inputs, ""), "count")


def test_a_layer_that_is_not_fused_is_named(cases, peer, monkeypatch):
    library, case = peer("hw3tf"), cases.Case("lstm", SMALL)
    monkeypatch.setenv("HW3TF_PATH", "reference")
    rows(cases, library, case)
    assert "runs as in Keras: HW3TF_PATH" in library.note()
    monkeypatch.delenv("HW3TF_PATH")
    rows(cases, library, case)
    assert library.note() == ""


def test_results_of_lower_precision_are_refused(cases, peer):
    """Inputs and weights of ten bits, as in TF32, in the smallest case of the table."""
    case = cases.Case("lstm", (1, 200, 64, 128), training=True)
    inputs = cases.make_inputs(case)
    right = rows(cases, peer("judge"), case, inputs)
    float32 = {name: x.astype(np.float32) for name, x in right.items()}
    assert cases.wrong(case, float32, right) == ""

    def rough(x):
        return x.astype(np.float16).astype(np.float32)

    weights = [tuple(map(rough, inputs.weights[0]))]
    inputs = dataclasses.replace(inputs, inputs=rough(inputs.inputs), weights=weights)
    found = rows(cases, peer("judge"), case, inputs)
    assert cases.wrong(case, found, right).startswith("wrong: outputs is off by ")
    only_bias = float32 | {"grad_bias_0": found["grad_bias_0"]}
    assert "grad_bias_0 is off by" in cases.wrong(case, only_bias, right)
    nan = float32 | {"outputs": np.full_like(right["outputs"], np.nan)}
    assert "outputs is off by nan" in cases.wrong(case, nan, right)


def test_work_is_that_of_the_products_of_steps_that_take_part(cases):
    lstm = cases.Case("lstm", (2, 3, 5, 7))
    assert lstm.flops == 2 * 2 * 3 * (5 + 7) * 4 * 7
    assert lstm.bytes_from_cache == 4 * 3 * 7 * 28
    training = dataclasses.replace(lstm, training=True)
    assert training.flops == 3 * lstm.flops
    assert cases.Case("gru", (2, 3, 5, 7)).flops == lstm.flops * 3 / 4
    assert cases.Case("simple_rnn", (2, 3, 5, 7)).flops == lstm.flops / 4
    stack = cases.Case("gru", (2, 3, 5, 7), layers=2, bidirectional=True)
    assert stack.flops == 2 * 2 * 3 * 2 * ((5 + 7) + (14 + 7)) * 3 * 7
    padded = cases.Case("lstm", (64, 512, 5, 7), shortest=20)
    assert padded.lengths.min() >= 20
    assert padded.flops == 2 * padded.lengths.sum() * (5 + 7) * 4 * 7
    assert 0.4 < padded.flops / cases.Case("lstm", (64, 512, 5, 7)).flops < 0.65


def test_masked_steps_are_not_checked_and_have_no_gradient(cases):
    case = cases.Case("lstm", (4, 50, 3, 2), training=True, shortest=2)
    masked = ~case.taking_part
    assert masked.any()
    assert masked.sum() == (50 - case.lengths).sum()
    assert (case.lengths < 50).any()
    batch, timesteps, _ = cases.sampled(case)["outputs"]
    assert not masked[batch, timesteps].any()
    assert not cases.make_inputs(case).grad_outputs[masked].any()


def test_the_table_has_bars_and_its_cases_have_names_of_their_own(cases):
    table, curve = cases.table(), cases.curve()
    assert len({case.name for case in table + curve}) == len(table) + len(curve)
    assert all(case.ahead > 1 for case in table)
    assert {case.group for case in curve} == {"curve"}
    for training in (False, True):
        found = {case.sizes for case in curve if case.training == training}
        for points in cases.CURVES.values():
            assert found >= set(points.values())


def made_up(case, **seconds):
    """A result of recurrence/layers/run.py."""
    answer = {"peak_mib": 1.0, "way": "", "note": ""}
    return {
        **dataclasses.asdict(case),
        "name": case.name,
        "group": case.group,
        "flops": case.flops,
        "bytes_from_cache": case.bytes_from_cache,
        "libraries": {k: answer | {"best": s, "median": s} for k, s in seconds.items()},
        "left_out": {},
    }


def test_verdicts_name_what_was_missed(cases, report):
    case = cases.Case("lstm", (1, 8, 8, 8), ahead=1.2, of_peak=0.8)
    run = {"peak": {"float32": case.flops * 1e-9}, "threads": 2}
    for seconds, words in (
        ({"hw3tf": 1.0, "torch": 1.2}, "1.20x, 80%: met"),
        ({"hw3tf": 1.0, "torch": 1.5, "jax": 1.1}, "1.20x, 80%: missed, 1.10x"),
        ({"hw3tf": 2.0, "torch": 3.0}, "1.20x, 80%: missed, 50%"),
        ({"hw3tf": 1.0, "hw3tf-core": 0.5}, "1.20x, 80%: unknown"),
        ({"torch": 1.0}, "1.20x, 80%: unknown"),
    ):
        assert report.verdict(made_up(case, **seconds), run) == words
    one = cases.Case("lstm", (1, 200, 64, 128), of_cache=100)
    seconds = one.bytes_from_cache * 1e-9 / 198  # of two threads
    words = report.verdict(made_up(one, hw3tf=seconds), run)
    assert words == "100 GB/s per thread: missed, 99 GB/s per thread"
    unknown = report.verdict(made_up(case, hw3tf=1.0, jax=2.0), run | {"peak": None})
    assert unknown == "1.20x, 80%: unknown"


def test_a_library_with_wider_instructions_is_no_peer(cases, report):
    case = made_up(cases.Case("lstm", (1, 8, 8, 8)), hw3tf=2.0, torch=3.0, jax=1.0)
    assert report.ahead(case) == (0.5, "jax")
    case["libraries"]["jax"]["note"] = "no switch limits it to avx2"
    assert report.ahead(case) == (pytest.approx(1.5), "torch")


def test_picture_shows_every_library_over_all_three_sizes(cases, report, tmp_path):
    from matplotlib import image

    curve = [made_up(case, hw3tf=1e-3, keras=2e-3) for case in cases.curve()]
    run = {"threads": 2, "peak": {"float32": 230.0}, "cases": curve}
    report.draw({"runs": [run]}, tmp_path / "a.png")
    picture = image.imread(tmp_path / "a.png")
    assert picture.shape[:2] > (1500, 1300)
    # A point in one panel alone is seen there.
    (case,) = (c for c in curve if c["sizes"] == (1, 128, 128, 128) and c["training"])
    case["libraries"]["torch"] = case["libraries"]["keras"] | {"best": 5e-3}
    report.draw({"runs": [run]}, tmp_path / "b.png")
    other = image.imread(tmp_path / "b.png")
    changed = (picture != other).any(axis=2)
    below, beside = changed.shape[0] // 3, changed.shape[1] // 2
    assert changed[below : 2 * below, beside:].any()
    assert not changed[: below // 2].any()
    with pytest.raises(SystemExit, match="needs --curve"):
        report.draw({"runs": [{"threads": 2, "cases": []}]}, tmp_path / "c.png")


def test_the_program_measures_checks_and_reports(tmp_path):
    """A tiny case through the real program: processes, the judge, rounds, files. What
    is not installed is named and left out, and so is what computes something else."""
    (tmp_path / "torch.py").write_text("raise ImportError('hidden by the test')")
    page = tmp_path / "README.md"
    page.write_text(
        "<!-- recurrence/layers/run.py writes from here -->\nold\n<!-- to here -->\n"
    )
    done = subprocess.run(
        [sys.executable, FOLDER / "recurrence/layers/run.py", "--quick"]
        + ["--threads", "1", "--isa", "avx2", "--cases", "lstm-forward-1x200*"]
        + ["--libraries", "onnxruntime,torch"]
        + ["--json", tmp_path / "a.json", "--markdown", page],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    (run,) = json.loads((tmp_path / "a.json").read_text())["runs"]
    (case,) = run["cases"]
    assert (run["threads"], run["isa"]) == (1, "avx2")
    assert case["name"] == "lstm-forward-1x7x5x8"
    assert case["flops"] == 2 * 7 * (5 + 8) * 4 * 8
    assert case["left_out"] == {"torch": "not installed: hidden by the test"}
    assert 0 < case["libraries"]["onnxruntime"]["best"] < 10
    for text in (done.stdout, page.read_text()):
        assert "### 1 thread, avx2; peak: " in text
        assert "| 1.60x, 100 GB/s per thread: unknown |" in text
        assert "torch left out: not installed: hidden by the test" in text
        assert "onnxruntime: no switch limits it to avx2" in text
        assert "--quick" in text
    assert "\nold\n" not in page.read_text()


def test_libraries_are_told_the_instruction_set(benchmarks):
    program = importlib.import_module("recurrence.layers.run")
    for words, expected in (([], None), (["--isa", "avx2"], "AVX2")):
        options = program.parse_arguments(words)
        run = program.Run(program.Judge(), 1, options, None, None)
        environment = run.workers["keras"].environment
        assert environment.get("ONEDNN_MAX_CPU_ISA") == expected
        assert "OMP_NUM_THREADS" not in environment
    peak = importlib.import_module("machine_peak").MachinePeak(1, 1, isa="avx2")
    if not peak.why_unknown:
        assert "avx512" not in peak.measure(1)["instruction_set"]
    peak.folder.cleanup()


@pytest.mark.parametrize(
    "arguments",
    [["--libraries", "numpy"], ["--isa", "sse"], ["--rounds", "0"], ["--cases", "x"]],
    ids=" ".join,
)
def test_bad_arguments_are_refused(arguments):
    program = importlib.import_module("recurrence.layers.run")
    with pytest.raises(SystemExit) as refusal:
        program.choose(program.parse_arguments(arguments))
    assert refusal.value.code
