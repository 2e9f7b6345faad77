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
