"""Tests of the demo as a user starts it: type, click, result."""

import pathlib
import re
import subprocess
import sys

import pytest

from hw3tf.course.demo import EXAMPLES

TUTORIALS = pathlib.Path(__file__).parents[1] / "tutorials"
GOOD, BAD = EXAMPLES


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the demo, which has had to train its model first."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tutorials").symlink_to(TUTORIALS)
    command = [sys.executable, "-m", "hw3tf.course.demo", "--data", "sample"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if found := re.search(r"The demo is at (http://127\.0\.0\.1:\d+)", line):
                break
        try:
            assert found, "".join(printed)
            yield found[1]
        finally:
            process.terminate()


@pytest.fixture
def visited(visit, address):
    visited = visit(address)
    visited.page.goto(address)
    visited.page.get_by_role("button", name="Judge").wait_for()
    return visited


def ask(page, *reviews):
    """Types the reviews, clicks, and returns the sentence that comes, and the chances
    in it."""
    page.get_by_role("button", name="Judge").wait_for()
    for box, review in zip(page.locator("textarea").all(), reviews, strict=False):
        box.fill(review)
    page.get_by_role("button", name="Judge").click()
    sentence = page.get_by_text(re.compile(r"The (first |second )?review sounds"))
    sentence.wait_for()
    # The parts of a column come one by one.
    page.get_by_label("The word that looks").nth(len(reviews) - 1).wait_for()
    page.locator("span[title]").first.wait_for()
    text = sentence.inner_text()
    return text, [float(p) for p in re.findall(r"\d\.\d+", text)]


def words_and_weights(page):
    """Of the first head: the highlighted words and their weights."""
    words = page.locator("p:has(b)").first.locator("span[title]")
    words.first.wait_for()
    weights = words.evaluate_all("all => all.map(word => Number(word.title))")
    return words.all_inner_texts(), weights


def test_one_review(visited):
    page = visited.page
    sentence, (probability,) = ask(page, GOOD)
    assert sentence.startswith("The review sounds positive")
    assert 0.5 < probability <= 1
    words, weights = words_and_weights(page)
    assert words[:5] == ["they", "all", "talk", "of", "the"]
    # On average over all words, in three digits each.
    assert sum(weights) == pytest.approx(1, abs=0.0005 * len(weights))
    heads = page.locator("p:has(b)")
    assert heads.count() == page.locator("b").filter(has_text=", head ").count() >= 1
    assert page.locator("span[title]").count() == heads.count() * len(words)
    assert visited.complaints == []


def test_the_word_that_looks_is_chosen(visited):
    page = visited.page
    ask(page, GOOD)
    _, average = words_and_weights(page)
    page.get_by_label("The word that looks").first.click()
    page.get_by_role("option", name="25: plot").click()
    page.wait_for_function(
        "before => document.querySelector('p b ~ span[title]').title !== before",
        arg=f"{average[0]:.3f}",
    )
    words, weights = words_and_weights(page)
    assert words[24] == "plot"
    assert weights != average
    assert sum(weights) == pytest.approx(1, abs=0.0005 * len(weights))
    assert visited.complaints == []


def test_two_reviews_are_compared(visited):
    page = visited.page
    sentence, (more, less) = ask(page, BAD, GOOD)
    assert sentence.startswith("The second review sounds more positive")
    assert more > 0.5 > less
    assert page.get_by_label("The word that looks").count() == 2
    assert visited.complaints == []


def test_nothing_typed(visited):
    page = visited.page
    page.get_by_role("button", name="Judge").click()
    page.get_by_text("Type a review first.").wait_for()
    assert page.locator("span[title]").count() == 0
    assert visited.complaints == []


def test_words_of_the_review_are_no_html(visited):
    page = visited.page
    ask(page, "<img src=x onerror=alert(1)> great <b>film</b>")
    assert page.locator("img[src=x]").count() == 0
    assert visited.complaints == []


def test_on_a_phone_in_the_dark(visit, address, contrast):
    page = visit(address, phone=True, scheme="dark").page
    page.goto(address)
    ask(page, GOOD, BAD)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{width} pixels wide"
    ground, ratio = contrast(page.get_by_text("review sounds").first)
    assert ground < 0.1
    assert ratio >= 4.5
