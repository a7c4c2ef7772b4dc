"""What a run chooses where its student starts from trained weights."""

import pytest
import torch

from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.methods import create_method, find_method
from selfdistill.models import build_student, describe_weights
from selfdistill.runs.folder import Run
from selfdistill.tasks import complete_recipe

WORDS = ["data.limit=40", "batch_size=16", "max_steps=2", "precision=fp32"]


def job(*words):
    return build(read(None, [*WORDS, *words]))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A file of weights of a network of timm's."""
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pt"
    torch.save(build_student("timm:resnet10t", num_classes=7, image_shape=(3, 32, 32)).state_dict(), path)
    return path


def test_rates_and_normalization_are_chosen_said_and_written(start):
    words = ["student=timm:resnet10t", "method=baseline", "data.image_size=32"]
    plain, tuned = job(*words), job(*words, f"student.start={start}")
    chosen = tuned.recipe.optim
    assert (plain.recipe.optim.lr, plain.recipe.optim.warmup, plain.recipe.optim.layer_decay) == (0.1, 0, 1)
    assert (chosen.lr, chosen.warmup, chosen.layer_decay) == (0.01, 0.1, 1)
    assert tuned.recipe.data.mean == [0.449] and tuned.recipe.data.std == [0.226]  # of gray images
    (note,) = (note for note in tuned.notes if note.startswith("as the student starts from trained weights: "))
    assert "optim.lr=0.01 (not 0.1), optim.warmup=0.1 (not 0)" in note
    assert "data.mean=[0.449] (the weights' own)" in note
    assert not any("trained weights" in note for note in plain.notes)
    assert build(tuned.recipe).recipe == tuned.recipe


def test_what_is_set_is_kept_and_not_said(start):
    words = [
        "optim.lr=0.1",
        "optim.warmup=0",
        "optim.layer_decay=1",
        "optim.method_lr=0.1",
        "data.mean=[0.5]",
        "data.std=[0.5]",
    ]
    made = job("student=timm:resnet10t", "method=baseline", f"student.start={start}", "data.image_size=32", *words)
    chosen = made.recipe.optim
    assert (chosen.lr, chosen.warmup, chosen.layer_decay, made.recipe.data.mean) == (0.1, 0, 1, [0.5])
    assert not any("as the student starts" in note for note in made.notes)


def test_frskd_takes_the_deepest_maps_of_a_classifier_that_was_trained_unless_told_otherwise(start):
    words = ["student=timm:resnet10t", "data.image_size=32"]
    plain, tuned = job(*words, "method=frskd"), job(*words, "method=frskd", f"student.start={start}")
    assert plain.recipe.method.hyperparameters["levels"] == 1 == len(plain.method.self_teacher.channels)
    assert tuned.recipe.method.hyperparameters["levels"] == 2 == len(tuned.method.self_teacher.channels)
    assert any("as the student starts" in note and "method.levels=2 (not 1)" in note for note in tuned.notes)
    assert build(tuned.recipe).recipe == tuned.recipe
    for word, levels, used in (
        ("method.levels=null", None, 4),
        ("method.levels=3", 3, 3),
        ("max_steps=20000", None, 4),
        ("method.depth=1", None, 4),  # of a pyramid, which a single level is not
        ("method.taps=[layer4]", 2, 1),  # which is all there is
    ):
        given = job(*words, "method=frskd", f"student.start={start}", word)
        settings = given.recipe.method.hyperparameters
        assert (settings["levels"], len(given.method.self_teacher.channels)) == (levels, used)


