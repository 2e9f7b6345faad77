"""Tests of the benchmark programs: their counts, refusals and output. `nox -s bench`
makes the figures themselves."""

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from library_benchmarks import check_calls, forget, load, run

import hw3tf

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def cases():
    return importlib.import_module("attention.cases")


@pytest.fixture
def report():
    return importlib.import_module("attention.report")


def test_the_program_measures_checks_and_reports(tmp_path, monkeypatch):
    """The smallest case through the real program: worker processes, rounds, files."""
    absent = "raise ImportError('hidden by the test')"
    (tmp_path / "onnx.py").write_text(absent)
    page = tmp_path / "README.md"
    marks = "<!-- attention/run.py writes from here -->", "<!-- to here -->"
    page.write_text("before\n{}\nold\n{}\nafter\n".format(*marks))
    done = subprocess.run(
        [sys.executable, FOLDER / "attention/run.py", "--quick", "--threads", "1"]
        + ["--cases", "forward-32x200*", "--libraries", "hw3tf,keras,onnxruntime"]
        + ["--json", tmp_path / "a.json", "--markdown", page],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    results = json.loads((tmp_path / "a.json").read_text())
    (run,) = results["runs"]
    (case,) = run["cases"]
    assert run["threads"] == 1
    assert case["name"] == "forward-2x64x64x2x2x32"
    assert case["flops"] == 4 * 2 * 2 * 64 * 64 * 32
    assert set(case["libraries"]) == {"hw3tf", "keras"}
    for answer in case["libraries"].values():
        assert 0 < answer["best"] <= answer["median"] < 10
    assert "not installed: hidden by the test" in case["left_out"]["onnxruntime"]
    assert results["versions"]["keras"] == keras.__version__

    for text in (done.stdout, page.read_text()):
        lines = [" ".join(line.split()) for line in text.splitlines()]
        (row,) = (line for line in lines if "| 1.25x, 75%: " in line)
        assert row.startswith("| forward-2x64x64x2x2x32 | ")
        assert "x keras |" in row
        assert "onnxruntime left out: not installed" in text
        assert "--quick" in text
    assert page.read_text().startswith("before\n<!--")
    assert page.read_text().endswith("<!-- to here -->\nafter\n")
    assert "\nold\n" not in page.read_text()

    # Another number of threads is appended. What it would measure is known.
    program = importlib.import_module("attention.run")
    ours = case | {"libraries": {"hw3tf": case["libraries"]["hw3tf"]}}

    def measured(self, cases):
        assert [c.name for c in cases] == [case["name"]]
        yield {"threads": self.threads, "cases": [ours], "peak": run["peak"]}

    monkeypatch.setattr(program.Run, "measure", measured)
    peak = SimpleNamespace(why_unknown="not measured")
    shared = importlib.import_module("libraries.run")
    monkeypatch.setattr(shared, "MachinePeak", lambda **_: peak)
    program.main(
        ["--quick", "--threads", "2", "--cases", "forward-32x200*", "--append"]
        + ["--libraries", "hw3tf", "--json", str(tmp_path / "a.json")]
        + ["--markdown", str(page)]
    )
    first, second = json.loads((tmp_path / "a.json").read_text())["runs"]
    assert first == run
    assert (second["threads"], list(second["cases"][0]["libraries"])) == (2, ["hw3tf"])
    assert page.read_text().count("\npython benchmarks/attention/run.py --quick") == 2


def test_nothing_is_appended_to_no_file_or_to_another_machine(tmp_path):
    program = importlib.import_module("attention.run")
    with pytest.raises(SystemExit):
        program.parse_arguments(["--append", "--json", str(tmp_path / "none.json")])
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"machine": "an abacus", "versions": {}, "runs": []}))
    options = ["--quick", "--append", "--json", str(file), "--cases", "curve-*"]
    with pytest.raises(SystemExit, match="another machine: an abacus"):
        program.measure(program.parse_arguments(options), "")


