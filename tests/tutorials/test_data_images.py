"""Images. The downloaded data sets themselves are read only where they are prepared."""

import time

import numpy as np
import pytest

from hw3tf.course import data
from hw3tf.course.data import images as images_module
from hw3tf.course.data import network


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    found, original = data.load_images("digits"), load_digits()
    assert found.name == "digits"
    assert found.class_names == tuple("0123456789")
    counts = np.bincount(found.train_labels) + np.bincount(found.test_labels)
    np.testing.assert_array_equal(counts, np.bincount(original.target))
    # Every digit is there once: enlarging keeps the mean, but for what it clips at the
    # ends and rounds, half a level at most.
    images = np.concatenate([found.train_images, found.test_images])
    ink = np.sort(images.mean(axis=(1, 2), dtype="float64"))
    weights = enlarging_matrix().sum(axis=0)
    exact = np.einsum("i,nij,j->n", weights, original.images, weights)
    np.testing.assert_allclose(ink, np.sort(exact) * 255 / 16 / 28**2, atol=0.5)


def enlarging_matrix():
    """Linear interpolation from 8 to 20 points, by NumPy: (20, 8)."""
    places = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    unit = np.eye(8)
    return np.stack([np.interp(places, np.arange(8), row) for row in unit], axis=1)


def test_digits_are_enlarged_linearly_into_a_frame(rng):
    small = rng.integers(0, 17, (3, 8, 8))
    large = images_module._enlarge(small)
    assert large.dtype == np.uint8
    inside = large[:, 4:24, 4:24]
    matrix = enlarging_matrix()
    np.testing.assert_allclose(
        inside, matrix @ small @ matrix.T * 255 / 16, atol=0.5 + 1e-9
    )
    assert large.sum() == inside.sum()  # nothing in the frame


def test_digits_are_the_same_every_time_and_no_image_is_in_both_parts():
    one, other = data.load_images("digits"), data.load_images("digits")
    np.testing.assert_array_equal(one.test_images, other.test_images)
    assert one.train_images.shape == (1347, 28, 28)
    assert one.test_images.shape == (450, 28, 28)
    train = {image.tobytes() for image in one.train_images}
    assert not train & {image.tobytes() for image in one.test_images}


@pytest.mark.filterwarnings("default")
def test_without_network_auto_takes_the_digits_and_says_so(no_network):
    start = time.monotonic()
    found = data.load_images("auto", timeout=1)
    assert time.monotonic() - start < 10
    assert found.name == "digits"
    assert "fashion_mnist cannot be loaded: it is not in" in found.origin
    assert "there is no answer from" in found.origin
    assert "\n" not in found.origin


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_without_network_a_named_set_is_an_error_with_the_remedy(name, no_network):
    with pytest.raises(
        RuntimeError, match=f"{name} .*TFDS_DATA_DIR.*tfds build {name}"
    ):
        data.load_images(name, timeout=1)


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match="'auto', 'fashion_mnist', 'mnist', 'digits'"):
        data.load_images("imdb")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_images_are_read_through_tfds(name, monkeypatch):
    """Random images of the same name and form replace the download."""
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=7):
        builder = tfds.builder(name)
        monkeypatch.setattr(type(builder), "is_prepared", lambda self: True)
        found = data.load_images(name)
    assert found.name == name
    assert found.origin.startswith(f"7 + 7 images of {name}, prepared in ")
    assert len(found.class_names) == 10
    for images, labels in (
        (found.train_images, found.train_labels),
        (found.test_images, found.test_labels),
    ):
        assert (images.shape, images.dtype) == ((7, 28, 28), np.uint8)
        assert (labels.shape, labels.dtype) == ((7,), np.int32)
        assert set(labels) <= set(range(10))


def test_server_that_refuses_is_no_answer(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("refused")

    monkeypatch.setattr(network.urllib.request, "urlopen", refuse)
    with pytest.raises(OSError, match=r"no answer from http://x\.invalid/: refused"):
        network.require_answer("http://x.invalid/", timeout=5)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, 3), (-3, 1), (1, -6)])
def test_images_are_shifted(down, right, rng):
    images = rng.integers(0, 256, (2, 28, 28)).astype("uint8")
    expected = np.zeros_like(images)
    for i in range(28):
        for j in range(28):
            if 0 <= i - down < 28 and 0 <= j - right < 28:
                expected[:, i, j] = images[:, i - down, j - right]
    np.testing.assert_array_equal(data.shift_images(images, down, right), expected)
