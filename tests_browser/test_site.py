"""Tests of the site of `nox -s docs`, opened from the file system."""

import html.parser
import pathlib
import re

import pytest


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
    tutorials = pathlib.Path(__file__).parents[1].glob("tutorials/[0-9]*.py")
    wanted = {f"tutorials/{path.stem}.html" for path in tutorials}
    wanted |= {f"docs/{name}.html" for name in ("index", "design", "serving")}
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


def tutorials(site):
    return [name for name in pages_of(site) if re.match(r"tutorials/\d", name)]


def test_tutorials_have_formulas_and_pictures(visit, site):
    assert tutorials(site)
    for name in tutorials(site):
        page = open_page(visit, site, name).page
        source = pathlib.Path(__file__).parents[1] / name.replace(".html", ".py")
        formulas = source.read_text().count("$$") // 2
        assert page.locator("mjx-container").count() >= formulas, name
        assert page.locator(".cell_output img").count() >= 2, name
        assert "All claims hold." in page.locator(".cell_output").last.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors(visit, site, scheme, contrast):
    """Text, code, links and formulas have a contrast of 4.5 and more: WCAG's AA."""
    visited = open_page(visit, site, tutorials(site)[0], scheme=scheme)
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


def test_search_is_reached_from_the_first_page(visit, site):
    page = open_page(visit, site, "index.html").page
    page.wait_for_url("**/docs/index.html")
    box = page.locator("input[name=q]").locator("visible=true").first
    box.fill("saturate")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=saturate*")
    page.locator("ul.search li a").first.wait_for()