def test_work_counts_only_what_is_visible(cases):
    sizes = (2, 3, 5, 4, 2, 8)
    assert cases.Case("forward", sizes).flops == 4 * 2 * 4 * 3 * 5 * 8
    causal = cases.Case("forward", sizes, is_causal=True)
    assert causal.flops == 4 * 2 * 4 * (1 + 2 + 3) * 8
    wide = cases.Case("training", (1, 5, 3, 1, 1, 8), is_causal=True, training=True)
    assert wide.flops == 3.5 * 4 * (1 + 2 + 3 + 3 + 3) * 8
    padded = cases.Case("padded", (32, 512, 512, 8, 8, 64), shortest=50)
    assert padded.flops == 4 * 8 * 64 * (padded.lengths**2).sum()
    assert padded.lengths.min() >= 50


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_reference_is_that_of_keras(cases, causal):
    import tensorflow as tf

    case = cases.Case("training", (2, 9, 7, 4, 2, 8), causal, training=True)
    inputs = cases.make_inputs(case)
    query, key, value, grad = (tf.constant(x, "float64") for x in inputs.values())
    with tf.GradientTape() as tape:
        tape.watch([query, key, value])
        output = keras.ops.dot_product_attention(query, key, value, is_causal=causal)
    results = [output, *tape.gradient(output, [query, key, value], grad)]
    right = cases.reference(case, inputs)
    for (name, where), x in zip(cases.sampled(case).items(), results, strict=True):
        np.testing.assert_allclose(right[name], x.numpy()[where], atol=1e-6)


def test_results_of_lower_precision_are_refused(cases):
    case = cases.Case("forward", (1, 40, 40, 2, 2, 16))
    inputs = cases.make_inputs(case)
    right = cases.reference(case, inputs)
    float32 = {name: x.astype(np.float32) for name, x in right.items()}
    assert cases.wrong(case, float32, right) == ""
    rough = {k: x.astype(np.float16).astype(float) for k, x in inputs.items()}
    assert "output is off by" in cases.wrong(case, cases.reference(case, rough), right)
    nan = {"output": np.full_like(right["output"], np.nan)}
    assert "output is off by" in cases.wrong(case, nan, right)


def test_odd_cases_hold_every_size_and_follow_their_neighbours(cases):
    drawn = cases.odd(12, seed=3)
    odd = [case for case in drawn if case.group == "odd"]
    assert len(odd) == 12
    assert {case.sizes[5] for case in odd} == set(cases.HEAD_DIMS)
    assert {case.sizes[1] for case in odd} == set(cases.LENGTHS)
    assert {case.sizes[2] for case in odd} == set(cases.LENGTHS)
    for case in odd:
        assert case.neighbour in [c.name for c in drawn[: drawn.index(case)]]
    assert cases.odd(12, seed=3) == drawn


def answer(seconds):
    return {"best": seconds, "median": seconds, "peak_mib": 1.0, "way": "", "note": ""}


def made_up(case, **seconds):
    """A result of attention/run.py: a second of hw3tf does the peak's work."""
    return {
        **dataclasses.asdict(case),
        "name": case.name,
        "flops": case.flops,
        "bytes": case.bytes_of("key", "value"),
        "bound": case.bound,
        "libraries": {name: answer(s) for name, s in seconds.items()},
        "left_out": {},
    }


