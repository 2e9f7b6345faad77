"""Tests of tutorial 3: the closed forms, the experiments, and its checks of claims."""

import math
from dataclasses import replace

import numpy as np
import pytest
from checks import tutorial_module

from hw3tf.course.tutorial import UserError


@pytest.fixture(scope="module")
def tutorial():
    with tutorial_module("03_self_attention_copying") as module:
        yield module


@pytest.fixture(scope="module")
def settings(tutorial):
    return replace(tutorial.Settings(), num_noisy=500, num_training=300)


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.8, 30.0])
def test_the_closed_form_is_that_of_the_tokens(tutorial, beta):
    x = beta * tutorial.make_tokens(tutorial.directions())[:3]
    weights = softmax(x @ x.T)
    np.testing.assert_allclose(tutorial.exact_weights(beta), weights, atol=1e-13)
    errors = tutorial.relative_error(weights @ x, x)
    exact = tutorial.exact_errors(beta)
    np.testing.assert_allclose(exact, errors[:2], rtol=1e-11, atol=1e-15)
    assert errors[0] == pytest.approx(errors[2], rel=1e-9, abs=1e-15)


def test_directions_are_orthogonal_in_any_size_and_depend_on_the_seed(tutorial):
    for size in (4, 9):
        rows = tutorial.directions(size, seed=1)
        np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-14)
    assert np.abs(tutorial.directions(seed=1) - tutorial.directions(seed=2)).max() > 0.1


def test_attention_is_that_of_numpy_for_one_sequence_and_for_many(tutorial, rng):
    x = rng.normal(size=(2, 5, 3, 4))
    y, weights = tutorial.attend(x, scale=0.7)
    want = softmax(0.7 * x @ np.swapaxes(x, -1, -2))
    np.testing.assert_allclose(weights, want, atol=1e-6)
    np.testing.assert_allclose(y, want @ x, atol=1e-5)
    one, _ = tutorial.attend(x[0, 0], scale=0.7)
    np.testing.assert_allclose(one, y[0, 0], atol=1e-6)


def test_the_beta_of_a_good_copy_is_where_the_error_is_a_thousandth(tutorial):
    beta = tutorial.BETA_OF_GOOD_COPY
    assert tutorial.exact_errors(beta)[1] == pytest.approx(1e-3)
    assert tutorial.exact_errors(beta)[0] < 1e-3
    assert beta == pytest.approx(2.8387, abs=5e-5)
    assert tutorial.find_good_beta(4, 1.0, seed=3) == pytest.approx(beta, abs=1e-3)


def test_heads_send_the_tokens_to_the_circle_and_bring_back_their_share(tutorial):
    heads, weights = tutorial.compare_heads(10.0, seed=2)
    np.testing.assert_allclose(weights, [np.eye(4)] * 2, atol=1e-6)
    assert heads[2] < 1e-5
    assert heads[1] == pytest.approx(heads["least"], rel=1e-3)
    # Of four independent vectors, two dimensions lose something.
    assert heads["least"] > 0.3


def test_noise_that_is_small_breaks_nothing_and_large_noise_does(tutorial, settings):
    small, large = tutorial.count_copies(settings, [0.05, 1.0])
    np.testing.assert_allclose(small[1:], 1, atol=1e-6)
    assert large[1] == pytest.approx(0.688, abs=1e-3)  # the normal distribution's
    assert large[2] == pytest.approx(large[1], abs=0.06)  # 3 sigma of 1000 draws: 0.044
    assert large[3] > 0.99


def test_the_best_guess_counts_the_other_tokens(tutorial):
    assert tutorial.best_guess(np.array([[1, 1, 1, 1]])) == 1
    assert tutorial.best_guess(np.array([[1, 2, 3, 4]])) == pytest.approx(1 / 3)
    # 1 sees 1 and 2: a half; 2 sees 1 and 1: always right.
    assert tutorial.best_guess(np.array([[1, 1, 2]])) == pytest.approx(
        (2 * 0.5 + 1) / 3
    )


