"""Tables in Markdown."""

from collections.abc import Sequence


def escape_html(text: str) -> str:
    """Markdown in which no name is taken for a tag or a link."""
    for character, escaped in {"&": "&amp;", "<": "&lt;", "[": "&#91;", "`": "&#96;"}.items():
        text = text.replace(character, escaped)
    return text


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """A Markdown table without a newline at its end; `numbers`: all columns but the first are set to the right.

    >>> print(markdown_table(["method", "points"], [["a|b", "1.5"]]))
    | method | points |
    | --- | ---: |
    | a\\|b | 1.5 |
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(titles) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in (titles, rule, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
