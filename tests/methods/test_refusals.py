"""What each method refuses in one sentence: settings without effect, students and teachers that it cannot use."""

import pytest

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import small_student
from selfdistill import create_method
from selfdistill.methods import find_method

IDLE = [  # settings of which the first has no effect, and why
    ("bake", {"omega": 0.9, "weight": 0.0}, "weight=0"),
    ("bake", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("byot", {"temperature": 2.0, "alpha": 0.0}, "alpha=0"),
    ("byot", {"squared_temperature": True, "alpha": 0.0}, "alpha=0"),
    ("cs_kd", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("ddgsd", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("dks", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("dlb", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("drg", {"temperature": 2.0, "alpha": 0.0}, "alpha=0"),
    ("dtskd", {"temperature": 2.0, "kd_weight": 0.0}, "kd_weight=0"),
    ("dtskd", {"stop_gradient": True, "kd_weight": 0.0}, "kd_weight=0"),
    ("frskd", {"num_channels": 64}, "self_teacher_net=BiFPNc"),
    ("frskd", {"repeat": 2}, "self_teacher_net=BiFPNc"),
    ("frskd", {"width": 3, "self_teacher_net": "BiFPN"}, "self_teacher_net=BiFPN"),
    ("frskd", {"feature_loss": "hint", "beta": 0.0}, "beta=0"),
    ("frskd", {"feature_loss": "overhaul", "beta": 0.0, "margin": "current"}, "beta=0"),
    ("frskd", {"margin": "current"}, "feature_loss=attention"),
    ("frskd", {"margin": "current", "feature_loss": "hint"}, "feature_loss=hint"),
    ("frskd", {"temperature": 2.0, "alpha": 0.0}, "alpha=0"),
    ("frskd", {"ramp": 0.5, "alpha": 0.0, "beta": 0.0}, "alpha=0 and beta=0"),
    ("frskd", {"warmup": 0.5, "alpha": 0.0, "beta": 0.0}, "alpha=0 and beta=0"),
    ("frskd", {"depth": 3, "levels": 1}, "a single level"),
    ("frskd", {"repeat": 2, "levels": 1, "self_teacher_net": "BiFPN"}, "a single level"),
    ("frskd_sla", {"temperature": 2.0, "alpha": 0.0, "gamma": 0.0}, "alpha=0 and gamma=0"),
    ("mean_teacher", {"decay": 0.5, "weight": 0.0}, "weight=0"),
    ("mean_teacher", {"ramp": 0.5, "weight": 0.0}, "weight=0"),
    ("nkd", {"temperature": 2.0, "gamma": 0.0}, "gamma=0"),
    ("one", {"temperature": 2.0, "weight": 0.0}, "weight=0"),
    ("one", {"ramp": 0.5, "weight": 0.0}, "weight=0"),
    ("sskd", {"transformation_share": 0.5, "transformation_weight": 0.0}, "transformation_weight=0"),
    ("sskd", {"temperature": 2.0, "transformation_weight": 0.0, "kd_weight": 0.0}, "kd_weight=0"),
    ("teskd", {"temperature": 2.0, "kd_weight": 0.0}, "kd_weight=0"),
    ("tf_fd", {"warmup": 0.3, "lambda_inter": 0.0, "lambda_intra": 0.0}, "lambda_inter=0 and lambda_intra=0"),
    ("tf_fd", {"detach_salient": True, "lambda_intra": 0.0}, "lambda_intra=0"),
    ("tf_kd_reg", {"softens": "logits", "alpha": 0.0}, "alpha=0"),
    ("tf_kd_reg", {"correct": 0.9, "multiplier": 0.0}, "multiplier=0"),
    ("tf_kd_self", {"multiplier": 1.0, "alpha": 0.0}, "alpha=0"),
    ("tf_kd_self", {"temperature": 1.0, "multiplier": 0.0}, "multiplier=0"),
    ("zipf_ls", {"ranked": "others", "weight": 0.0}, "weight=0"),
]


@pytest.mark.parametrize(("name", "settings", "why"), IDLE)
def test_a_setting_without_effect_is_refused(name, settings, why):
    kind, (idle, value) = find_method(name), next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"^{kind.__name__}: {idle}={value} has no effect with {why}"):
        small_method(kind, small_task(), **settings)


def test_a_temperature_has_an_effect_while_votes_are_softened():
    small_method(find_method("frskd_sla"), small_task(), alpha=0.0, temperature=2.0)


SINGLE = "this student has a single feature map"
PAIRS = r"lets maps learn .* at least 2 .* has 1 \(16 channels\)"


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        *((name, {"taps": ["stage3"]}, SINGLE) for name in ("byot", "dks", "drg", "mixskd", "one", "teskd")),
        *((name, {"taps": ["stage3"]}, PAIRS) for name in ("sad", "tf_fd", "tfd")),
        ("drg", {"level": 3}, "level=3 is not before the student's deepest of 3 feature maps; choose level=2 or less"),
        ("fitnet", {"level": 4}, "level=4 was asked for and the student has 3 feature maps"),
        ("frskd", {"levels": 4}, "4 levels were asked for and the student has 3"),
        ("frskd", {"warmup": 0.5, "ramp": 0.6}, "warmup=0.5 and ramp=0.6 are shares of training"),
        ("manifold_mixup", {"levels": 4}, "4 levels were asked for and the student has 3 feature maps"),
        ("sad", {"warmup": 1.0}, "warmup=1.0 leaves SAD's only term no share of training; method=baseline"),
        ("teskd", {"width": 6}, "width=6 cannot be compared .* of 16 channels; choose width=16, or feature_weight=0"),
        ("uskd", {"taps": ["stage3"]}, "USKD reads the feature map before the last, and this student has one map"),
        (
            "zipf_ls",
            {"taps": ["stage3"], "voter": "head", "previous_stage": True},
            "needs two feature maps, and this student has one",
        ),
        *((name, {"taps": ["stage1"]}, "reads no feature maps, so") for name in ("baseline", "label_smoothing")),
    ],
)
def test_settings_that_the_student_does_not_allow_are_refused(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_method(find_method(name), small_task(), **settings)


def test_the_largest_that_fits_is_allowed():
    for name, settings in [("frskd", {"warmup": 0.4, "ramp": 0.6}), ("frskd", {"levels": 3}), ("fitnet", {"level": 3})]:
        small_method(find_method(name), small_task(), **settings)


def teacher_of(name, task):
    trained = find_method(name).teacher_method
    return small_method(find_method(trained), task) if trained else small_student(task)


@pytest.mark.parametrize("name", ["hsakd", "kd", "kd_tf_fd", "nkd", "sskd", "tf_kd_self"])
def test_a_teacher_of_other_classes_is_refused(name):
    task, teacher = small_task(), teacher_of(name, small_task().replace(num_classes=7))
    asks = f"the teacher scores 7 classes and the task has 5; give {find_method(name).__name__} a"
    with pytest.raises(ValueError, match=asks):
        create_method(name, small_student(task), task, teacher=teacher)


@pytest.mark.parametrize("name", ["at", "fitnet", "ofd"])
def test_a_teacher_of_maps_may_score_other_classes(name):
    task, teacher = small_task(), teacher_of(name, small_task().replace(num_classes=7))
    create_method(name, small_student(task), task, teacher=teacher)


ROTATING = ["frskd_sla", "hsakd", "hsakd_online", "hsakd_teacher", "sla", "sla_sd", "sskd", "sskd_teacher"]


@pytest.mark.parametrize("name", ROTATING)
def test_rotations_of_oblong_images_are_refused(name):
    task = small_task().replace(image_shape=(3, 16, 12))
    given = {"teacher": teacher_of(name, small_task())} if find_method(name).needs_teacher else {}
    with pytest.raises(ValueError, match="rotations need square images, and these are 16 x 12"):
        create_method(name, small_student(task), task, **given)


@pytest.mark.parametrize("name", ["dtskd", "ps_kd"])
def test_a_memory_of_images_needs_their_number_and_their_index(name):
    task = small_task()
    with pytest.raises(ValueError, match="task.num_examples=0; give how many there are"):
        create_method(name, small_student(task), task.replace(num_examples=0))
    method, batch = small_method(find_method(name), task), small_batch(find_method(name), task)
    with pytest.raises(ValueError, match="batch.index=None; give it"):
        method(batch._replace(index=None))
