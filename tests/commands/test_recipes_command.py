"""`selfdistill recipes`: the table, and one recipe written whole."""

import pytest
import yaml

from helpers.recipes import ALL, FILES, name_of
from selfdistill.commands.recipes import recipes_table, write_whole
from selfdistill.config.header import read_header, read_own_header
from selfdistill.config.read import read


def test_the_table_has_a_row_for_every_recipe_with_what_it_trains():
    table = recipes_table()
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["recipe"] == [name_of(path) for path in ALL]
    assert all(columns["what it trains"]) and set(columns["data"]) >= {"digits", "scenes", "torchvision:CIFAR100"}


def test_a_filter_keeps_what_has_it_in_name_data_student_or_method(run):
    code, out, err = run("recipes", "MIT67")
    assert code == 0, err
    assert out.count("mit67/resnet18") == 3 and "cub-200" not in out
    for words in ("data/voc", "efficientdet:", "frskd_sla"):
        assert 0 < recipes_table(words).row_count < len(ALL)


def test_a_filter_that_keeps_nothing_is_refused_with_the_nearest(run):
    code, out, err = run("recipes", "frksd")
    assert (code, out) == (1, "")
    assert err == "error: no recipe has 'frksd' in its name, data, student or method; did you mean 'frskd'?\n"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_recipe_is_written_whole_and_reads_back_without_its_base(path, tmp_path):
    text = write_whole(path)
    written = tmp_path / path.name
    written.write_text(text, encoding="utf-8")
    assert "base" not in yaml.safe_load(text)
    assert read(written) == read(path)
    assert read_own_header(written) == read_header(path)


def test_a_name_prints_the_recipe(run):
    code, out, err = run("recipes", "cifar100/resnet18_frskd_mixup")
    assert code == 0, err
    assert out.startswith("# Reproduces: FRSKD + Mixup") and "  alpha: 0.2\n" in out and "  beta: 100\n" in out


def test_a_recipe_trains_by_its_name_in_any_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", "quick/digits_dlb", "epochs=1", "out=run")
    assert code == 0 and "note: quick" not in err, err
    assert read("run/recipe.yaml").method.name == "dlb"
    assert "base" not in yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())


def test_a_local_file_that_hides_a_recipe_of_the_package_is_told(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick/digits.yaml").write_text("epochs: 0\n")
    code, _, err = run("train", "quick/digits.yaml")
    assert code == 1 and "error: quick/digits.yaml: epochs=0 should be" in err
    assert "note: quick/digits.yaml is the file here, not the recipe that comes with the package" in err
