"""The parts of tutorials/01_cnn_vs_rnn.py."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from checks import tutorial_module

from hw3tf.course import training
from hw3tf.course.data import Images
from hw3tf.course.tutorial import UserError


@pytest.fixture(scope="module")
def tutorial():
    with tutorial_module("01_cnn_vs_rnn") as module:
        yield module


@pytest.fixture
def images(rng):
    """Noise in the shape of images."""
    return rng.integers(0, 256, (5, 28, 28)).astype("uint8")


@pytest.fixture
def data(rng):
    """Images that are told apart by which columns are bright: a few steps learn it."""

    def part(number):
        labels = np.arange(number) % 10
        bright = np.arange(28) // 2 == 2 + labels[:, None, None]
        noise = rng.integers(0, 50, (number, 28, 28))
        return (200 * bright + noise).astype("uint8"), labels

    names = tuple("abcdefghij")
    return Images("fashion_mnist", "made here", names, *part(120), *part(60))


@pytest.fixture
def steady_clock(monkeypatch):
    """A clock on which 128 steps of training take two seconds, on any machine."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 64)
    monkeypatch.setattr(training, "time", clock)


def test_budgets_of_parameters_are_equal(tutorial):
    counts = [build().count_params() for build in tutorial.NETS.values()]
    assert max(counts) <= 1.05 * min(counts)


def test_cnn_is_equivariant_to_multiples_of_its_stride(tutorial, images):
    cnn = tutorial.build_cnn()
    assert tutorial.equivariance_error(cnn, images, 8) < 1e-5
    assert tutorial.equivariance_error(cnn, images, 1) > 0.01


def test_readings_have_one_shape_for_every_net_and_height(tutorial):
    for name, build in tutorial.NETS.items():
        net = build()
        for rows in (14, 28, 40):
            readings = rows if name == "GRU" else 1
            shape = net(np.zeros((2, rows, 28), "uint8")).shape
            assert tuple(shape) == (2, readings, 10)


def test_reading_after_a_row_is_that_of_the_image_cut_there(tutorial, images):
    gru = tutorial.build_gru()
    at_once = gru.predict(images, verbose=0)
    sizes = set()
    for t, (logits, states) in enumerate(tutorial.read_row_by_row(gru, images)):
        cut = gru.predict(images[:, : t + 1], verbose=0)[:, -1]
        # Logits of size 0.1, by 28 steps of float32.
        np.testing.assert_allclose(at_once[:, t], cut, atol=1e-6)
        np.testing.assert_allclose(logits, cut, atol=1e-6)
        sizes.add(sum(state.shape[1] for state in states))
    assert t == 27
    assert sizes == {246}


def test_anytime_curve_is_that_of_the_readings(tutorial, images):
    labels = np.arange(5)
    nets = {"CNN": tutorial.build_cnn(), "GRU": tutorial.build_gru()}
    found = tutorial.measure_anytime(nets, images, labels)
    assert found["off by"] < 1e-6
    assert found["memory"] == [246]
    gru, cnn = found["curves"]["lines"].values()
    assert len(gru) == len(cnn) == 28
    assert gru[9] == tutorial.accuracy(nets["GRU"], images[:, :10], labels)
    cut = images.copy()
    cut[:, 10:] = 0
    assert cnn[9] == tutorial.accuracy(nets["CNN"], cut, labels)
    assert cnn[-1] == tutorial.accuracy(nets["CNN"], images, labels)


def test_only_the_dense_readout_grows_and_refuses(tutorial):
    counts = tutorial.count_parameters((28, 56))["lines"]
    for name in tutorial.NETS:
        assert counts[name][0] == counts[name][1]
    grown = counts["CNN, dense read-out"]
    assert grown[1] - grown[0] == 10 * 112 * 3 * 4  # 3 more rows of 4 positions
    assert not tutorial.dense_readout_refuses(28)
    assert tutorial.dense_readout_refuses(27)


def test_loss_weighs_the_reading_after_row_t_by_t_squared(tutorial, rng):
    labels, logits = np.array([3, 7]), rng.normal(size=(2, 4, 10)).astype("float32")
    targets = np.full((2, 10), 0.01)
    targets[[0, 1], labels] = 0.91
    scores = logits - np.log(np.exp(logits.astype("float64")).sum(-1, keepdims=True))
    weights = np.array([1, 4, 9, 16]) / 30
    expected = -(targets[:, None] * scores).sum(-1) @ weights
    np.testing.assert_allclose(
        tutorial.loss_of_readings(labels, logits), expected, rtol=1e-5
    )


