"""Tests of the demo as a user starts it: type, click, result."""

import re
import subprocess
import sys

import pytest

from hw3tf.course.demo import EXAMPLES

GOOD, BAD = EXAMPLES[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the demo, which has had to train its model first."""
    folder = tmp_path_factory.mktemp("demo")
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


def judged(page):
    """The sentence that comes, and the chances in it."""
    sentence = page.get_by_text(re.compile(r"The (first |second )?review sounds"))
    sentence.wait_for()
    text = sentence.inner_text()
    return text, [float(p) for p in re.findall(r"\d\.\d+", text)]


def ask(page, *reviews):
    """Types the reviews, clicks, and returns what `judged` does."""
    for box, review in zip(page.locator("textarea").all(), reviews, strict=False):
        box.fill(review)
    page.get_by_role("button", name="Judge").click()
    return judged(page)


def heads_of(page, review=0):
    """The paragraphs of words, one for each head."""
    return page.locator("#results > section").nth(review).locator(".words")


def words_and_weights(head):
    """Of a head: its words, the weights that it gives them, and how strong each is."""
    words = head.get_by_role("button")
    weights = words.evaluate_all("all => all.map(word => Number(word.title))")
    strengths = words.evaluate_all(
        "all => all.map(x => Number(x.style.background.match(/([\\d.]+)\\)$/)[1]))"
    )
    return words.all_inner_texts(), weights, strengths


def test_one_review(visited):
    page = visited.page
    sentence, (probability,) = ask(page, GOOD)
    assert sentence.startswith("The review sounds positive")
    assert 0.5 < probability <= 1
    assert heads_of(page).count() == page.locator("h2").count() >= 1
    for head in heads_of(page).all():
        words, weights, strengths = words_and_weights(head)
        assert words[:5] == ["they", "all", "talk", "of", "the"]
        # On average over all words, in three digits each.
        assert sum(weights) == pytest.approx(1, abs=0.0005 * len(weights))
        assert max(strengths) == pytest.approx(0.7)
        assert strengths.index(max(strengths)) == weights.index(max(weights))
    assert heads_of(page, 1).count() == 0
    assert visited.complaints == []


def test_the_example_comes_out_right(visited):
    page = visited.page
    page.get_by_role("button", name="Show an example").click()
    sentence, (more, less) = judged(page)
    assert [box.input_value() for box in page.locator("textarea").all()] == [GOOD, BAD]
    assert sentence.startswith("The first review sounds more positive")
    assert more > 0.5 > less
    for review in (0, 1):
        assert heads_of(page, review).count() >= 1
    assert visited.complaints == []


def places(page):
    """Where everything stands that can be clicked."""
    return page.locator("button, textarea").evaluate_all(
        "all => all.map(x => { const r = x.getBoundingClientRect();"
        " return [r.x, r.y + scrollY, r.width, r.height]; })"
    )


@pytest.mark.parametrize("phone", [False, True])
def test_words_are_clicked_and_nothing_moves(visit, address, phone):
    visited = visit(address, phone=phone)
    page = visited.page
    page.goto(address)
    controls = places(page)
    ask(page, GOOD, BAD)
    assert places(page)[: len(controls)] == controls
    before = places(page)
    averages = [words_and_weights(head)[1] for head in heads_of(page).all()]
    word = heads_of(page).first.get_by_role("button", name="plot").last
    word.click()
    assert word.get_attribute("aria-pressed") == "true"
    page.get_by_text("“plot”, looks at:").wait_for()
    after = [words_and_weights(head)[1] for head in heads_of(page).all()]
    for average, weights in zip(averages, after, strict=True):
        assert weights != average
        assert sum(weights) == pytest.approx(1, abs=0.0005 * len(weights))
    assert places(page) == before
    word.click()
    page.get_by_text("On average, the words look at:").first.wait_for()
    assert [words_and_weights(head)[1] for head in heads_of(page).all()] == averages
    assert places(page) == before
    assert visited.complaints == []


def test_two_reviews_are_compared(visited):
    sentence, (more, less) = ask(visited.page, BAD, GOOD)
    assert sentence.startswith("The second review sounds more positive")
    assert more > 0.5 > less
    assert visited.complaints == []


def test_nothing_typed(visited):
    page = visited.page
    page.get_by_role("button", name="Judge").click()
    page.get_by_text("Type a review first.").wait_for()
    assert heads_of(page).count() == 0
    assert visited.complaints == []


def test_words_of_the_review_are_no_html(visited):
    page = visited.page
    ask(page, "<img src=x onerror=alert(1)> great <b>film</b>")
    assert page.locator("#results img, #results b").count() == 0
    assert visited.complaints == []


# Elements of the page whose content is larger than they are.
CUT = """
() => [...document.querySelectorAll("body *")].filter(
  x => x.scrollWidth > x.clientWidth + 1 && getComputedStyle(x).display !== "inline"
    || x.tagName === "TEXTAREA" && x.scrollHeight > x.clientHeight + 1
).map(x => x.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("phone", [False, True])
def test_nothing_is_cut(visit, address, phone):
    page = visit(address, phone=phone).page
    page.goto(address)
    page.get_by_role("button", name="Show an example").click()
    judged(page)
    assert page.evaluate(CUT) == []
    ask(page, f"great {'long' * 100}", GOOD)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{width} pixels wide"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(visit, address, contrast, scheme):
    page = visit(address, phone=True, scheme=scheme).page
    page.goto(address)
    ask(page, GOOD, BAD)
    ground, ratio = contrast(page.get_by_text("review sounds").first)
    assert (ground < 0.1) if scheme == "dark" else (ground > 0.8)
    assert ratio >= 4.5
