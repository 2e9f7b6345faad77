"""Tests of the site of `nox -s docs`, opened from the file system."""

import html.parser
import pathlib
import re

import pytest

from hw3tf.course import notebooks

ROOT = pathlib.Path(__file__).parents[1]
LESSONS = [path.stem for path in notebooks.lessons(ROOT / "tutorials")]


def pages_of(site):
    return sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        site = metafunc.config.getoption("--site")
        # The first only leads on.
        metafunc.parametrize("name", [x for x in pages_of(site) if x != "index.html"])


@pytest.fixture(scope="session")
def site(request):
    site = request.config.getoption("--site").resolve()
    assert (site / "index.html").exists(), f"no site in {site}: run `nox -s docs`"
    return site


class Parts(html.parser.HTMLParser):
    """Addresses of what a page loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag != "a":
            self.addresses += [
                attributes.get(name) for name in ("src", "href", "srcset")
            ]


def test_the_site_has_its_pages(site):
    pages = set(pages_of(site))
    tutorials = ROOT.glob("tutorials/[0-9]*.py")
    wanted = {f"tutorials/{path.stem}.html" for path in tutorials}
    wanted |= {f"docs/{name}.html" for name in ("index", "faster", "design")}
    wanted |= {"index.html", "benchmarks/README.html", "CONTRIBUTING.html"}
    wanted |= {f"docs/api/{name}.html" for name in ("layers", "ops", "models")}
    assert wanted <= pages


def test_nothing_comes_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for address in Parts(path.read_text()).addresses:
            assert not re.match(r"(https?:)?//", address or ""), f"{path}: {address}"
    for path in site.rglob("*.css"):
        for address in re.findall(
            r"(?:url\(|@import)\s*['\"]?([^'\")]+)", path.read_text()
        ):
            assert not re.match(r"(https?:)?//", address), f"{path}: {address}"


def open_page(visit, site, name, **options):
    """Opens a page and waits until its formulas are set."""
    visited = visit(site.as_uri(), **options)
    visited.page.goto((site / name).as_uri(), wait_until="load")
    if visited.page.locator("script[src*=tex-]").count():
        visited.page.evaluate("MathJax.startup.promise")
    return visited


# Formulas that are not set: without MathJax's element and a picture of some size in it.
UNSET = """
() => [...document.querySelectorAll(".math")].filter(formula => {
  const box = formula.querySelector("mjx-container svg")?.getBoundingClientRect();
  const wrong = formula.querySelector("mjx-merror, [data-mml-node=merror]");
  return wrong || !box?.width || !box?.height;
}).map(formula => formula.textContent)
"""
BROKEN = "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"


def test_page(visit, site, name):
    """No complaint in the console, formulas set, pictures there."""
    visited = open_page(visit, site, name)
    page = visited.page
    page.locator("img").evaluate_all("all => all.forEach(i => i.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    assert page.evaluate(BROKEN) == []
    assert page.evaluate(UNSET) == []
    assert (visited.complaints, visited.outside) == ([], [])


def test_page_on_a_phone(visit, site, name):
    """Nothing sticks out at the right, and text is not tiny."""
    page = open_page(visit, site, name, phone=True).page
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{width} pixels wide"
    sizes = page.locator("article p").evaluate_all(
        "all => all.map(p => parseFloat(getComputedStyle(p).fontSize))"
    )
    assert all(size >= 13 for size in sizes), sizes


@pytest.mark.parametrize("stem", LESSONS)
def test_lessons_have_formulas_pictures_and_the_results_of_a_full_run(
    visit, site, stem
):
    page = open_page(visit, site, f"tutorials/{stem}.html").page
    formulas = (ROOT / f"tutorials/{stem}.py").read_text().count("$$") // 2
    assert page.locator("mjx-container").count() >= formulas
    assert page.locator(".cell_output img").count() >= 2
    if "quick" not in site.parts:  # where it is short runs
        assert "a full run" in page.locator(".admonition.note").first.inner_text()
        assert "All claims hold." in page.locator(".cell_output").last.inner_text()


@pytest.mark.parametrize("start", ["docs/index.html", "tutorials/README.html"])
@pytest.mark.parametrize("phone", [False, True])
def test_a_card_with_a_picture_leads_to_each_tutorial(visit, site, start, phone):
    page = open_page(visit, site, start, phone=phone).page
    cards = page.locator(".tutorials .sd-card")
    stems = [path.stem for path in sorted(ROOT.glob("tutorials/[0-9]*.py"))]
    assert cards.count() == len(stems)
    for card, stem in zip(cards.all(), stems, strict=True):
        picture = card.locator("img").bounding_box()
        assert min(picture["width"], picture["height"]) > 150
        assert card.locator("a").get_attribute("href").endswith(f"{stem}.html")
    cards.first.click()
    page.wait_for_url(f"**/tutorials/{stems[0]}.html")


def test_first_page_tells_what_it_is_in_the_first_screen(visit, site):
    """The sentence, the one line of code, and what gets faster."""
    page = open_page(visit, site, "docs/index.html").page
    for words in ("attention and recurrent layers", "hw3tf.accelerate(model)"):
        box = page.locator("article").get_by_text(words).first.bounding_box()
        assert box["y"] + box["height"] < page.viewport_size["height"]
    rows = page.locator("article table tbody tr")
    assert rows.count() >= 10
    page.get_by_role("link", name="Will my model get faster?").last.click()
    page.wait_for_url("**/docs/faster.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors(visit, site, scheme, contrast):
    """Text, code, links and formulas have a contrast of 4.5 and more: WCAG's AA."""
    visited = open_page(visit, site, f"tutorials/{LESSONS[0]}.html", scheme=scheme)
    found = {}
    for selector in ("article p", "article h1", "mjx-container", "article a", ".k"):
        element = visited.page.locator(selector).locator("visible=true").first
        found[selector] = contrast(element)
    for selector, (ground, ratio) in found.items():
        assert (ground < 0.1) if scheme == "dark" else (ground > 0.8), selector
        assert ratio >= 4.5, (selector, ratio)