def test_how_many_levels_a_short_run_takes_depends_on_steps_start_output_and_student():
    def choose(output, given, steps, is_tuning=False, student=None):
        method = find_method("frskd")
        return method.short_run_defaults(output, given, steps, is_tuning=is_tuning, student=student).get("levels")

    assert choose("image", {}, 1) == choose("image", {"beta": 0}, 1_199) == choose("pixel", {}, 1_199) == 1
    assert choose("image", {}, 1_200) == choose("image", {}, 19_999) == 2
    assert choose("image", {}, 1, is_tuning=True) == choose("image", {}, 19_999, is_tuning=True) == 2
    for output, given, steps in (
        ("pixel", {}, 1_200),
        ("pixel", {"self_teacher_net": "pyramid"}, 100),
        ("image", {}, 20_000),
        ("image", {"levels": None}, 100),
        ("image", {"depth": 1}, 100),  # of a pyramid, which a single level is not
        ("image", {"self_teacher_net": "BiFPN", "repeat": 2}, 100),
    ):
        assert choose(output, given, steps) is None is choose(output, given, steps, is_tuning=True)
    pyramid, unet = torch.nn.Identity(), torch.nn.Identity()
    pyramid.pyramid_norm = {}
    assert choose("pixel", {}, 100, student=unet) == 1
    assert choose("pixel", {"self_teacher_net": "BiFPNc"}, 100, student=pyramid) == 1
    assert choose("pixel", {}, 100, student=pyramid) is None


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, {"levels": 1, "alpha": 0.0}),
        ({"levels": 1}, {"alpha": 0.0}),
        ({"levels": None}, {"temperature": 4.0}),
        ({"depth": 1}, {"temperature": 4.0}),
        ({"alpha": 0.5}, {"levels": 1, "temperature": 4.0}),
        ({"beta": 0}, {"levels": 1, "temperature": 4.0}),  # else nothing would teach
        ({"temperature": 1.0}, {"levels": 1}),
        ({"distil_void": True}, {"levels": 1, "temperature": 4.0}),
    ],
)
def test_one_map_teaches_pixels_without_soft_labels_unless_they_are_set(given, chosen):
    method, of_every_form = find_method("frskd"), {"warmup": 0.0, "ramp": 1.0}
    assert method.short_run_defaults("pixel", given, 600) == chosen | of_every_form
    method.validate({**given, **chosen, **of_every_form})


def test_of_trained_weights_one_map_has_soft_labels_too_and_a_fixed_setting_is_no_obstacle():
    frskd = find_method("frskd")
    assert "alpha" not in frskd.short_run_defaults("pixel", {"levels": 1}, 600, is_tuning=True)

    class WithoutFeatures(frskd):
        beta = 0.0

    assert "alpha" not in WithoutFeatures.short_run_defaults("pixel", {}, 600)
    assert "levels" in WithoutFeatures.short_run_defaults("pixel", {}, 600)


def test_a_run_and_create_method_know_a_student_that_ends_in_a_pyramid():
    words = ["task=segmentation", "data=scenes", "student=efficientdet:d0", "method=frskd", "epochs=1", "batch_size=8"]
    made = job(*words)
    assert made.recipe.method.hyperparameters["levels"] is None and made.method.net == "pyramid"
    task = made.method.task
    assert create_method("frskd", made.method.student, task, total_steps=100).levels is None


def test_a_method_that_keeps_the_student_as_it_is_has_the_usual_rates(tmp_path):
    torch.save(build_student("cifar:resnet8", num_classes=10, image_shape=(1, 8, 8)).state_dict(), tmp_path / "a.pt")
    words = ["student=cifar:resnet8", "method=hsakd_teacher", "method.joint=false"]
    optim = job(*words, f"student.start={tmp_path / 'a.pt'}").recipe.optim
    assert (optim.lr, optim.warmup, optim.layer_decay) == (0.1, 0, 1)


@pytest.mark.parametrize(
    ("words", "lr"),
    [(["task=segmentation"], 0.01), (["optim=adamw"], 1e-4), ([], 0.01)],
)
def test_the_rate_is_the_task_s_or_the_optimizer_s(words, lr):
    assert complete_recipe(read(None, ["student.pretrained=true", *words])).optim.lr == lr


def test_an_older_run_keeps_one_rate_for_all_layers(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "student: {name: 'timm:resnet10t', pretrained: true}\noptim: {lr: 0.1, warmup: 0.0}\n"
    )
    optim = complete_recipe(Run(tmp_path).recipe(trust=True)).optim
    assert (optim.lr, optim.warmup, optim.layer_decay) == (0.1, 0, 1)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("timm:vit_tiny_patch16_224", 0.5),
        ("torchvision:resnet18", 0.485),
        ("torchvision:lraspp_mobilenet_v3_large", 0.485),
        ("smp:Unet/resnet18", 0.485),
        ("smp:Unet/tu-tf_efficientnet_lite0", 0.5),
        ("smp:Unet/xception", None),
        ("cifar:resnet8", None),
        ("package.module:function", None),
    ],
)
def test_the_weights_own_normalization_is_known_where_their_library_says_it(name, mean):
    found = describe_weights(name)
    assert found is None if mean is None else found.mean[0] == mean
