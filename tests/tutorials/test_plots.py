"""Pictures are PNG files of a sensible size that show what they are given."""

import numpy as np
import pytest

from hw3tf.course import plots
from hw3tf.course.plots import images, own_op, sentiment


def read(path):
    from matplotlib import image

    return image.imread(path)


def test_learning_curves_have_both_lines():
    history = {
        name: [1.0, 0.5, 0.3]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy")
    }
    for axis in sentiment.learning_curves(history).axes:
        drawn = [list(line.get_ydata()) for line in axis.lines]
        assert drawn == [[1.0, 0.5, 0.3]] * 2


def test_accuracies_are_bars_in_their_order_with_their_numbers():
    (axis,) = sentiment.accuracies({"words": 0.81, "net": 0.92, "both": 0.93}).axes
    assert [bar.get_width() for bar in axis.patches] == [0.81, 0.92, 0.93]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["words", "net", "both"]
    assert [t.get_text() for t in axis.texts] == ["0.8100", "0.9200", "0.9300"]
    assert axis.yaxis_inverted()  # the first one is at the top


def test_attention_is_drawn_for_every_head_and_the_words_that_are_kept(rng):
    weights = rng.random((3, 4, 4))
    figure = sentiment.attention(weights, list("abcd"), [1, 3])
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["head 0", "head 1", "head 2"]
    for head, axis in enumerate(panels):
        shown = axis.images[0].get_array()
        np.testing.assert_array_equal(shown, weights[head][[1, 3]][:, [1, 3]])
        assert [t.get_text() for t in axis.get_xticklabels()] == ["b", "d"]
    whole = sentiment.attention(weights, list("abcd")).axes[0]
    np.testing.assert_array_equal(whole.images[0].get_array(), weights[0])


def test_words_and_weights_of_different_number_are_refused():
    with pytest.raises(
        ValueError, match=r"`weights` must have shape \(num_heads, 3, 3\)"
    ):
        sentiment.attention(np.ones((1, 4, 4)), list("abc"))


def test_lengths_are_ten_groups_from_short_to_long(rng):
    words = rng.permutation(np.arange(1000))
    axis = sentiment.lengths(words < 500, words).axes[0]
    x, y = axis.lines[0].get_data()
    assert list(np.diff(x) > 0) == [True] * 9
    np.testing.assert_array_equal(y, [1.0] * 5 + [0.0] * 5)


def draw_line(height, path):
    figure, axes = plots.new_figure(1, 1, (4, 3))
    axes[0, 0].plot([0, height])
    plots.save_figure(figure, path)


def test_figures_are_png_and_svg_and_equal_ones_are_equal_files(tmp_path):
    draw_line(1, tmp_path / "a.png")
    draw_line(1, tmp_path / "b.png")
    draw_line(2, tmp_path / "c.png")
    assert len(list(tmp_path.iterdir())) == 6
    for kind in ("png", "svg"):
        a, b, c = ((tmp_path / f"{x}.{kind}").read_bytes() for x in "abc")
        assert a == b
        assert a != c
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_a_figure_that_fails_leaves_the_old_file(tmp_path):
    class Broken:
        def savefig(self, path, **options):
            path.write_text("half")
            raise OSError("disk full")

    draw_line(1, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(Broken(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_times_are_bars_with_their_numbers():
    groups = {"sum": {"loop": 20.0, "NumPy": 0.5}, "norm": {"op": 0.25}}
    (axis,) = own_op.times(groups).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["loop", "NumPy", "op"]
    assert [bar.get_width() for bar in axis.patches] == [20.0, 0.5, 0.25]
    assert [t.get_text() for t in axis.texts] == ["20.00 ns", "0.50 ns", "0.25 ns"]
    first, last = axis.patches[0], axis.patches[2]
    assert first.get_y() < last.get_y()
    assert axis.yaxis_inverted()
    assert first.get_hatch() != last.get_hatch()
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["sum", "norm"]


@pytest.mark.parametrize("groups", [{}, {"sum": {}}, {"sum": {"loop": 0.0}}], ids=str)
def test_times_that_cannot_be_drawn_are_refused(groups):
    with pytest.raises(ValueError, match="must hold positive times"):
        own_op.times(groups)


def test_errors_and_losses_are_lines():
    found = {"op": np.array([[1, 2, 3], [4, 5, 6]]), "formula": np.ones((2, 3))}
    panels = own_op.errors([1, 10], found).axes
    titles = ["y", "gradient of x", "gradient of the scale"]
    assert [axis.get_title() for axis in panels] == titles
    drawn = [axis.lines[0].get_ydata().tolist() for axis in panels]
    assert drawn == [[1, 4], [2, 5], [3, 6]]
    (axis,) = own_op.losses({"op": [2.0, 1.0], "formula": [3.0, 1.5]}).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[2, 1], [3, 1.5]]
    assert {line.get_linestyle() for line in axis.lines} == {"-", "--"}


def test_ten_images_are_named_and_the_first_is_drawn_by_rows(rng):
    ten = rng.integers(1, 256, (3, 4, 5))
    grid, sequence = images.images_and_rows(ten, ["bag", "coat", "shoe"]).axes
    assert [t.get_text() for t in grid.get_xticklabels()] == ["bag", "coat", "shoe"]
    assert grid.images[0].get_array().shape == (6, 27)  # with frames
    drawn = sequence.images[0].get_array()
    np.testing.assert_array_equal(drawn[:, ::2], ten[0].T)
    assert not drawn[:, 1::2].any()
    assert "bag" in sequence.get_title()


def test_tall_images_have_titles():
    axes = images.tall_images(np.zeros((2, 9, 3)), ["a\non top", "b"]).axes
    assert [axis.get_title() for axis in axes] == ["a\non top", "b"]
    assert axes[0].get_ylim() == (9.5, 0.5)  # rows are counted from 1


def test_shares_of_each_class_are_bars():
    labels = np.array([0, 0, 1, 1])
    right = {"CNN": np.array([1, 1, 1, 0]), "GRU": np.array([0, 0, 0, 1])}
    figure = images.by_class(right, labels, ["bag", "coat"])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [1, 0.5, 0, 0.5]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["CNN: 0.750", "GRU: 0.250"]


def test_a_net_has_one_look_in_all_pictures():
    lines = {name: [0.5, 0.25] for name in images.LOOKS}
    one = images.curves({"x": [1, 4], "lines": lines, "xscale": "log"}, ylim=(0, 1))
    other = {"x": [1, 2], "lines": {"GRU": [1, 2]}, "title": "T", "ylabel": "seconds"}
    two = images.curves(other, other)
    (axis,), (left, right) = one.axes, two.axes
    looks = {(line.get_linestyle(), line.get_marker()) for line in axis.lines}
    colors = {line.get_color() for line in axis.lines}
    assert len(looks) == len(colors) == len(lines)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "4"]
    assert (axis.get_ylabel(), axis.get_ylim()) == ("accuracy", (0, 1))
    assert (left.get_title(), left.get_ylabel()) == ("T", "seconds")
    gru = [axis.lines[list(lines).index("GRU")], left.lines[0], right.lines[0]]
    changes = images.influence({"GRU": np.array([0.0, 2.0])}).axes[0]
    assert len({line.get_color() for line in [*gru, *changes.lines]}) == 1
    assert np.isnan(changes.lines[0].get_ydata()).tolist() == [True, False]