def test_verdicts_name_what_was_missed(cases, report):
    case = cases.Case("forward", (1, 8, 8, 1, 1, 8), ahead=1.25, of_peak=0.8)
    peak = {"float32": case.flops * 1e-9, "bfloat16": None, "bandwidth": None}
    run = {"peak": peak, "cases": []}
    for seconds, words in (
        ({"hw3tf": 1.0, "torch": 1.5}, "1.25x, 80%: met"),
        ({"hw3tf": 1.0, "torch": 1.2}, "1.25x, 80%: missed, 1.20x"),
        ({"hw3tf": 2.0, "torch": 3.0}, "1.25x, 80%: missed, 50%"),
        ({"hw3tf": 1.0, "hw3tf-core": 0.5}, "1.25x, 80%: unknown"),
        ({"torch": 1.0}, "1.25x, 80%: unknown"),
    ):
        assert report.verdict(made_up(case, **seconds), run) == words
    slow = cases.Case("odd", (1, 7, 7, 1, 1, 8), neighbour=case.name)
    run["cases"].append(made_up(case, hw3tf=1.0))
    words = report.verdict(made_up(slow, hw3tf=1.0), run)
    assert words == "75% of its neighbour: met"


def test_bandwidth_is_that_of_the_rounds_of_the_case(cases, report):
    case = cases.Case("decode", (4, 1, 4096, 8, 8, 128))
    assert case.bound == "bandwidth"
    whole = {"float32": 1.0, "bfloat16": 1.0, "bandwidth": 100.0}
    mine = made_up(case, hw3tf=case.bytes_of("key", "value") * 1e-9)  # 1 GB/s
    mine["peaks"] = [{"bandwidth": 1.25}, {"bandwidth": 2.0}]
    assert report.share_of_peak(mine, whole) == pytest.approx(0.5)
    mine["peaks"] = [{"bandwidth": None}]
    assert report.share_of_peak(mine, whole) is None


def test_picture_shows_every_library(cases, report, tmp_path):
    from matplotlib import image

    curve = [made_up(case, hw3tf=1e-3, keras=2e-3) for case in cases.curve()]
    run = {"threads": 2, "peak": {"float32": 230.0}, "cases": curve}
    report.draw({"runs": [run]}, tmp_path / "a.png")
    run["peak"] = None
    report.draw({"runs": [run]}, tmp_path / "b.png")
    picture = image.imread(tmp_path / "a.png")
    assert picture.shape[:2] > (500, 1300)
    assert not np.array_equal(picture, image.imread(tmp_path / "b.png"))
    with pytest.raises(SystemExit, match="needs --curve"):
        report.draw({"runs": [{"threads": 2, "cases": []}]}, tmp_path / "c.png")


@pytest.mark.parametrize(
    "arguments",
    [["--libraries", "numpy"], ["--threads", "0"], ["--rounds", "0"], ["--cases", "x"]],
    ids=" ".join,
)
def test_bad_arguments_are_refused(arguments):
    program = importlib.import_module("attention.run")
    with pytest.raises(SystemExit) as refusal:
        program.choose(program.parse_arguments(arguments))
    assert refusal.value.code


@pytest.mark.parametrize("threads", ["0", "1,x", "", "1.5"])
def test_wrong_threads_say_what_was_expected_and_what_came(threads, capsys):
    program = importlib.import_module("attention.run")
    with pytest.raises(SystemExit):
        program.parse_arguments(["--threads", threads])
    wanted = f"integers of at least 1 with commas between, not {threads!r}"
    assert f"--threads: must be {wanted}" in capsys.readouterr().err


