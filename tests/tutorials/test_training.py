"""Training by time: the clock, the learning rate, checkpoints."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from hw3tf.course import training
from hw3tf.course.tutorial import UserError

SCHEDULE = [0.0, 0.5, 1.0, 0.5, 0.0]


def test_learning_rate_rises_and_falls():
    rates = [training.learning_rate_at(t, 2.0) for t in (0, 0.05, 0.1, 0.55, 1)]
    np.testing.assert_allclose(rates, 2.0 * np.array(SCHEDULE), atol=1e-12)
    rates = [training.learning_rate_at(t, 1.0, 0.5) for t in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(rates, SCHEDULE, atol=1e-12)


class Clock:
    """A substitute for time.perf_counter: readings grow by the numbers in `steps`."""

    def __init__(self, steps):
        self.now, self.steps = 0.0, iter(steps)
        self.between = False

    def __call__(self):
        if self.between:  # the end of a step
            self.now += next(self.steps)
        self.between = not self.between
        return self.now


@pytest.fixture
def clock(monkeypatch):
    def set_steps(steps):
        clock = SimpleNamespace(perf_counter=Clock(steps))
        monkeypatch.setattr(training, "time", clock)

    return set_steps


def small_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def fit(model, budget, **options):
    x = np.arange(16, dtype="float32").reshape(8, 2)
    budget.fit(model, x, x[:, :1], 2, **options)


def test_training_ends_by_time_and_long_steps_count_for_a_second(clock, capsys):
    clock([60, 60, *[0.125] * 100])  # the first step builds the graph
    seen = []
    budget = training.TimeBudget(
        3.0, 0.1, lambda model: seen.append(budget.elapsed) or 0.5, 4, purpose="x, 3 s"
    )
    model = small_model()
    fit(model, budget)
    assert model.optimizer.iterations == 18  # 0 + 1 + 16 / 8 seconds
    assert budget.done
    assert seen == [1.0, 1.5, 2.25, 3.0]
    assert budget.curve == [(t, 0.5) for t in seen]
    out = capsys.readouterr().out
    assert out.startswith("x, 3 s")
    assert out.endswith("3.0 of 3 s, accuracy 0.5000\n")
    assert out.count("\n") == 1


def test_the_curve_has_all_points_where_steps_are_long(clock):
    """Curves of several trainings share a picture."""
    clock([0, *[0.4] * 10])
    budget = training.TimeBudget(1.0, 0.1, lambda model: 0.5, 8)
    fit(small_model(), budget)
    times = [0.4, 0.8, *[1.2] * 6]
    np.testing.assert_allclose(budget.curve, [(t, 0.5) for t in times])


def test_learning_rate_follows_the_time(clock):
    clock([0.125] * 100)
    rates = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    budget = training.TimeBudget(1.0, 0.5, lambda model: 0.0)
    model, x = small_model(), np.ones((4, 2), "float32")
    model.fit(x, x[:, :1], 2, epochs=99, verbose=0, callbacks=[budget, Watch()])
    expected = [training.learning_rate_at(i / 8, 0.5) for i in (0, *range(8))]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def interrupted(clock, path, accuracies, seconds=1.0):
    """A training that ends with Ctrl-C in the validation after these accuracies."""
    clock([0.125] * 100)
    given = iter(accuracies)

    def validate(model):
        states.append([np.array(v) for v in training._state(model)])
        try:
            return next(given)
        except StopIteration:
            raise KeyboardInterrupt from None

    states = []
    model = small_model()
    budget = training.TimeBudget(seconds, 0.1, validate, 4, path, "a small model")
    with pytest.raises(KeyboardInterrupt):
        fit(model, budget)
    return budget, states


def test_interrupted_training_keeps_the_best_state_and_goes_on_from_it(
    clock, tmp_path, capsys
):
    path = tmp_path / "state.npz"
    budget, states = interrupted(clock, path, [0.5, 0.7, 0.6])
    assert budget.saved == (0.5, 0.7)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]
    said = capsys.readouterr().out
    assert f"accuracy 0.7000 after 0 s, in {path}. --resume goes on" in said

    again = training.TimeBudget(1.0, 0.1, lambda _: 0.65, 4, path, "a small model")
    model = small_model()
    assert again.restore(model)
    for variable, wanted in zip(training._state(model), states[1], strict=True):
        np.testing.assert_array_equal(variable, wanted)
    assert (again.elapsed, again.saved) == (0.5, (0.5, 0.7))
    clock([0.125] * 100)
    fit(small_model(), again, resume=True)
    assert again.curve == [(0.25, 0.5), (0.5, 0.7), (0.75, 0.65), (1.0, 0.65)]


def test_in_the_end_the_last_state_is_kept_and_not_trained_again(clock, tmp_path):
    path, steps = tmp_path / "state.npz", [0.125] * 9
    clock(steps)
    falling = iter([0.9, 0.8])
    budget = training.TimeBudget(1.0, 0.1, lambda _: next(falling), 2, path)
    model = small_model()
    fit(model, budget)
    assert budget.saved == (1.0, 0.8)
    again, copy = training.TimeBudget(1.0, 0.1, None, 2, path), small_model()
    fit(copy, again, resume=True)  # one more step would find no time on the clock
    assert again.done
    assert copy.optimizer.iterations == 9
    np.testing.assert_array_equal(copy.get_weights()[0], model.get_weights()[0])


def test_nothing_to_restore(tmp_path):
    for path in (None, tmp_path / "none.npz"):
        budget = training.TimeBudget(1.0, 0.1, None, checkpoint=path)
        assert not budget.restore(small_model())


def test_checkpoint_of_something_else_is_refused(clock, tmp_path):
    path = tmp_path / "state.npz"
    interrupted(clock, path, [0.5])
    budget = training.TimeBudget(1.0, 0.1, None, 4, path, "another model")
    with pytest.raises(UserError, match=r"--resume: .* is of a small model, not of an"):
        fit(small_model(), budget, resume=True)
    budget = training.TimeBudget(1.0, 0.1, None, 4, path, "a small model")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    with pytest.raises(ValueError, match="does not fit"):
        budget.restore(model)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half"])
def test_a_damaged_checkpoint_is_told_before_the_work(content, tmp_path):
    path = tmp_path / "state.npz"
    budget = training.TimeBudget(1, 0.1, None, checkpoint=path)
    budget.check_checkpoint()  # there is none
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"--resume: .*state\.npz is not a checkpoint"):
        budget.check_checkpoint()


def test_a_checkpoint_of_something_else_is_told_before_the_work(clock, tmp_path):
    path = tmp_path / "state.npz"
    interrupted(clock, path, [0.5])
    training.TimeBudget(1, 0.1, None, 4, path, "a small model").check_checkpoint()
    other = training.TimeBudget(1, 0.1, None, 4, path, "another model")
    with pytest.raises(UserError, match="is of a small model, not of another model"):
        other.check_checkpoint()


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="`seconds` must be > 0"):
        training.TimeBudget(0, 0.1, None)


def test_time_of_a_step_is_the_median_after_three(clock):
    clock([90, 80, 70, 1, 2, 9, 3, 8])
    model, x = small_model(), np.ones((4, 2), "float32")
    assert training.seconds_per_step(model, x, x[:, :1]) == 3
    assert model.optimizer.iterations == 8
