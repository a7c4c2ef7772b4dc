"""Recipes: short forms, overrides in any order, and one sentence for whatever is wrong."""

import itertools
import re

import pytest
import yaml

from selfdistill.config.files import dump, dump_commented
from selfdistill.config.part import list_settings
from selfdistill.config.read import change, parse, read
from selfdistill.config.recipe import DataPart, MethodPart, Recipe
from selfdistill.tasks import complete_recipe


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_said_gives_the_defaults():
    assert read() == Recipe()
    assert read().epochs == 30 and read().max_steps is None


def test_a_length_in_steps_replaces_the_default_epochs():
    assert read(words=["max_steps=50"]).epochs is None
    both = read(words=["max_steps=50", "epochs=3"])
    assert (both.max_steps, both.epochs) == (50, 3)


@pytest.mark.parametrize(
    ("word", "part", "field", "value"),
    [
        ("data=/my/folder", "data", "source", "/my/folder"),
        ("data=hf:someone/some-set", "data", "source", "hf:someone/some-set"),
        ("task=classification", "task", "kind", "classification"),
        ("student=timm:resnet18", "student", "name", "timm:resnet18"),
        ("method=baseline", "method", "name", "baseline"),
        ("mix=cutmix", "mix", "name", "cutmix"),
        ("optim=adamw", "optim", "name", "adamw"),
        ("machine=cpu", "machine", "device", "cpu"),
    ],
)
def test_a_plain_value_is_short_for_the_main_field(tmp_path, word, part, field, value):
    assert getattr(getattr(read(words=[word]), part), field) == value
    name, _, text = word.partition("=")
    assert getattr(getattr(read(written(tmp_path, f"{name}: {text}")), part), field) == value


@pytest.mark.parametrize(
    "words", list(itertools.permutations(["method=frskd_sla", "method.alpha=3", "method.gamma=0.5"]))
)
def test_overrides_of_a_part_come_in_any_order(words):
    method = read(words=words).method
    assert method.name == "frskd_sla"
    assert method.hyperparameters == {"alpha": 3, "gamma": 0.5}


def test_the_last_word_counts():
    assert read(words=["seed=1", "seed=2"]).seed == 2
    assert read(words=["method=frskd", "method.name=baseline"]).method.name == "baseline"


def test_words_go_over_a_file_field_by_field(tmp_path):
    path = written(tmp_path, "data: /my/folder\nmethod: {name: frskd, alpha: 3}\noptim: {lr: 0.05, momentum: 0.8}\n")
    recipe = read(path, ["data.limit=100", "method.beta=200", "optim.lr=0.2"])
    assert (recipe.data.source, recipe.data.limit) == ("/my/folder", 100)
    assert recipe.method.hyperparameters == {"alpha": 3, "beta": 200}
    assert (recipe.optim.lr, recipe.optim.momentum) == (0.2, 0.8)


def test_a_short_word_keeps_the_rest_of_the_part_in_a_file(tmp_path):
    path = written(tmp_path, "method: {name: frskd, levels: 2}\ndata: {source: /a, limit: 5}\n")
    recipe = read(path, ["method=frskd", "data=/b"])
    assert recipe.method.name == "frskd" and recipe.method.hyperparameters == {"levels": 2}
    assert (recipe.data.source, recipe.data.limit) == ("/b", 5)


@pytest.mark.parametrize("words", [["method=kd", "method.alpha=0.3"], ["method.alpha=0.3", "method=kd"]])
def test_another_method_drops_the_files_settings_and_keeps_the_words(tmp_path, words):
    path = written(tmp_path, "method: {name: frskd, levels: 2, teacher: runs/a, taps: [b]}\n")
    method = read(path, words).method
    assert (method.name, method.hyperparameters, method.teacher, method.taps) == ("kd", {"alpha": 0.3}, None, None)
    again = change(read(path, words), ["method=baseline"]).method
    assert (again.name, again.hyperparameters) == ("baseline", {})
    assert read(words=["method.levels=2", "method=frskd"]).method.hyperparameters == {"levels": 2}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("0.1", 0.1), (".5", 0.5), ("1", 1.0), ("+2", 2.0)]
)
def test_numbers_are_read_as_people_write_them(tmp_path, text, value):
    assert read(words=[f"optim.lr={text}"]).optim.lr == value
    assert read(words=[f"method.beta={text}"]).method.hyperparameters["beta"] == value
    assert read(written(tmp_path, f"optim: {{lr: {text}}}")).optim.lr == value


