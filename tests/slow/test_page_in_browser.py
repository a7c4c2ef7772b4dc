"""The report in a real browser. Skipped where there is no Chromium."""

import pytest

from helpers.browser import find_browser, open_browser
from helpers.finished_runs import make_run
from selfdistill.report.comparison import compare_runs
from selfdistill.report.evidence import gather_evidence
from selfdistill.report.page import write_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium on the path"),
]

SIZES = "[...document.querySelectorAll('figure svg, img')].map(e => [e.getBoundingClientRect().width, e.tagName])"
OPEN_ALL = "document.querySelectorAll('details').forEach(e => e.open = true)"
NAMES = ["<script>alert(1)</script>", "a rather long name of a class, as data sets have them", *map(str, range(60))]

# The contrast of every text with what lies behind it, and the text; source: WCAG 2.2.
CONTRASTS = """(() => {
  const parse = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, style, title, desc, .count")) continue;
    const style = getComputedStyle(element);
    const ink = light(parse(element.closest("svg") ? style.fill : style.color)), ground = light(paper(element));
    const [low, high] = [ink, ground].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    runs = [
        make_run(folder / f"{method}-{seed}", method, seed, skill=skill, classes=NAMES, images=620)
        for method, skill in (("baseline", 2.0), ("frskd", 2.5), ("label_smoothing", 2.2))
        for seed in range(3)
    ]
    return write_page(
        gather_evidence(compare_runs(runs)), folder, command="selfdistill report x", gallery="No pictures."
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_loads_nothing_and_can_be_read(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    browser.run(OPEN_ALL)
    assert browser.run("document.documentElement.scrollWidth") == width
    sizes = browser.run(SIZES)
    assert len(sizes) > 15 and all(size >= 250 for size, name in sizes if name == "svg")
    assert all(contrast >= 4.5 for contrast, text in browser.run(CONTRASTS)), browser.run(CONTRASTS)
    dark = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    assert browser.list_errors() == [] and browser.list_requests() == [page.resolve().as_uri()]


def test_a_press_on_a_heading_sorts_the_table(browser, page):
    browser.open(page)
    browser.run(OPEN_ALL)
    column = (
        "[...document.querySelectorAll('#classes table')[0].tBodies[0].rows].map(row => row.cells[4].dataset.value)"
    )
    press = "document.querySelectorAll('#classes table')[0].tHead.rows[0].cells[4].querySelector('button').click()"
    before = [float(value) for value in browser.run(column)]
    browser.run(press)
    assert [float(value) for value in browser.run(column)] == sorted(before) != before
    browser.run(press)
    assert [float(value) for value in browser.run(column)] == sorted(before, reverse=True)
    head = "document.querySelector('#classes th[aria-sort]')"
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert browser.list_errors() == []


def test_the_policy_stops_scripts_and_pictures_from_elsewhere(browser, page, tmp_path):
    text = page.read_text(encoding="utf-8")
    other = tmp_path / "other.html"
    other.write_text(
        text.replace("<main>", "<main><script>window.ran = 1</script><img src='https://example.org/x.png'>")
    )
    browser.open(other)
    assert browser.run("window.ran") is None
    refused = [error for error in browser.list_errors() if "Content Security Policy" in error]
    assert len(refused) == len(browser.list_errors()) == 2
