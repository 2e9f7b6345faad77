"""The parts of tutorials/02_integer_recurrence.py."""

import numpy as np
import pytest
from checks import tutorial_module
from integer_formula import integer_rnn, limits


@pytest.fixture(scope="module")
def tutorial():
    with tutorial_module("02_integer_recurrence") as module:
        yield module


def run(x, dtype, **options):
    one = np.ones((1, 1), dtype)
    return integer_rnn(x, one, -one, return_sequences=True, **options)[0, :, 0]


@pytest.fixture(scope="module")
def good(tutorial):
    """Results that meet the claims, from Python integers."""
    x = tutorial.alternating(1001, 17_000)[:, :, None]
    exact = run(x, "int64")
    x = tutorial.alternating(10**8, 40)[:, :, None]
    states = {"exact": run(x, "int64")}
    for overflow in ("wrap", "saturate"):
        states[overflow] = run(x, "int32", overflow=overflow)
    assert limits("int32")[1] in states["saturate"]
    return {
        "small": (120_099, 0),
        "odd": (17_157, 0),
        "random": (20_000, 0, 10_000),
        "outputs": [1.0, 0.5, 0.0],
        "float states": (exact, np.where(np.abs(exact) > 2**24, 1.0, 0.0)),
        "four": [1, 0.0],
        "policies": (states, "the recurrence overflows int32 at timestep 21"),
    }


def broken(good):
    """Results that contradict a claim, one for each claim and more."""
    exact, error = good["float states"]
    states, message = good["policies"]
    yield from ({"small": (120_099, 1)}, {"small": (120_098, 0)}, {"odd": (17_157, 2)})
    yield from ({"random": (20_000, 1, 10_000)}, {"random": (20_000, 0, 9_998)})
    yield from ({"random": (10, 0, 10_000)}, {"outputs": [1.0, 0.0, 0.5]})
    yield from ({"float states": (exact, x)} for x in (0 * error, error + 1))
    yield from ({"four": [1, 1.0]}, {"policies": (states, "")})
    for name in ("wrap", "saturate"):
        yield {"policies": ({**states, name: states["exact"]}, message)}


def test_claims_are_checked(tutorial, good):
    tutorial.check_claims(good)
    for contradiction in broken(good):
        with pytest.raises(AssertionError):
            tutorial.check_claims({**good, **contradiction})


def test_small_sequences_are_counted_and_a_wrong_net_is_found(tutorial, monkeypatch):
    assert tutorial.check_small((2, 4)) == (49 + 2401, 0)
    assert tutorial.check_small((1, 3), sign=-1) == (7 + 343, 0)
    # Of odd length, without the turn: right only where the difference is 0.
    assert tutorial.check_small((1,)) == (7, 6)
    monkeypatch.setattr(tutorial, "even_minus_odd", lambda x: x.sum(axis=1))
    assert tutorial.check_small((2,))[1] == 42  # right where the first number is 0


def test_random_sequences_depend_on_the_seed_and_are_right(tutorial, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tutorial, "count_wrong", lambda x, _: seen.append(x.copy()) or 0
    )
    for seed in (0, 0, 1):
        settings = tutorial.Settings(
            num_sequences=6, batch_size=2, longest=50, seed=seed
        )
        assert tutorial.check_random(settings) == (6, 0, 50)
    assert all(len(x) == 2 and x.shape[1] % 2 == 0 for x in seen)
    assert [x.tolist() for x in seen[:3]] == [x.tolist() for x in seen[3:6]]
    assert seen[2].tolist() != seen[8].tolist()


def test_floats_and_policies_are_as_told(tutorial):
    exact, error, four = tutorial.compare_with_floats(timesteps=200)
    np.testing.assert_array_equal(exact[1::2], 2002 * np.arange(1, 101))
    assert not error.any()
    assert four == [1, 0.0]
    states, message = tutorial.compare_policies(timesteps=24)
    x = tutorial.alternating(10**8, 24)[:, :, None]
    np.testing.assert_array_equal(states["exact"], run(x, "int64"))
    for overflow in ("wrap", "saturate"):
        np.testing.assert_array_equal(
            states[overflow], run(x, "int32", overflow=overflow)
        )
    assert message == "the recurrence overflows int32 in batch entry 0 at timestep 21"


def test_pictures_are_drawn(tutorial, good, tmp_path):
    from matplotlib import image

    tutorial.draw_unrolled((5, 3, 4, 1), tmp_path / "unrolled.png")
    tutorial.draw_floats(*good["float states"], tmp_path / "floats.png")
    tutorial.draw_policies(good["policies"][0], tmp_path / "overflow.png")
    for name in ("unrolled", "floats", "overflow"):
        assert image.imread(tmp_path / f"{name}.png").shape[:2] > (300, 800)


def test_bad_arguments_are_refused(tutorial, capsys):
    with pytest.raises(SystemExit):
        tutorial.main(["--seed", "x"])
    assert "--seed" in capsys.readouterr().err
