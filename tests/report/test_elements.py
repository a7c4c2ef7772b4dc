"""Elements escape every string, whoever forgets to."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.errors import escape_controls
from selfdistill.report.elements import Constant, element


class Reader(HTMLParser):
    """Keeps what a browser would read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(markup):
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(text=st.text(), value=st.text())
def test_any_text_is_read_back_as_text_and_never_as_a_tag(text, value):
    read_back = read(str(element("p", "a", text, title=value)))
    assert read_back.tags == [("p", {"title": escape_controls(value)})]
    assert read_back.text == "a" + escape_controls(text)


@given(text=st.text(), value=st.text())
def test_any_text_makes_well_formed_xml(text, value):
    root = ElementTree.fromstring(str(element("svg", element("title", text), aria_label=value)))
    assert (root[0].text or "") == escape_controls(text)


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "http://example.org/x.png", "//example.org", "data:text/html,x"]
)
def test_a_link_that_runs_code_or_leaves_the_page_unasked_is_refused(link):
    with pytest.raises(ValueError, match="no link that a page may hold"):
        element("a", "x", href=link)
    with pytest.raises(ValueError, match="no link that a page may hold"):
        element("img", src=link)


def test_content_may_be_nested_and_partly_missing():
    rows = (element("li", number) for number in (1, 2))
    whole = element("ul", None, [rows, [None, "end"]], hidden=True, id=None, tabindex=False, width=1.5, x=0)
    assert str(whole) == '<ul hidden="" width="1.5" x="0"><li>1</li><li>2</li>end</ul>'


def test_only_constants_of_ours_are_written_as_they_are():
    assert str(element("style", Constant("a > b {}"))) == "<style>a > b {}</style>"
    assert str(element("style", "a > b {}")) == "<style>a &gt; b {}</style>"


def test_elements_without_an_end_have_none():
    assert str(element("meta", charset="utf-8")) == '<meta charset="utf-8">'