def test_held_out_images_are_not_trained_on(tutorial, data):
    rng = np.random.default_rng(1)
    data = replace(data, train_images=rng.integers(0, 256, (120, 28, 28)))
    settings = tutorial.Settings()
    x, y, x_held, _ = tutorial.hold_out(data, settings, mirror=True)
    assert (len(x), len(x_held)) == (220, 10)
    np.testing.assert_array_equal(x[110:], x[:110, :, ::-1])
    np.testing.assert_array_equal(y[110:], y[:110])
    seen = {image.tobytes() for image in x}
    assert not seen & {image.tobytes() for image in x_held}
    few, _, held, _ = tutorial.hold_out(data, settings, number=20)
    assert len(few) == 20
    np.testing.assert_array_equal(held, x_held)


def test_only_garments_are_mirrored_and_only_by_the_cnn(tutorial, data):
    assert tutorial.may_mirror("CNN", data)
    assert not tutorial.may_mirror("GRU", data)
    assert not tutorial.may_mirror("CNN", replace(data, name="digits"))


def test_mirror_images_are_judged_like_the_images(tutorial, images):
    cnn = tutorial.build_cnn()
    both = tutorial.predict(cnn, images, mirror=True)
    np.testing.assert_array_equal(
        both, tutorial.predict(cnn, images[:, :, ::-1], mirror=True)
    )


@pytest.mark.parametrize("name", ["CNN", "GRU", "bidirectional"])
def test_nets_learn_and_are_restored(tutorial, data, name, tmp_path, steady_clock):
    settings = replace(tutorial.Settings(), seconds=2.0, batch_size=20)
    net, budget = tutorial.train(name, data, settings, 0, folder=tmp_path)
    assert budget.elapsed == 2
    found = tutorial.accuracy(net, data.test_images, data.test_labels)
    assert found > 0.5  # chance is 0.1
    again, same = tutorial.train(name, data, settings, 0, folder=tmp_path, resume=True)
    assert same.curve == budget.curve
    np.testing.assert_array_equal(again.get_weights()[0], net.get_weights()[0])
    longer = replace(settings, seconds=3.0)
    with pytest.raises(
        UserError, match=r"--resume: checkpoint .* is of .* 2 s, not of"
    ):
        tutorial.train(name, data, longer, 0, folder=tmp_path, resume=True)