def test_search_finds_words(visit, site):
    visited = open_page(visit, site, "search.html")
    page = visited.page
    page.goto((site / "search.html").as_uri() + "?q=recurrence")
    results = page.locator("ul.search li a")
    results.first.wait_for()
    names = results.evaluate_all("all => all.map(a => a.href)")
    assert any("02_integer_recurrence.html" in name for name in names), names
    results.first.click()
    page.wait_for_load_state()
    assert "recurrence" in page.locator("article").inner_text().lower()
    page.goto((site / "search.html").as_uri() + "?q=zyzzyva")
    page.get_by_text("did not match any documents").wait_for()
    assert visited.complaints == []


@pytest.mark.parametrize(
    ("words", "page_of_them"),
    [
        ("LSTM", "docs/api/layers.html"),
        ("GRU", "docs/api/layers.html"),
        ("mixed precision", "docs/faster.html"),
        ("custom op", "tutorials/05_your_own_op.html"),
    ],
)
def test_search_finds_what_people_look_for(visit, site, words, page_of_them):
    page = open_page(visit, site, "search.html").page
    page.goto(f"{(site / 'search.html').as_uri()}?q={words}")
    page.get_by_text("finished").or_(page.get_by_text("found")).first.wait_for()
    links = page.locator("ul.search li a")
    links.first.wait_for()
    first = links.evaluate_all("all => all.slice(0, 8).map(a => a.href)")
    assert any(page_of_them in link for link in first), first


def test_search_is_reached_from_the_first_page(visit, site):
    page = open_page(visit, site, "index.html").page
    page.wait_for_url("**/docs/index.html")
    box = page.locator("input[name=q]").locator("visible=true").first
    box.fill("saturate")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=saturate*")
    page.locator("ul.search li a").first.wait_for()
