"""Random words on the command line: a recipe, or one sentence; never another exception."""

import random

import pytest

from selfdistill.config.files import dump
from selfdistill.config.part import list_settings
from selfdistill.config.read import parse, read
from selfdistill.config.recipe import Recipe

TRIES = 400
PIECES = [
    *("", "0", "-1", "1e3", "1e999", "nan", "inf", "true", "null", "~", "none", "auto", "cutmix", "step", "frskd"),
    *("[", "]", "[1,2]", "{a: 1}", "{", ":", ",", ",,", "1,2", "a:b", "a: b", "'", '"', "'a'", "\\", "%", "&x", "*x"),
    *("!!python/object:os.system", "0x10", "1_000", "é", "\u202e", "\x00", "\n", "\t", " ", "=", "==", "#", "<<", "-"),
    *("9" * 40, "a" * 300, "[" * 50, "2020-01-01", "1:30", "on", "y", "..", "/", "~/x"),
]


def draw_word(rng: random.Random) -> str:
    names = [*list_settings(Recipe), "method.alpha", "student.options.depth", "student.options"]
    name = rng.choice(names)
    if rng.random() < 0.3:  # misspelled
        place = rng.randrange(len(name) + 1)
        name = name[:place] + rng.choice(["", ".", "x", "é", " ", "-"]) + name[place + rng.randrange(2) :]
    return f"{name}{rng.choice(['=', '=', '=', '=', '', ':'])}{''.join(rng.choices(PIECES, k=rng.randrange(1, 4)))}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_words_make_a_recipe_or_one_sentence(seed):
    rng, made = random.Random(seed), 0
    for _ in range(TRIES // 4):
        words = [draw_word(rng) for _ in range(rng.randrange(1, 4))]
        try:
            recipe = read(None, words)
        except ValueError as error:
            assert str(error) and len(str(error)) < 5000, words
        else:
            made += 1
            assert parse(recipe.model_dump(mode="json")) == recipe, words
    assert 0 < made < TRIES // 4  # both were tried


@pytest.mark.slow
def test_what_a_recipe_was_read_as_is_what_its_file_says(tmp_path):
    rng = random.Random(0)
    values = {
        "optim.lr": lambda: rng.choice([0.1, 1e-7, 3.0, 12345.678]),
        "data.source": lambda: rng.choice(["a b", "null", "1e3", "true", "é: #x", "[x]", "- y", "'q'", "0123"]),
        "data.classes": lambda: [rng.choice(["no", "yes", "1", "null", "a: b", "~"]) + str(k) for k in range(3)],
        "optim.milestones": lambda: sorted(rng.choices([0.0, 0.25, 0.5, 1.0], k=2)),
        "student.options": lambda: {"depth": rng.choice([3, None, [1, 2], "x: y", True])},
    }
    for number in range(40):
        recipe = Recipe()
        for name, draw in values.items():
            part, _, field = name.partition(".")
            changed = getattr(recipe, part).model_copy(update={field: draw()})
            recipe = recipe.model_copy(update={part: changed})
        if recipe.optim.milestones:
            recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"schedule": "step"})})
        file = tmp_path / f"{number}.yaml"
        file.write_text(dump(recipe), encoding="utf-8")
        assert read(file) == recipe
