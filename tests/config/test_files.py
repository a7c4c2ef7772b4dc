"""Recipe files that build on others."""

import pytest
import yaml

from selfdistill.config.files import dump
from selfdistill.config.read import read


def write(folder, **texts):
    """Write recipe files, NAME.yaml for each name, and return the path of the last."""
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return path


def refusal(path, words=()):
    with pytest.raises(ValueError) as error:
        read(path, words)
    assert "\n" not in str(error.value)
    return str(error.value)


BASE = """
data: {source: /a, limit: 5, mean: [0.1, 0.2]}
student: {name: "cifar:resnet8", options: {width: 8, act: relu}}
method: {name: frskd, alpha: 3, levels: 2, taps: [x], teacher: runs/t}
optim: {lr: 0.05, clip: 1.0}
epochs: 7
"""


def test_mappings_merge_and_everything_else_replaces(tmp_path):
    child = "base: base.yaml\ndata: {mean: [0.5]}\nstudent: {options: {act: gelu}}\noptim: {clip: null}\nseed: 1\n"
    recipe = read(write(tmp_path, base=BASE, child=child))
    assert (recipe.data.source, recipe.data.limit, recipe.data.mean) == ("/a", 5, [0.5])
    assert (recipe.student.name, recipe.student.options) == ("cifar:resnet8", {"width": 8, "act": "gelu"})
    assert (recipe.optim.lr, recipe.optim.clip, recipe.epochs, recipe.seed) == (0.05, None, 7, 1)
    assert recipe.method.hyperparameters == {"alpha": 3, "levels": 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: true", "epochs=True should be a number, not true or false"),
        ("epochs: 0x10", "epochs='0x10' should be a valid integer, unable to parse string as an integer"),
        ("epochs: 1_0", "epochs='1_0' should be a number in plain digits"),
        ("optim: {milestones: [0.5, true]}", "optim.milestones=[0.5, True] should be a number, not true or false"),
    ],
)
def test_what_yaml_would_make_a_number_is_refused_unless_it_reads_as_one(tmp_path, text, sentence):
    path = write(tmp_path, child=text)
    assert refusal(path) == f"{path}: {sentence}"


def test_names_that_look_like_other_numbers_stay_text(tmp_path):
    recipe = read(
        write(tmp_path, child="data: {classes: [001, 1_0, 1:30, 0x1, 2020-01-01]}\nstudent: {options: {a: 0.5, b: -3}}")
    )
    assert recipe.data.classes == ["001", "1_0", "1:30", "0x1", "2020-01-01"]
    assert recipe.student.options == {"a": 0.5, "b": -3}
    assert read(write(tmp_path, again=dump(recipe))) == recipe


def test_merge_keys_are_refused(tmp_path):
    path = write(tmp_path, child="data: &x {limit: 5}\noptim:\n  <<: *x\n")
    assert refusal(path).endswith("merge keys (<<) are not read; write the settings out")


def test_an_empty_mapping_takes_back_what_the_base_says(tmp_path):
    recipe = read(write(tmp_path, base=BASE, child="base: base.yaml\nstudent: {options: {}}\noptim: {}\nmethod:\n"))
    assert recipe.student.options == {} and recipe.student.name == "cifar:resnet8"
    assert recipe.optim == read().optim and recipe.method == read().method


@pytest.mark.parametrize("name", ["data: /b", "student: cifar:vgg11", "optim: adamw"])
def test_a_short_form_keeps_the_rest_of_the_part(tmp_path, name):
    file = read(write(tmp_path, base=BASE, child=f"base: base.yaml\n{name}\n"))
    assert file == read(tmp_path / "base.yaml", [name.replace(": ", "=")])
    assert file != read(tmp_path / "base.yaml")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("kd", ["method=kd"]),
        ("frskd", ["method=frskd"]),
        ("{name: kd, alpha: 0.3}", ["method=kd", "method.alpha=0.3"]),
        ("{name: frskd, alpha: 0.3}", ["method=frskd", "method.alpha=0.3"]),
        ("{alpha: 0.3}", ["method.alpha=0.3"]),
        ("{teacher: runs/other}", ["method.teacher=runs/other"]),
        ("{name: baseline}", ["method=baseline"]),
    ],
)
@pytest.mark.parametrize("base", [BASE, "method: frskd\n", "method: {alpha: 1}\n", "seed: 3\n"])
def test_a_method_over_a_base_is_what_it_is_on_the_command_line(tmp_path, base, method, words):
    file = read(write(tmp_path, base=base, child=f"base: base.yaml\nmethod: {method}\n"))
    assert file == read(tmp_path / "base.yaml", words)


def test_bases_build_on_bases_and_words_go_over_all(tmp_path):
    path = write(
        tmp_path,
        first="epochs: 1\nbatch_size: 8\nmethod: {name: kd, alpha: 1}\n",
        second="base: first.yaml\nepochs: 2\nmethod: frskd\n",
        third="base: second.yaml\nmethod: {beta: 4}\n",
    )
    recipe = read(path, ["seed=5", "method.gamma=6"])
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (2, 8, 5)
    assert (recipe.method.name, recipe.method.hyperparameters) == ("frskd", {"beta": 4, "gamma": 6})