def test_hyperparameters_keep_their_kinds():
    words = ["method.stop_gradient=true", "method.levels=2", "method.feature_loss=hint", "method.ramp=0.5"]
    values = read(words=words).method.hyperparameters
    assert values == {"stop_gradient": True, "levels": 2, "feature_loss": "hint", "ramp": 0.5}
    assert [type(value) for value in values.values()] == [bool, int, str, float]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optim.milestones=0.3,0.6,0.9", [0.3, 0.6, 0.9]),
        ("optim.milestones=[0.3, 0.6]", [0.3, 0.6]),
        ("data.mean=0.5,0.4,1e-1", [0.5, 0.4, 0.1]),
        ("data.image_size=32,48", (32, 48)),
        ("data.image_size=32", 32),
        ("data.augment=crop,flip", ["crop", "flip"]),
        ("data.augment=flip", "flip"),
        ("method.taps=layer1,layer3", ["layer1", "layer3"]),
        ("machine.track=tensorboard,wandb", ["tensorboard", "wandb"]),
        ("student.options={widths: [1, 2]}", {"widths": [1, 2]}),
        ("student.options.widths=1,2", {"widths": [1, 2]}),
    ],
)
def test_commas_make_a_list_where_one_may_stand(word, value):
    part, field = word.partition("=")[0].split(".")[:2]
    assert getattr(getattr(read(words=[word, "optim.schedule=step"]), part), field) == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optim.milestones=0.5", [0.5]),
        ("data.mean=0.5", [0.5]),
        ("method.taps=layer3", ["layer3"]),
        ("machine.track=tensorboard", ["tensorboard"]),
    ],
)
def test_one_item_makes_a_list_of_one(word, value):
    part, field = word.partition("=")[0].split(".")
    assert getattr(getattr(read(words=[word, "optim.schedule=step"]), part), field) == value


@pytest.mark.parametrize(
    "text",
    ["/a,b", "/a b/c", "a:b", "runs/2024-01-01", "2024-01-01", "12:30", "007", "1e3", "on", "a #1", "a: b"],
)
def test_names_and_paths_stay_as_they_were_written(text):
    recipe = read(words=[f"data={text}", f"out={text}", f"student.name={text}"])
    assert (recipe.data.source, recipe.out, recipe.student.name) == (text, text, text)


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("+5", 5), ("007", 7), ("20", 20)])
def test_digits_are_a_decimal_number_in_words_and_files(tmp_path, text, number):
    assert read(words=[f"epochs={text}"]).epochs == number
    assert read(written(tmp_path, f"epochs: {text}\n")).epochs == number


def test_none_takes_a_setting_back(tmp_path):
    path = written(tmp_path, "optim: {clip: 1.0}\nepochs: 5\n")
    recipe = read(path, ["optim.clip=null", "epochs=null", "max_steps=7"])
    assert recipe.optim.clip is None and recipe.epochs is None


