"""Tutorial 1: its cells one by one, the nets, and what the cells claim."""

import contextlib
import types

import keras
import numpy as np
import pytest
from lessons import rerun, run_lesson

NAME = "01_cnn_vs_rnn"
SMALL = "--data digits --num-images 448 --num-tested 200 --seconds 0.01"
FEW = "--steps 4 --steps-on-pairs 4"
# Graphs take the time: some nets are not trained anew.
SHORTER = {
    "[18, 34, 66, 130, 258]": "[18, 34]",
    "[14, 56, 224]": "[14]",
    "train(what, build(), x[:count], y[:count], steps)": "nets[name]",
    "train(name, build_cnn(), cut(x, rows), y, settings.steps)": "cnn",
}


@pytest.fixture(scope="module")
def run():
    """The notebook, from its first cell to its last, with few images and steps."""
    arguments = f"--quick {SMALL} {FEW}".split()
    return run_lesson(NAME, *arguments, notebook=True, edits=SHORTER)


@pytest.fixture
def tutorial(run):
    return types.SimpleNamespace(**run.names)


@pytest.fixture
def images(rng):
    """Noise in the shape of images."""
    return rng.integers(0, 256, (5, 28, 28)).astype("uint8")


def test_cells_show_pictures_and_numbers_as_they_run(run):
    assert [len(c.pictures) for c in run.cells if c.pictures] == [1] * 9
    assert "kept after row 1: 246, after row 28: 246 numbers per image\n" in run.printed
    assert "2 of 2 layers with attention or recurrence are fused." in run.printed
    last = run.cells[-1].printed.splitlines()[-1]
    assert last.startswith("Claims that hold: 2. This run has changed settings: ")
    assert last.endswith("Claims that only a full run judges: 1, 3, 4, 5, 6.")


def test_answers_have_one_shape_for_every_net_and_height(tutorial):
    for name, net in tutorial.nets.items():
        for rows in (14, 28, 40):
            answers = rows if name == "GRU" else 1
            shape = net(np.zeros((2, rows, 28), "uint8")).shape
            assert tuple(shape) == (2, answers, 10)


def test_answer_after_a_row_is_that_of_the_image_that_ends_there(tutorial, images):
    at_once = tutorial.gru(images)
    for t, (scores, states) in enumerate(
        tutorial.read_row_by_row(tutorial.gru, images)
    ):
        part = tutorial.gru(images[:, : t + 1])[:, -1]
        # Scores of size 1, by 28 steps of float32.
        np.testing.assert_allclose(at_once[:, t], part, atol=1e-5)
        np.testing.assert_allclose(scores, part, atol=1e-5)
        assert [tuple(state.shape) for state in states] == [(5, 123)] * 2
    assert t == 27


def test_early_answers_are_those_of_the_rows_so_far(tutorial):
    images, labels = tutorial.probed, tutorial.their_labels
    for name, net in (("GRU", tutorial.gru), ("CNN", tutorial.cnn)):
        some = images[:, :10] if name == "GRU" else tutorial.cut(images, 10)
        assert tutorial.early[name][9] == tutorial.accuracy(net, some, labels)
    assert (tutorial.cut(images, 10)[:, 10:] == 0).all()
    np.testing.assert_array_equal(tutorial.cut(images, 10)[:, :10], images[:, :10])


def test_loss_is_the_mean_over_the_answers(tutorial, rng):
    labels, scores = np.array([3, 7]), rng.normal(size=(2, 4, 10)).astype("float32")
    share = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    wanted = -np.log(share[[0, 1], :, labels]).mean(axis=1)
    np.testing.assert_allclose(
        tutorial.loss_of_answers(labels, scores), wanted, rtol=1e-5
    )


def test_multiplications_are_counted_per_position(tutorial):
    conv = [9 * 16, 9 * 16 * 48, 9 * 48 * 96, 9 * 96 * 112]
    positions = [28 * 28, 14 * 14, 7 * 7, 4 * 4]
    assert tutorial.multiplications_of_cnn(28) == np.dot(conv, positions)
    assert tutorial.multiplications_of_cnn(1) == np.dot(conv, [28, 14, 7, 4])
    assert tutorial.per_row == 3 * 123 * (28 + 3 * 123) + 123 * 10


def test_nets_are_trained_for_whole_epochs_until_the_rate_is_small(tutorial, rng):
    labels = np.arange(300) % 10
    bright = np.arange(28) // 2 == 2 + labels[:, None, None]
    x = (200 * bright + rng.integers(0, 50, (300, 28, 28))).astype("uint8")
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    layers += [keras.layers.Dense(10), keras.layers.Reshape((1, 10))]
    net = keras.Sequential([keras.Input((28, 28)), *layers])
    tutorial.train("small", net, x, labels, steps=41, rate=0.02)
    assert int(net.optimizer.iterations) == 42  # 14 epochs of 3
    assert 0 <= float(net.optimizer.learning_rate) < 1e-4
    assert tutorial.accuracy(net, x, labels) > 0.9  # chance is 0.1