def test_a_base_is_looked_for_beside_its_file_and_then_by_name(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    write(tmp_path, base="epochs: 3\n")
    child = write(tmp_path / "inner", child="base: ../base.yaml\n")
    monkeypatch.chdir(tmp_path / "inner")
    assert read("child.yaml").epochs == read(child).epochs == 3
    assert read(write(tmp_path, shipped="base: quick/digits\nseed: 4\n")) == read("quick/digits", ["seed=4"])


@pytest.mark.parametrize(("base", "shown"), [("3", "3"), ("", "None"), ("[a.yaml]", "['a.yaml']"), ("''", "''")])
def test_a_base_that_is_not_text_is_refused(tmp_path, base, shown):
    path = write(tmp_path, child=f"base: {base}\n")
    assert refusal(path) == f"{path}: base={shown} is not the name of a recipe"


def test_a_missing_base_is_refused_with_the_nearest_name(tmp_path):
    path = write(tmp_path, child="base: quick/digit\n")
    assert refusal(path) == f"{path}: there is no recipe quick/digit; did you mean 'quick/digits'?"


def test_files_that_build_on_each_other_are_refused(tmp_path):
    path = write(tmp_path, a="base: b.yaml\n", b="base: ./a.yaml\n")
    assert refusal(path) == f"recipes cannot build on each other: {path} on {tmp_path / 'a.yaml'} on {path}"
    path = write(tmp_path, itself="base: itself.yaml\n")
    assert refusal(path) == f"recipes cannot build on each other: {path} on {path}"


def test_a_base_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path, base="data: [1, 2\n")
    assert refusal(write(tmp_path, child="base: base.yaml\n")).startswith(f"{tmp_path / 'base.yaml'} cannot be read")


@pytest.mark.parametrize(
    ("base", "child", "words", "where", "sentence"),
    [
        ("epochs: 0", "seed: 1", [], "base", "epochs=0 should be"),
        ("epochs: 0", "epochs: -1", [], "child", "epochs=-1 should be"),
        ("epochs: 1", "optim: {lrr: 1}", [], "child", "no setting is called 'optim.lrr'; did you mean 'optim.lr'?"),
        ("optim: {lrr: 1}", "optim: {lr: 1}", [], "base", "no setting is called 'optim.lrr'"),
        ("data: [1]", "seed: 1", [], "base", "data.source=[1] should be"),
        ("data: {std: [0]}", "data: {limit: 3}", [], "base", "data.std=0 should be"),
        ("method: {taps: {a: 1}}", "method: {alpha: 1}", ["method=frskd"], "base", "method.taps={'a': 1} should be"),
        ("optim: {min_lr: 0.1}", "optim: {schedule: step}", [], "base", "optim.min_lr=0.1 has no effect with"),
        ("optim: {min_lr: 0.1}", "seed: 1", ["optim.schedule=step"], "base", "optim.min_lr=0.1 has no effect with"),
        ("epochs: 0", "seed: 1", ["epochs=-1"], None, "epochs=-1 should be"),
        ("mix: blend", "seed: 1", ["mix=bland"], None, "mix.name='bland' should be"),
        ("optim: {lr: 1}", "seed: 1", ["optim.lrr=1"], None, "no setting is called 'optim.lrr'"),
        ("epochs: 1", "bse: base.yaml", [], "child", "no setting is called 'bse'"),
    ],
)
def test_a_wrong_setting_is_told_with_the_file_in_which_it_stands(tmp_path, base, child, words, where, sentence):
    path = write(tmp_path, base=base, child=f"base: base.yaml\n{child}\n")
    file = f"{tmp_path / where}.yaml: " if where else ""
    assert refusal(path, words).startswith(file + sentence)


def test_wrong_settings_of_several_files_are_told_at_once(tmp_path):
    path = write(tmp_path, base="epochs: 0", child="base: base.yaml\nbatch_size: 0")
    told = refusal(path).split("; ")
    assert [sentence.split(":")[0] for sentence in told] == [str(tmp_path / "base.yaml"), str(path)]


def test_base_is_no_setting_of_a_recipe():
    with pytest.raises(ValueError, match="'base' stands in recipe files only; put the recipe's name before"):
        read(words=["base=quick/digits"])


def test_a_dotted_name_in_a_file_is_refused_with_the_way_to_write_it(tmp_path):
    path = write(tmp_path, child="optim.lr: 0.1\n")
    assert refusal(path) == f"{path}: 'optim.lr' is no name in a file; write optim: {{lr: ...}}"


def test_a_recipe_is_written_complete_and_without_a_base(tmp_path):
    recipe = read(write(tmp_path, base=BASE, child="base: base.yaml\nseed: 1\n"))
    text = dump(recipe)
    assert "base" not in yaml.safe_load(text) and yaml.safe_load(text)["epochs"] == 7
    assert read(write(tmp_path, written=text)) == recipe