def test_without_positions_the_model_does_not_know_the_order(tutorial, settings):
    tokens = tutorial.random_sequences(2, settings, seed=0)
    order = np.random.default_rng(0).permutation(settings.sequence_length)
    for positions in (False, True):
        model = tutorial.build_model(settings, positions)
        shuffled = model(tokens[:, order]).numpy()
        same = np.allclose(shuffled, model(tokens).numpy()[:, order], atol=1e-5)
        assert same is not positions


def good_results(tutorial):
    sweep = tutorial.sweep_beta(seed=0)
    sigma = np.array([0.1, 1.0])
    on_paper = np.array([tutorial.expected_copies(s) for s in sigma])
    beta = tutorial.BETA_OF_GOOD_COPY
    trained = {
        ("copy", True): (1.0, 1.0, None),
        ("copy", False): (1.0, 1.0, None),
        ("reverse", True): (1.0, 1.0, None),
        ("reverse", False): (0.2, 0.2, None),
    }
    return {
        "sweep": sweep,
        "good beta": beta,
        "extra token": tutorial.average_instead_of_copy(10.0, seed=0),
        "scaled betas": {16: 2 * beta},
        "copies": np.stack([sigma, on_paper, on_paper, np.ones(2)], axis=1),
        "heads": tutorial.compare_heads(10.0, seed=0)[0],
        "trained": trained,
        "best guess": 0.21,
    }


def broken(good):
    """Results that contradict a claim, one for each claim and more."""
    sweep = good["sweep"]
    for name in ("norms", "weights", "errors", "kernel off by"):
        yield {"sweep": {**sweep, name: sweep[name] + 0.01}}
    yield from ({"good beta": 2.84}, {"scaled betas": {16: 2.84}})
    errors, average, weights = good["extra token"]
    yield {"extra token": (errors, 0.01, weights)}
    yield {"extra token": (errors + 0.01, average, weights)}
    yield {"extra token": (errors * [1, 1, 1, 0], average, weights)}
    for column in (2, 3):
        copies = good["copies"].copy()
        copies[1, column] -= 0.05
        yield {"copies": copies}
    heads = good["heads"]
    yield from ({"heads": {**heads, name: 0.01}} for name in (1, 2, "least"))
    for case, result in (
        (("copy", True), (0.9, 1.0, None)),
        (("copy", False), (0.9, 1.0, None)),
        (("reverse", True), (1.0, 0.9, None)),
        (("reverse", False), (0.9, 0.9, None)),
    ):
        yield {"trained": {**good["trained"], case: result}}


def test_claims_are_checked(tutorial):
    good = good_results(tutorial)
    tutorial.check_claims(good)
    for contradiction in broken(good):
        with pytest.raises(AssertionError):
            tutorial.check_claims({**good, **contradiction})


def test_pictures_are_drawn(tutorial, tmp_path):
    good = good_results(tutorial)
    tokens = np.arange(12)
    trained = {case: (1.0, 1.0, (tokens, np.eye(12))) for case in good["trained"]}
    tutorial.draw_beta(good["sweep"], tmp_path / "beta.png")
    tutorial.draw_heads(np.eye(4), np.eye(4), tmp_path / "heads.png")
    tutorial.draw_scale_and_noise(
        {4: 3, 16: 6}, good["copies"], tmp_path / "scale_and_noise.png"
    )
    tutorial.draw_trained(trained, tmp_path / "trained.png")
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("*.svg"))) == 4


def test_a_folder_that_cannot_be_written_ends_before_the_work(tutorial, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        tutorial.main(["--quick", "--out", str(tmp_path / "file")])


def test_probabilities_of_noise_are_those_of_the_text(tutorial):
    z = -math.log(2) / (0.5 * math.sqrt(2))
    on_paper = 0.5 * math.erfc(-z / math.sqrt(2))
    assert 1 - tutorial.expected_copies(0.5) == pytest.approx(on_paper)