@pytest.mark.parametrize(
    ("word", "wrong", "near"),
    [
        ("methd=frskd", "methd", "method"),
        ("optim.lrr=0.1", "optim.lrr", "optim.lr"),
        ("optim.momentun=0.1", "optim.momentun", "optim.momentum"),
        ("batchsize=32", "batchsize", "batch_size"),
        ("data.imagesize=32", "data.imagesize", "data.image_size"),
        ("lr=0.1", "lr", "optim.lr"),
        ("weight_decay=0", "weight_decay", "optim.weight_decay"),
        ("workers=2", "workers", "machine.workers"),
        ("taps=[layer1]", "taps", "method.taps"),
        ("batch=32", "batch", "batch_size"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tmp_path, word, wrong, near):
    sentence = f"no setting is called '{wrong}'; did you mean '{near}'?"
    with pytest.raises(ValueError) as error:
        read(words=[word])
    assert str(error.value) == sentence
    if "." not in word.partition("=")[0]:
        with pytest.raises(ValueError) as error:
            read(written(tmp_path, word.replace("=", ": ")))
        assert str(error.value) == f"{tmp_path / 'recipe.yaml'}: {sentence}"


def test_unknown_name_unlike_any_other_is_refused_with_its_siblings():
    with pytest.raises(ValueError, match="no setting is called 'qqqq'; there are data, task, student"):
        read(words=["qqqq=1"])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("epochs=0", "epochs=0 should be greater than or equal to 1"),
        ("epochs=2.5", "epochs=2.5 should be a valid integer"),
        ("epochs=0x10", "epochs='0x10' should be a valid integer"),
        ("epochs=1:30", "epochs='1:30' should be a valid integer"),
        ("epochs=1_0", "epochs='1_0' should be a number in plain digits"),
        ("optim.lr=1_0.5", "optim.lr='1_0.5' should be a number in plain digits"),
        ("optim.lr=1_0e-3", "optim.lr='1_0e-3' should be a number in plain digits"),
        ("data.image_size=[1_0, 20]", "data.image_size=['1_0', 20] should be a number in plain digits"),
        ("epochs=true", "epochs=True should be a number, not true or false"),
        ("optim.lr=false", "optim.lr=False should be"),
        ("data.channels=true", "data.channels=True should be a number, not true or false"),
        ("data.void=[true]", "data.void=[True] should be a number, not true or false"),
        ("epochs=ten", "epochs='ten' should be a valid integer"),
        ("optim.lr=-1", "optim.lr=-1 should be greater than 0"),
        ("optim.lr=nan", "optim.lr="),
        ("optim.lr=inf", "optim.lr="),
        ("optim.weight_decay=inf", "optim.weight_decay="),
        ("mix.alpha=inf", "mix.alpha="),
        ("optim.gamma=2", "optim.gamma=2 should be less than or equal to 1"),
        ("optim.milestones=0.5,2", "optim.milestones"),
        ("mix=blend", "mix.name='blend' should be 'none', 'mixup' or 'cutmix'"),
        ("mix.probability=1.5", "mix.probability=1.5 should be less than or equal to 1"),
        ("precision=fp8", "precision='fp8' should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("seed=-1", "seed=-1 should be greater than or equal to 0"),
        ("data.val_fraction=1", "data.val_fraction=1 should be less than 1"),
        ("data.limit=0", "data.limit=0 should be greater than or equal to 1"),
        ("data.image_size=0", "data.image_size=0 should be greater than or equal to 1"),
        ("data.image_size=[0,8]", "data.image_size=[0, 8] should be greater than or equal to 1"),
        ("data.std=0,1,1", "data.std"),
        ("epochs.x=3", "epochs"),
        ("epochs", "'epochs' is neither a recipe nor name=value"),
    ],
)
def test_illegal_values_are_refused_by_name(word, sentence):
    with pytest.raises(ValueError) as error:
        read(words=[word])
    assert str(error.value).startswith(sentence) and not re.search("\n|tuple", str(error.value))


@pytest.mark.parametrize(
    "word", ["data.image_size=big", "data.image_size=0", "data.image_size=1,2,3", "data.augment={a: 1}"]
)
def test_a_value_that_fits_none_of_several_kinds_gets_one_sentence(word):
    with pytest.raises(ValueError) as error:
        read(words=[word])
    sentence, name = str(error.value), word.partition("=")[0]
    assert sentence.startswith(f"{name}=") and sentence.count(name) == 1
    assert "constrained" not in sentence


def test_every_wrong_value_is_named():
    with pytest.raises(ValueError, match="(?s)epochs=0 .*batch_size=0 "):
        read(words=["epochs=0", "batch_size=0"])


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert read(written(tmp_path, "")) == Recipe()
    assert read(written(tmp_path, "# nothing but a comment\n")) == Recipe()


def test_a_part_left_empty_in_a_file_has_its_defaults(tmp_path):
    assert read(written(tmp_path, "optim:\n  # lr: 0.1\nmethod: baseline\n")).optim == Recipe().optim


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("just words\n", "str"), ("3\n", "int")])
def test_a_file_without_names_is_refused(tmp_path, text, kind):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"recipe.yaml holds a {kind}, not names and values"):
        read(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no recipe .*nothing.yaml"):
        read(tmp_path / "nothing.yaml")
    with pytest.raises(ValueError, match="is a folder, not a recipe"):
        read(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="image.yaml cannot be read as YAML"):
        read(tmp_path / "image.yaml")
    with pytest.raises(ValueError, match="recipe.yaml cannot be read as YAML") as error:
        read(written(tmp_path, "data: [1, 2\nmethod: }"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1: 2\n", "data: [a, b]\n", "optim: {1: 2}\n", "method: 3\n"])
def test_odd_files_are_refused_in_one_sentence_or_read(tmp_path, text):
    try:
        read(written(tmp_path, text))
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("form", [dump, dump_commented])
def test_a_recipe_survives_being_written_and_read(tmp_path, form):
    method = {"name": "frskd", "alpha": 1e-5, "stop_gradient": True, "feature_loss": "hint", "levels": None}
    recipe = parse(
        {
            "data": {"source": "/some, odd: folder #1", "image_size": [32, 48], "mean": [0.1, 0.2], "std": [1e-5, 1.0]},
            "student": {"name": "on", "options": {"width": 2, "act": "no"}},
            "method": {"taps": ["a.0", "b"], **method},
            "mix": "mixup",
            "optim": {"lr": 1e-7, "schedule": "step", "milestones": []},
            "max_steps": 5,
            "out": "007",
        }
    )
    again = read(written(tmp_path, form(recipe)))
    assert again == recipe
    assert again.method.hyperparameters == recipe.method.hyperparameters
    assert form(again) == form(recipe)


@pytest.mark.parametrize("form", [dump, dump_commented])
def test_a_written_recipe_names_every_setting(form):
    written_names = yaml.safe_load(form(Recipe()))
    flat = set(written_names) | {
        f"{part}.{name}" for part, held in written_names.items() if isinstance(held, dict) for name in held
    }
    assert flat == set(list_settings(Recipe))


def test_comments_say_what_a_setting_means():
    lines = dump_commented(complete_recipe(Recipe())).splitlines()
    assert any(line.startswith("batch_size: 128  # images per optimizer step") for line in lines)


def test_known_names_are_legal():
    for name in list_settings(Recipe):
        part = Recipe()
        for step in name.split("."):
            part = getattr(part, step)


def test_parse_takes_parts_as_values_or_mappings():
    recipe = parse({"data": "/a", "method": {"name": "frskd", "alpha": 3.0}})
    assert recipe.data == DataPart(source="/a")
    assert recipe.method == MethodPart(name="frskd", alpha=3.0)
    assert parse(recipe.model_dump()) == recipe


def test_defaults_are_not_shared_between_recipes():
    first, second = read(), read()
    first.optim.milestones.append(0.9)
    first.student.options["x"] = 1
    assert second == Recipe() and second.student.options == {}


def test_the_loss_of_a_task_may_have_its_older_name():
    assert parse({"task": {"criterion": "own:loss"}}).task.loss == "own:loss"
    assert parse({"task": {"criterion": None, "loss": "focal"}}).task.loss == "focal"
    with pytest.raises(ValueError, match="task.criterion=own:loss is the older name of task.loss=focal"):
        parse({"task": {"criterion": "own:loss", "loss": "focal"}})


def test_a_pattern_that_a_shell_has_expanded_is_noticed():
    words = [f"data=/my/train-{k}.tar" for k in range(3)]
    with pytest.raises(ValueError, match="data= stands 3 times, from data=/my/train-0.tar to .*'data=train-{000"):
        read(words=words)
    assert read(words=["data=/my/a.tar", "data.val=/my/b.tar"]).data.val == "/my/b.tar"
