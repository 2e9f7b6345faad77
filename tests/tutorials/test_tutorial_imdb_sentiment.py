"""Tutorial 4: its cells on small data, what they claim, what a reader's change gives.

The nets are not trained here, except those of one test: `nox -s tutorials` and .ci/run
do whole runs, whose claims are judged there.
"""

import sys
import types

import numpy as np
import pytest
from lessons import require_judged, run_lesson

from hw3tf.course import data, sentiment

NAME = "04_imdb_sentiment"
FIT = """    model.fit(
        training, epochs=options.epochs, shuffle=False, verbose=0, callbacks=report
    )
"""
BUILD = "    model.optimizer.build(model.trainable_variables)\n"  # it is saved
SMALL = ("--quick", "--data", "sample", "--max-reviews", "300", "--seconds", "0.01")


def few_reviews(source, unlabelled=False):
    """The sample, but a fortieth of it."""
    texts, labels, _ = data.sample_reviews(300, seed=1)
    test_texts, test_labels, hard = data.sample_reviews(60, seed=2)
    return data.Reviews(
        "sample",
        "a few generated reviews",
        texts,
        labels,
        test_texts,
        test_labels,
        hard,
    )


class PredictOnce:
    """`sentiment.predict` for the first net; for the others, which take as long to be
    traced, numbers in the place of logits."""

    def __init__(self):
        self.predict, self.count = sentiment.predict, 0

    def __call__(self, model, batches, callbacks=None):
        self.count += 1
        if self.count == 1:
            return self.predict(model, batches, callbacks)
        number = sum(len(floats) for _, floats in batches)
        return np.random.default_rng(self.count).standard_normal(number)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The notebook, from its first cell to its last, without `fit`."""
    folder = tmp_path_factory.mktemp("lesson")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_reviews", few_reviews)
        patch.setattr(sentiment, "predict", PredictOnce())
        arguments = (*SMALL, "--out", str(folder))
        return run_lesson(NAME, *arguments, notebook=True, edits={FIT: BUILD})


def test_cells_show_pictures_and_numbers_as_they_run(run):
    pictures = [len(cell.pictures) for cell in run.cells if cell.pictures]
    assert pictures == [1] * 9
    assert "Traceback" not in run.printed
    assert "300 training reviews, " in run.printed
    for what in ("not bad", "great"):
        assert f"{what:10} ratio" in run.printed
    last = run.cells[-1].printed
    assert "accuracies, all five" in last
    assert "Claims that only a full run on IMDB judges: 1, 2, 3." in last
    assert "All claims hold" not in run.printed


def test_the_table_grows_by_one_model_after_the_other(run):
    assert list(run.names["table"]) == [
        "bag of words",
        "Transformer",
        "with positions",
        "with convolution",
        "with phrases",
        "GRU for attention",
        "LSTM for attention",
        "nothing for attention",
        "log-linear model",
        "all five",
    ]
    assert list(run.names["on_hard"]) == [
        "attention",
        "no attention",
        "bag of words",
        "naive Bayes",
    ]


def test_models_are_what_their_names_say(run):
    """By the layers that they have."""
    names = run.names
    layers = {type(x).__name__ for x in names["nets"]["attention"].layers}
    assert "MultiHeadAttention" in layers
    layers = {type(x).__name__ for x in names["nets"]["no attention"].layers}
    assert "MultiHeadAttention" not in layers
    plain = names["sentiment"].build_classifier(names["plain"], names["nothing"])
    assert not {"Conv1D"} & {type(x).__name__ for x in plain.layers}
    assert names["fused"].count_params() == names["stock"].count_params()


def test_all_five_is_the_sum_of_the_five(run):
    names = run.names
    members = list(names["members"].values())
    assert len(members) == 4
    wanted = np.mean(members, axis=0) + names["log_linear"]
    np.testing.assert_array_equal(names["added_up"], wanted)
    right = (wanted > 0) == (few_reviews("sample").test_labels == 1)
    assert names["table"]["all five"] == right.mean()


class Judged:
    """IMDB in a full run, as far as the claims can tell."""

    def __init__(self, run):
        self.run, self.lesson = run, run.names["lesson"]

    def __enter__(self):
        self.before = self.lesson.full
        self.lesson.full = True
        return self

    def __exit__(self, *error):
        self.lesson.full = self.before


def test_a_wrong_result_breaks_its_claim_and_no_other(run):
    names = run.names
    table = names["table"]
    equal = iter([0.03, 0.03])
    saved = {"saved_difference": 0.0, "exported_difference": 0.1}
    saved["probabilities"] = np.array([0.9, 0.1])
    with Judged(run):
        require_judged(
            run,
            [
                (
                    "of it, by phrases",
                    {
                        "needs": "",
                        "train": lambda *a: (None, np.full(60, -1.0)),
                        "table": {**table, "with convolution": 0.9},
                    },
                    {1},
                ),
                (
                    'lesson.show("all_models"',
                    {"needs": "", "accuracy": lambda logits: 0.91},
                    {2},
                ),
                (
                    "Timing both",
                    {"needs": "", "best_time": lambda call, seconds: next(equal)},
                    {3},
                ),
                (
                    'lesson.show("hard"',
                    {"hard_accuracy": lambda logits: 0.7},
                    {4},
                ),
                (
                    "save_and_compare",
                    {
                        "sentiment": types.SimpleNamespace(
                            with_tokenizer=lambda *a: None,
                            save_and_compare=lambda *a: saved,
                            print_judged=lambda *a: None,
                        )
                    },
                    {5},
                ),
            ],
            claims=5,
        )


def test_other_options_are_those_of_the_program(monkeypatch):
    from hw3tf.course.sentiment import program

    seen = []
    monkeypatch.setattr(program, "main", lambda argv: seen.append(sys.argv[1:]))
    run = run_lesson(NAME, "--model", "lstm", "--quick")
    assert seen == [["--model", "lstm", "--quick"]]
    assert not run.status
    assert "lesson" in run.names
    assert "settings" not in run.names
