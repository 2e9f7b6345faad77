"""A headless browser that is kept off the network."""

import pathlib
import shutil

import pytest
from playwright.sync_api import Error, sync_playwright

ROOT = pathlib.Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LAPTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def pytest_addoption(parser):
    parser.addoption("--site", type=pathlib.Path, default=ROOT / "site")


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, or that of `playwright install chromium`."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path)
        except Error as error:
            reason = str(error).splitlines()[0]
            pytest.exit(
                "No browser to look at the pages with: `apt-get install chromium` or "
                f"`playwright install chromium` ({reason})",
                returncode=2,
            )
        yield browser
        browser.close()


class Visit:
    """A page that may ask for addresses beginning with `allowed`, and no others.

    Attributes:
        page: Playwright's page.
        complaints: List of strings: errors and warnings in its console, and requests
            that failed, those for other addresses left out.
        outside: List of the other addresses that it has asked for.
    """

    def __init__(self, page, allowed):
        self.page, self.allowed = page, (allowed, "data:", "blob:")
        self.complaints, self.outside = [], []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", self._failed)
        page.route("**/*", self._route)

    def _console(self, message):
        about = message.location.get("url") or self.allowed[0]
        if message.type in ("error", "warning") and about.startswith(self.allowed):
            self.complaints.append(f"console: {message.text}")

    def _failed(self, request):
        given_up = request.failure == "net::ERR_ABORTED"  # by the page itself
        if request.url.startswith(self.allowed) and not given_up:
            self.complaints.append(f"{request.failure}: {request.url}")

    def _route(self, route):
        if route.request.url.startswith(self.allowed):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()


@pytest.fixture
def visit(browser):
    """Function of `allowed`, how addresses begin that may be asked for, of whether it
    is on a phone, and of the color scheme: a `Visit` of an empty page."""
    contexts = []

    def open_page(allowed, phone=False, scheme="light"):
        size = PHONE if phone else LAPTOP
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        return Visit(contexts[-1].new_page(), allowed)

    yield open_page
    for context in contexts:
        context.close()


# The contrast of two colors as WCAG 2 defines it, from 1 to 21, and what an element
# has of it: its text against the first ground below it that is not transparent.
CONTRAST = """
element => {
  const canvas = document.createElement("canvas").getContext("2d");
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b]
    .map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  let below = element;
  while (below.parentElement && rgba(getComputedStyle(below).backgroundColor)[3] < 255)
    below = below.parentElement;
  const ground = luminance(rgba(getComputedStyle(below).backgroundColor));
  const text = luminance(rgba(getComputedStyle(element).color));
  const [low, high] = [ground, text].sort((a, b) => a - b);
  return {ground, contrast: (high + 0.05) / (low + 0.05)};
}
"""


@pytest.fixture
def contrast():
    """Function of an element: luminance of its ground, 0..1, and contrast, 1..21."""

    def measure(element):
        result = element.evaluate(CONTRAST)
        return result["ground"], result["contrast"]

    return measure