def test_tall_images_have_two_pictures_of_different_classes(tutorial, images):
    small = tutorial.halved(images)
    assert small[2, 3, 4] == images[2, 6:8, 8:10].mean().astype("uint8")
    tall = tutorial.stacked(small, small[::-1], gap=34)
    assert tall.shape == (5, 20 + 14 + 34 + 14 + 22, 14)
    np.testing.assert_array_equal(tall[:, 20:34], small)
    np.testing.assert_array_equal(tall[:, 68:82], small[::-1])
    assert tall.sum() == 2 * small.sum()
    labels = np.array([0, 1, 0, 1, 2])
    first, second, one, other = tutorial.pairs_of(images, labels)
    assert (one != other).all()
    for pictures, their_labels in ((first, one), (second, other)):
        for picture, label in zip(pictures, their_labels, strict=True):
            (place,) = [i for i in range(5) if np.array_equal(small[i], picture)]
            assert labels[place] == label


def test_rows_that_matter_are_those_of_the_window(tutorial):
    moved = tutorial.seen["CNN"] > 1e-6 * tutorial.seen["CNN"].max()
    assert np.flatnonzero(moved).tolist() == list(range(37, 55))
    assert len(tutorial.seen["GRU"]) == 88
    assert tutorial.seen["GRU"][-1] > 0


def test_features_move_with_the_image_by_multiples_of_the_stride(tutorial):
    assert tutorial.change[8] < 1e-5
    assert min(tutorial.change[n] for n in (1, 2, 4)) > 0.01


def test_images_are_shifted_to_both_sides(tutorial):
    seen = []

    def net(part):
        seen.append(part)
        return keras.ops.zeros((len(part), 1, 10))

    tutorial.after_shift(net, 3, sideways=True)
    tutorial.after_shift(net, 3, sideways=False)
    sideways, down = seen
    original = tutorial.probed
    np.testing.assert_array_equal(sideways[::2, :, 3:], original[::2, :, :-3])
    np.testing.assert_array_equal(sideways[1::2, :, :-3], original[1::2, :, 3:])
    np.testing.assert_array_equal(down[::2, 3:], original[::2, :-3])
    np.testing.assert_array_equal(down[1::2, :-3], original[1::2, 3:])


def cases(t):
    """(a text of the cell that judges, the claim, names with which it holds, changes
    of them with each of which it does not)."""
    right, some = np.ones(200, bool), np.arange(200) < 150
    good = dict.fromkeys(t.nets, some) | {"CNN": right}
    yield (
        "of the better RNN",
        1,
        {"right": good},
        [
            {"right": good | {"CNN": some}},
            {"right": good | {"bidirectional GRU": right}},
            {"right": good, "nets": t.nets | {"GRU": t.build_gru(64)}},
        ],
    )

    def forgetful(gru, images):
        for scores, states in t.read_row_by_row(gru, images):
            yield scores + 0.01, states

    def growing(gru, images):
        for row, (scores, states) in enumerate(t.read_row_by_row(gru, images)):
            yield scores, [*states, np.zeros((1, row))]

    yield "numbers kept", 2, {}, [{"read_row_by_row": f} for f in (forgetful, growing)]
    yield "multiplications for", 2, {}, [{"per_row": 10 * t.per_row}]
    good = {"GRU": np.ones(88), "CNN": t.seen["CNN"]}
    short, wide = np.arange(88) > 30, np.arange(88) < 20
    yield (
        "least effect",
        3,
        {"seen": good},
        [
            {"seen": good | {"GRU": short}},
            {"seen": good | {"CNN": wide}},
            {"seen": good, "tall_cnn": t.tall_gru},
        ],
    )
    good = {"GRU": [0.9], "CNN": [0.5]}
    changes = [{"far": good | line} for line in ({"GRU": [0.5]}, {"CNN": [0.6]})]
    yield "upper picture named", 3, {"far": good}, changes
    odd = types.SimpleNamespace(shift_images=lambda x, *_: np.roll(x, 7, axis=1))
    yield "shift of 8 pixels", 4, {}, [{"course": odd}]
    lines = [{"CNN": [0.9] * 7, "GRU": [sideways] * 7} for sideways in (0.5, 0.7)]
    good, change = ({"shifted": {"sideways": line}} for line in lines)
    yield "4 pixels sideways", 4, good, [change]
    good, change = (
        {"CNN": [0.6, few, 0.9], "GRU": [0.5, 0.6, 0.8]} for few in (0.8, 0.7)
    )
    yield "on a quarter", 5, {"learned": good}, [{"learned": change}]

    def accelerate(net):
        net.set_weights(t.build_gru().get_weights())
        return contextlib.nullcontext()

    other = types.SimpleNamespace(accelerate=accelerate)
    yield 'the fused one", diff', 6, {}, [{"hw3tf": other}]
    good, change = ({"GRU of Keras": [1, slow], "GRU": [9, 1]} for slow in (3, 1.5))
    yield "in steps of", 6, {"times": good}, [{"times": change}]


def test_claims_are_judged(run, tutorial, monkeypatch):
    monkeypatch.setattr(tutorial.lesson, "full", True)
    for text, claim, good, changes in cases(tutorial):
        assert rerun(run, text, **good) == ({claim}, set()), text
        for change in changes:
            assert rerun(run, text, **good | change)[1] == {claim}, (text, change)
