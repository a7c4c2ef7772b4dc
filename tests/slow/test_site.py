"""The documentation builds as a site without a warning, and asks no other host for anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.pages import ROOT

pytestmark = pytest.mark.slow


def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    program = Path(sys.executable).parent / "zensical"
    if not program.exists():
        pytest.skip("zensical is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run([program, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [*(tmp_path / "build/site").rglob("*.html")]
    assert len(pages) > len([*(ROOT / "docs").glob("*.md")])
    for page in pages:
        asked = re.findall(
            r"<(?:link|script|img)[^>]*(?:href|src)=\"(https?:[^\"]*)\"", page.read_text(encoding="utf-8")
        )
        assert not asked, f"{page} asks {asked[0]}"
