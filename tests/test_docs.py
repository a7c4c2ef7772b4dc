"""Every command, code block and link of the documentation is one that works."""

import ast
from pathlib import Path

import pytest

from helpers.pages import PAGES, ROOT, list_anchors, list_blocks, list_commands, list_links
from selfdistill.cli import build_command
from selfdistill.commands.compare import parse_words
from selfdistill.commands.recipes import read_words

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@every_page
def test_every_command_is_one_of_the_command_lines(page):
    group = build_command()
    for name, *words in list_commands(page):
        command = group.commands.get(name)
        if command is None:
            assert name.startswith("--"), f"{page}: there is no command {name}"
            continue
        command.make_context(name, [word.replace("...", "") for word in words if word != "..."])


@every_page
def test_every_setting_of_a_command_is_known(page):
    """Recipes that are files of the reader are left out, and so are places that stand for one."""
    for name, *words in list_commands(page):
        settings = [word for word in words if "=" in word and not word.startswith("-")]
        settings = [word for word in settings if "my_method" not in word and "mine" not in word]
        if name in ("train", "check", "init"):
            read_words(settings)
        elif name == "compare":
            parse_words(settings)


@every_page
def test_every_block_of_python_is_python(page):
    for block in list_blocks(page):
        if block.language.split(" ")[0] == "python" and ": ..." not in block.text and "):" not in block.text:
            ast.parse(block.text)


@every_page
def test_every_link_leads_somewhere(page):
    for target in list_links(page):
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in list_anchors(file), f"{page.name} links to {target}"


def test_every_page_is_in_the_sites_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page.name for page in PAGES if page.parent.name == "docs"} == {
        Path(word).name for word in menu.split() if word.endswith(".md")
    }