def test_the_recurrence_is_measured_checked_and_drawn(tmp_path):
    """Tiny cases through the real program; a peer with another result and a peer that
    is not installed are named and left out."""
    (tmp_path / "numba.py").write_text("raise ImportError('hidden by the test')")
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").write_text("")
    (tmp_path / "scipy" / "signal.py").write_text(
        "def lfilter(b, a, x, axis): return x\n"
    )
    page = tmp_path / "README.md"
    page.write_text(
        "<!-- recurrence/run.py writes from here -->\nold\n<!-- to here -->\n"
    )
    done = subprocess.run(
        [sys.executable, FOLDER / "recurrence/run.py", "--quick", "--threads", "1"]
        + ["--cases", "line-all,dense-256-int8"]
        + ["--peers", "hw3tf,numpy,scipy-lfilter,numba"]
        + ["--json", tmp_path / "r.json", "--markdown", page],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    cases = json.loads((tmp_path / "r.json").read_text())["cases"]
    line, dense = cases
    assert set(line["times"]) == {"hw3tf", "numpy", "read", "copy"}
    assert line["left_out"] == {
        "scipy-lfilter": "other states than hw3tf's",
        "numba": "not installed: hidden by the test",
    }
    assert set(dense["left_out"]) == {"scipy-lfilter", "numba"}
    assert dense["left_out"]["numba"] == "written for one unit"
    for text in (done.stdout, page.read_text()):
        assert "| line-all " in text
        assert "- numba left out: not installed: hidden by the test (line-all)" in text
        assert "the figures mean nothing" in text
    assert "\nold\n" not in page.read_text()


def test_bars_of_the_recurrence_are_judged():
    report = importlib.import_module("recurrence.report")

    def case(name, **best):
        return {"name": name, "times": {k: {"best": t} for k, t in best.items()}}

    measured = [
        case("rows-last", hw3tf=1.0, read=0.6),
        case("line-last", hw3tf=1.0, read=0.59),
        case("rows-last-wrap", **{"hw3tf": 0.8, "keras-cell": 240.0}),
        case("line-last-wrap", hw3tf=0.9),
        case("dense-256", hw3tf=2.0),
        case("dense-256-int8", hw3tf=1.0),
        case("dense-256-short", hw3tf=1.9),
    ]
    rows = {row[0]: row[1:] for row in report.verdicts({"cases": measured})}
    for words, row in {
        "256 x 10,000: share of reading": ["60%", "60%", "met"],
        "10^8, last state: share of reading": ["60%", "59%", "missed"],
        "10^8, all states: share of copying": ["60%", "-", "unknown"],
        "256 x 10,000, wrap: `keras.layers.RNN` with the reference cell": [
            "300x",
            "300x",
            "met",
        ],
        "256 units, int8: int32 with weights of 32 bits": ["2.0x", "2.0x", "met"],
        "256 units, int8: int32 with weights of 16 bits": ["2.0x", "1.9x", "missed"],
        "rows-last: the time of raise over that of wrap, at most": [
            "1.20x",
            "1.25x",
            "missed",
        ],
        "line-last: the time of raise over that of wrap, at most": [
            "1.20x",
            "1.11x",
            "met",
        ],
    }.items():
        assert rows[words] == row, words


def test_picture_of_the_recurrence_shows_every_peer(tmp_path):
    from matplotlib import image

    cases = importlib.import_module("recurrence.cases")
    peers = importlib.import_module("recurrence.peers")
    report = importlib.import_module("recurrence.report")
    assert set(report.STYLES) == set(peers.PEERS)
    results = [
        {
            **dataclasses.asdict(case),
            "name": name,
            "bytes": case.bytes_of_inputs,
            "times": {p: {"best": 1e-3} for p in ("hw3tf", "numba", "read", "copy")},
        }
        for name, case in cases.CURVE.items()
    ]
    report.draw({"cases": results, "threads": 2}, tmp_path / "a.png")
    results[-1]["times"]["jax-scan"] = {"best": 2e-3}
    report.draw({"cases": results, "threads": 2}, tmp_path / "b.png")
    picture = image.imread(tmp_path / "a.png")
    assert picture.shape[:2] > (500, 1300)
    assert not np.array_equal(picture, image.imread(tmp_path / "b.png"))
    with pytest.raises(SystemExit, match="needs the cases"):
        report.draw({"cases": results[:1], "threads": 2}, tmp_path / "c.png")


def test_small_calls_are_timed_and_judged(monkeypatch, tmp_path):
    check_calls(monkeypatch, "tensorflow", tmp_path)
    calls = importlib.import_module("libraries.calls")
    times = {"jax": 10.0, "torch": 30.1, "tensorflow": 99.0}
    cases = [
        {
            "framework": framework,
            "calls": {"forward": {"hw3tf": {"best": best, "median": best}}},
        }
        for framework, best in times.items()
    ]
    bars = [row[-1] for row in calls.rows({"cases": cases})]
    assert bars == ["10: met", "30: missed", "-"]


def test_lengths_from_which_layers_gain(monkeypatch, tmp_path):
    lengths = load(monkeypatch, "libraries.lengths")
    cases = [("attention", 1, 2, 4), ("GRU", 2, 3)]
    monkeypatch.setattr(lengths, "CASES", cases)
    monkeypatch.setattr(lengths, "LENGTHS", (1, 3))
    results, page = run(lengths, file=tmp_path / "lengths.json")
    names = ["attention, batch 1, 2 heads of 4", "GRU, batch 2, 3 units"]
    assert [case["name"] for case in results["cases"]] == names
    for case in results["cases"]:
        assert [list(x) for x in case["microseconds"].values()] == [["1", "3"]] * 2
        assert all(r > 0 for r in lengths.ratios(case).values())
    assert f"| {names[1]} " in page

    def made(*ratios):
        stock = dict(zip(("1", "3"), ratios, strict=True))
        return {"microseconds": {"hw3tf": dict.fromkeys(stock, 1.0), "keras": stock}}

    assert lengths.gains_from([made(1.1, 1.1), made(1.2, 2.0)]) == 1
    assert lengths.gains_from([made(1.1, 1.1), made(1.0, 2.0)]) == 3
    assert lengths.gains_from([made(1.1, 1.0)]) is None
    forget()


def test_stored_simulation_is_that_of_the_plan():
    scaling = importlib.import_module("attention.scaling")
    stored = json.loads((FOLDER / "results/scaling.json").read_text())
    assert stored["cases"] == scaling.simulate()


def test_two_builds_are_compared(capsys):
    """The installed one with itself: the same bits, and a time for each."""
    program = importlib.import_module("compare_builds")
    folder = str(pathlib.Path(hw3tf.__file__).parents[1])
    names = "dense-64,forward-32x200*"
    results = program.main(
        [folder, folder, "--cases", names, "--quick", "--threads", "1"]
    )
    cases = results["cases"]
    assert [c["name"] for c in cases] == ["forward-32x200x200x2x2x32", "dense-64"]
    for case in cases:
        assert min(case[k] for k in ("old", "new", "ratio", "median")) > 0
        assert (case["turns"], case["same_bits"]) == (1, True)
    assert "| dense-64 " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        program.main([folder, "nowhere", "--cases", "dense-64", "--quick"])


@pytest.mark.parametrize("group", ["forward", "training"])
def test_kernel_alone_drops_masks_and_takes_half_precision(cases, group, request):
    """The kernel is called with the options that the extra cases name."""
    from attention.peers.tensorflow import Hw3tfCore

    request.addfinalizer(lambda: hw3tf.ops.set_num_threads(0))
    small = {c.name: cases.shrunk(c) for c in cases.kernel_alone() if c.group == group}
    outputs = {}
    for name, case in small.items():
        call = Hw3tfCore(1).prepare(case, cases.make_inputs(case), "")
        outputs[name.removeprefix(f"{group}-8x512x512x8x8x64")] = call()
    plain, dropped = outputs[""], outputs["-dropout"]
    assert len(plain) == (4 if group == "training" else 1)
    for x, y in zip(plain, dropped, strict=True):
        assert not np.array_equal(x, y)
    causal, as_mask = outputs["-causal"], outputs["-causal-mask"]
    for x, y, z in zip(plain, causal, as_mask, strict=True):
        np.testing.assert_allclose(y, z, atol=1e-5)
        assert not np.array_equal(x, y)
    assert outputs["-f16"][0].dtype == np.float16
    assert outputs["-bf16"][0].dtype.name == "bfloat16"
