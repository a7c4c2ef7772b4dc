"""Settings that do not go together are refused, each with the reason."""

import pytest

from selfdistill.config.read import parse, read

BUDGET, END = ", and data.max_megapixels", " allows no larger ones"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["student.start=runs/a", "student.pretrained=true"],
            "student.pretrained=True has no effect with student.start",
        ),
        (["data.val=0.9"], "data.val=0.9 is a share, and no source or split; did you mean data.val_fraction=0.9?"),
        (["data.image_size=100000"], f"data.image_size=100000 makes images of 10,000 million pixels{BUDGET}=64{END}"),
        (
            ["data.image_size=[900, 900]", "data.max_megapixels=0.5"],
            f"data.image_size=(900, 900) makes images of 1 million pixels{BUDGET}=0.5{END}",
        ),
        (
            ["task=segmentation", "data.short_side=9000"],
            f"data.short_side=9000 makes images of 81 million pixels{BUDGET}=64{END}",
        ),
        (["mix.alpha=0.2"], "mix.alpha=0.2 has no effect with mix=none"),
        (["mix.probability=0.5"], "mix.probability=0.5 has no effect with mix=none"),
        (["optim.milestones=0.1"], "optim.milestones=[0.1] has no effect with optim.schedule=cosine"),
        (["optim.gamma=0.5", "optim.schedule=linear"], "optim.gamma=0.5 has no effect with optim.schedule=linear"),
        (["optim.min_lr=0.1", "optim.schedule=step"], "optim.min_lr=0.1 has no effect with optim.schedule=step"),
        (
            ["optim.min_lr=0.1", "optim.schedule=constant"],
            "optim.min_lr=0.1 has no effect with optim.schedule=constant",
        ),
        (
            ["optim=adamw", "optim.nesterov=true"],
            "optim.nesterov=True has no effect with an optimizer but sgd with momentum",
        ),
        (
            ["optim.momentum=0", "optim.nesterov=true"],
            "optim.nesterov=True has no effect with an optimizer but sgd with momentum",
        ),
    ],
)
def test_a_setting_that_another_one_leaves_without_effect_is_refused(words, sentence):
    with pytest.raises(ValueError) as error:
        read(words=words)
    assert str(error.value) == sentence


def test_all_conflicts_are_told_at_once():
    with pytest.raises(ValueError, match=r"mix.alpha=0.2 has no effect .*; optim.min_lr=0.1 has no effect"):
        parse({"mix": {"alpha": 0.2}, "optim": {"min_lr": 0.1, "schedule": "constant"}})


@pytest.mark.parametrize(
    "words",
    [
        ["mix=mixup", "mix.alpha=0.2", "mix.probability=0.5"],
        ["optim.schedule=step", "optim.milestones=0.1", "optim.gamma=0.5"],
        ["optim.schedule=poly", "optim.min_lr=0.1"],
        ["optim.nesterov=true"],
        ["mix.alpha=1", "optim.gamma=0.1"],  # the defaults, said in words
    ],
)
def test_settings_that_have_an_effect_are_taken(words):
    read(words=words)
