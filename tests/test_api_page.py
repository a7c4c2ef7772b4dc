"""The page of public names is the docstrings' own."""

import sys

import pytest

import selfdistill
from helpers.pages import ROOT
from helpers.programs import run


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other versions of Python write types in another way")
def test_the_page_is_what_the_docstrings_say(tmp_path):
    command = [sys.executable, str(ROOT / "docs/write_api.py"), str(tmp_path / "api.md")]
    done = run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "api.md").read_text(encoding="utf-8")
    assert written == (ROOT / "docs/api.md").read_text(encoding="utf-8"), "run: python docs/write_api.py docs/api.md"
    assert all(f"## {name}\n" in written for name in selfdistill.__all__) and "0x" not in written
