"""`selfdistill recipes`: the table, and one recipe written whole."""

import pytest
import yaml

from helpers.recipes import ALL, FILES, name_of
from selfdistill.commands.recipes import build_recipes_table, read_recipe, write_whole
from selfdistill.config.header import read_header, read_own_header
from selfdistill.config.read import read


@pytest.mark.slow
def test_the_table_has_a_row_for_every_recipe_with_what_it_trains():
    table = build_recipes_table()
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["recipe"] == [name_of(path) for path in ALL]
    assert all(columns["what it trains"]) and set(columns["data"]) >= {"digits", "scenes", "torchvision:CIFAR100"}


@pytest.mark.slow
def test_a_filter_keeps_what_has_it_in_name_data_student_or_method(run):
    code, out, err = run("recipes", "MIT67")
    assert code == 0, err
    assert out.count("mit67/resnet18") == 3 and "cub-200" not in out
    for words in ("data/voc", "efficientdet:", "frskd_sla"):
        assert 0 < build_recipes_table(words).row_count < len(ALL)


@pytest.mark.slow
def test_a_filter_that_keeps_nothing_is_refused_with_the_nearest(run):
    code, out, err = run("recipes", "frksd")
    assert (code, out) == (1, "")
    assert err == "error: no recipe has 'frksd' in its name, data, student or method; did you mean 'frskd'?\n"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_recipe_trains_by_its_name_in_any_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", "quick/digits_dlb", "epochs=1", "out=run")
    assert code == 0 and "note: quick" not in err, err
    assert read("run/recipe.yaml").method.name == "dlb"
    assert "base" not in yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())


@pytest.mark.parametrize(
    ("base", "child", "words", "file", "sentence"),
    [
        ("{name: frskd, alhpa: 1}", "{beta: 2}", [], "base.yaml", "no hyper-parameter 'alhpa'; did you mean 'alpha'?"),
        ("{name: frskd, beta: 2}", "{alhpa: 1}", [], "own.yaml", "no hyper-parameter 'alhpa'"),
        ("{name: frskd, alpha: -1}", "frskd", [], "base.yaml", "alpha=-1 should be greater than or equal to 0"),
        ("frsk", "{beta: 2}", [], "base.yaml", "no method is called 'frsk'; did you mean 'frskd'?"),
        ("frskd", "{beta: 2}", ["method.alhpa=1"], None, "FRSKD has no hyper-parameter 'alhpa'"),
        ("{name: frskd, alpha: -1}", "frskd", ["method.alpha=-2"], None, "FRSKD: alpha=-2 should be"),
    ],
)
def test_a_wrong_setting_of_the_method_is_told_with_its_file(tmp_path, base, child, words, file, sentence):
    (tmp_path / "base.yaml").write_text(f"method: {base}\n")
    (tmp_path / "own.yaml").write_text(f"base: base.yaml\nmethod: {child}\n")
    with pytest.raises(ValueError) as error:
        read_recipe(tmp_path / "own.yaml", words)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / file}: " if file else sentence)


def test_a_local_file_that_hides_a_recipe_of_the_package_is_told(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick/digits.yaml").write_text("epochs: 0\n")
    code, _, err = run("train", "quick/digits.yaml")
    assert code == 1 and "error: quick/digits.yaml: epochs=0 should be" in err
    assert "note: quick/digits.yaml is the file here, not the recipe that comes with the package" in err
