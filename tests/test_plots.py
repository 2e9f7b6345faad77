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
