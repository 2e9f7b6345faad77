"""Pictures are PNG files of a sensible size that show what they are given."""

import numpy as np
import pytest

from hw3tf import plots


def read(path):
    from matplotlib import image

    return image.imread(path)


def test_learning_curves_are_drawn(tmp_path):
    history = {
        name: [1.0, 0.5, 0.3]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy")
    }
    plots.plot_learning_curves(history, tmp_path / "a.png")
    assert read(tmp_path / "a.png").shape[:2] > (300, 800)


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_drawn_for_every_head(heads, tmp_path):
    plots.plot_attention(
        np.eye(4)[None].repeat(heads, 0), list("abcd"), tmp_path / "a.png"
    )
    picture = read(tmp_path / "a.png")
    plots.plot_attention(np.full((heads, 4, 4), 0.25), list("abcd"), tmp_path / "b.png")
    other = read(tmp_path / "b.png")
    assert picture.shape[1] > 250 * heads
    assert picture.shape != other.shape or not np.array_equal(picture, other)


def test_words_and_scores_of_different_number_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`scores` must have shape \(num_heads, 3, 3\)"
    ):
        plots.plot_attention(np.ones((1, 4, 4)), list("abc"), tmp_path / "a.png")


def test_lines_differ_without_colour():
    _, axes = plots.new_figure(1, 1, (4, 3))
    axis = axes[0, 0]
    plots.plot_lines(
        axis, [0, 1], {n: [0, i] for i, n in enumerate("abcde")}, title="T"
    )
    looks = {(line.get_linestyle(), line.get_marker()) for line in axis.lines}
    assert len(looks) == len(axis.lines) == 5
    assert [line.get_label() for line in axis.lines] == list("abcde")
    assert [list(line.get_ydata()) for line in axis.lines] == [[0, i] for i in range(5)]
    assert axis.get_title() == "T"


def test_more_lines_than_looks_are_refused():
    _, axes = plots.new_figure(1, 1, (4, 3))
    with pytest.raises(ValueError, match=r"at most 5 lines.*6"):
        plots.plot_lines(axes[0, 0], [0], {n: [0] for n in "abcdef"})


def test_confusion_is_drawn_with_true_classes_as_rows(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, path: figures.append(figure)
    )
    matrix = np.array([[5, 1], [0, 3]])
    plots.plot_confusion({"A": matrix, "B": matrix.T}, ["x", "y"], tmp_path / "c.png")
    axes = figures[0].axes
    assert [axis.get_title() for axis in axes] == ["A", "B"]
    texts = {t.get_position(): t.get_text() for t in axes[0].texts}
    assert texts == {(0, 0): "5", (1, 0): "1", (1, 1): "3"}  # (column, row); no zeros
    assert axes[0].get_ylabel() == "true class"


def test_confusion_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(3, 3\).*\(2, 2\) for 'A'"):
        plots.plot_confusion({"A": np.ones((2, 2))}, list("xyz"), tmp_path / "c.png")