def test_interrupted_training_says_where_it_goes_on(
    tutorial, data, tmp_path, monkeypatch, capsys, steady_clock
):
    accuracies = iter([0.5, 0.4])

    def stop(*_):
        try:
            return next(accuracies)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(tutorial, "accuracy", stop)
    settings = replace(tutorial.Settings(), seconds=2.0, batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        tutorial.train("CNN", data, settings, 0, folder=tmp_path)
    assert f"in {tmp_path / 'CNN-0.npz'}. --resume goes on" in capsys.readouterr().out


def test_time_is_measured_for_every_height(tutorial, monkeypatch):
    monkeypatch.setattr(
        tutorial, "seconds_per_step", lambda net, x, y: (x.shape, len(y))
    )
    steps = [((8, 14, 28), 8), ((8, 28, 28), 8)]
    measured = tutorial.measure_steps((14, 28))
    lines = dict.fromkeys(["CNN", "GRU", "GRU, row by row"], steps)
    assert measured == {"x": (14, 28), "lines": lines}


@pytest.fixture
def good(tutorial):
    """Results that meet the claims."""
    heights = (28, 56, 112, 224)
    return {
        "data": "fashion_mnist",
        "parameters": {"CNN": 100, "GRU": 104, "bidirectional": 102},
        "seconds": {"CNN": [9.0, 9.1], "GRU": [9.2, 9.0], "bidirectional": [9.3, 9.1]},
        "accuracy": {"CNN": [0.99], "GRU": [0.8], "bidirectional": [0.99]},
        "equivariance": {1: 0.4, 2: 0.5, 4: 0.6, 8: 1e-7},
        "shifts": {
            "CNN": [[0.9] * 7] * 2,
            "GRU": [[0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1], [0.9] * 7],
            "bidirectional": [[0.5] * 7] * 2,
        },
        "steps": {
            "x": (14, 224),
            "lines": {
                "CNN": [1.0, 2.0],
                "GRU": [1.0, 2.0],
                "GRU, row by row": [1.0, 9.0],
            },
        },
        "few": {"x": (1, 2), "lines": {"CNN": [0.8, 0.9], "GRU": [0.3, 0.9]}},
        "anytime": {
            "curves": {
                "x": list(range(1, 29)),
                "lines": {"GRU": [0.8] * 28, "CNN, the rest empty": [0.2] * 28},
            },
            "off by": 1e-6,
            "memory": [246],
        },
        "heights": {
            "x": tutorial.HEIGHTS,
            "lines": {name: [0.9] * 7 for name in tutorial.NETS},
        },
        "height parameters": {
            "x": heights,
            "lines": {
                **{name: [5, 5, 5, 5] for name in tutorial.NETS},
                "CNN, dense read-out": [5, 6, 7, 8],
            },
        },
        "refused": [True, True, False, True, True, True, True],
    }


def broken(good):
    """Results that contradict a claim, one for each claim and more."""
    yield {"parameters": {**good["parameters"], "GRU": 106}}
    yield {"seconds": {**good["seconds"], "GRU": [9.0, 10.2]}}
    yield {"accuracy": {**good["accuracy"], "CNN": [0.94, 0.89]}}
    yield {"accuracy": {**good["accuracy"], "bidirectional": [0.87]}}
    yield {"equivariance": {**good["equivariance"], 8: 1e-3}}
    yield {"equivariance": {**good["equivariance"], 4: 1e-3}}
    yield {"shifts": {**good["shifts"], "GRU": good["shifts"]["CNN"]}}
    for key, name, values in (
        ("steps", "CNN", [1.0, 4.6]),
        ("steps", "GRU", [1.0, 4.6]),
        ("few", "CNN", [0.2, 0.9]),
        ("height parameters", "GRU", [5, 5, 5, 6]),
        ("height parameters", "CNN, dense read-out", [5, 5, 5, 5]),
    ):
        yield {key: {**good[key], "lines": {**good[key]["lines"], name: values}}}
    anytime = good["anytime"]
    yield {"anytime": {**anytime, "off by": 1e-3}}
    yield {"anytime": {**anytime, "memory": [246, 300]}}
    for lines in ({"GRU": [0.2] * 28}, {"CNN, the rest empty": [0.9] * 28}):
        lines = {**anytime["curves"]["lines"], **lines}
        yield {"anytime": {**anytime, "curves": {"x": None, "lines": lines}}}
    yield {"refused": [True] * 7}


def test_claims_are_checked(tutorial, good):
    bars = tutorial.BARS["fashion_mnist"]
    tutorial.check_claims(good, bars)
    for contradiction in broken(good):
        with pytest.raises(AssertionError):
            tutorial.check_claims({**good, **contradiction}, bars)


def test_pictures_are_drawn(tutorial, good, tmp_path):
    from matplotlib import image

    tutorial.draw(good, tmp_path)
    for name in ("shifts", "steps_and_samples", "rows_and_heights"):
        assert image.imread(tmp_path / f"{name}.png").shape[:2] > (300, 800)
        assert (tmp_path / f"{name}.svg").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--seconds", "inf"],
        ["--seeds", "0"],
        ["--data", "imdb"],
        ["--seed", "-1"],
    ],
    ids=" ".join,
)
def test_bad_arguments_are_refused(tutorial, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        tutorial.parse_arguments(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_missing_data_and_folder_are_one_line(tutorial, tmp_path, monkeypatch):
    def missing(source):
        raise UserError(f"{source} cannot be loaded")

    monkeypatch.setattr(tutorial, "load_images", missing)
    with pytest.raises(UserError, match=r"^mnist cannot be loaded$"):
        tutorial.main(["--data", "mnist", "--out", str(tmp_path / "out")])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .* cannot be written"):
        tutorial.main(["--out", str(tmp_path / "file")])


def test_checkpoints_of_something_else_are_told_before_the_first_training(
    tutorial, data, tmp_path, monkeypatch
):
    """Of all nets and seeds: the last one would be needed after hours."""
    settings = replace(tutorial.Settings(), seconds=2.0)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    np.savez(folder / "bidirectional-1.npz", purpose="x", curve=[[1, 1]], v0=np.ones(1))
    monkeypatch.setattr(tutorial, "train", lambda *_: pytest.fail("trained"))
    args = SimpleNamespace(out=tmp_path, seed=0, seeds=2, resume=True)
    with pytest.raises(UserError, match=r"--resume: .*bidirectional-1\.npz is of x"):
        tutorial.train_and_test(data, settings, args, None)
