"""Data sets that a Python program gives: what they may hold, and what becomes of it."""

import pytest
import torch
from torch.utils.data import Subset

from helpers.given import Digits, Labels, Masks, scans
from selfdistill.config.recipe import DataPart
from selfdistill.data import EpochIndex, EvalSet, TrainSet, prepare_data
from selfdistill.data.datasets.given import Given
from selfdistill.imports import lend
from selfdistill.tasks import find_task


def prepare(dataset, task="classification", *, val=None, num_classes=None, **settings):
    objects = {"object:Own": Given(dataset, num_classes), "object:Val": Given(val if val is not None else dataset)}
    part = DataPart(source="object:Own", val="object:Val", **settings)
    with lend(objects):
        return prepare_data(part, find_task(task))


def open_train_set(dataset, **options):
    prepared = prepare(dataset)
    return TrainSet(prepared.train, find_task("classification").train_transform(prepared.settings), seed=0, **options)


@pytest.mark.parametrize("form", ["uint8", "pil", "array"])
def test_stored_images_are_those_of_the_built_in_digits(form):
    prepared = prepare(Digits(60, form))
    assert prepared.settings.image_size == (8, 8) and prepared.settings.channels == 1
    assert not prepared.settings.finished and prepared.settings.augment == ["crop"]
    assert prepared.splits.train.classes == tuple("0123456789")
    image = EvalSet(prepared.train, find_task("classification").eval_transform(prepared.settings)).load([3], 0).images
    assert image.shape == (1, 1, 1, 8, 8)


def test_finished_tensors_stay_as_the_data_set_gives_them():
    prepared = prepare(Digits(60))
    assert prepared.settings.finished and prepared.settings.mean == [0.0] and prepared.settings.std == [1.0]
    batch = open_train_set(Digits(60))[EpochIndex(0, 7)]
    noise = batch.images - scans()[0][7]  # one number, which the data set draws
    assert noise.std() < 1e-6 and noise.mean() != 0


def test_views_are_further_draws_and_repeat_with_the_seed():
    views = open_train_set(Digits(60), views=2)[EpochIndex(1, 7)]
    again = open_train_set(Digits(60), views=2)[EpochIndex(1, 7)]
    assert torch.equal(views.views, again.views) and torch.equal(views.images, again.images)
    assert len({float(image.mean()) for image in (views.images, *views.views)}) == 3


def test_positives_are_other_images_of_the_class():
    train_set = open_train_set(Digits(60), positives=1)
    labels = [Digits(60)[i][1] for i in range(60)]
    (positive,) = train_set.choose_positives(torch.tensor([7]), 0).flatten().tolist()
    assert positive != 7 and labels[positive] == labels[7]
    assert train_set[EpochIndex(0, 7)].positives.shape == (1, 1, 8, 8)


def test_scoring_draws_the_same_each_time_and_leaves_the_generators_alone():
    prepared = prepare(Digits(60))
    images = EvalSet(prepared.held_out, find_task("classification").eval_transform(prepared.settings))
    before = torch.get_rng_state()
    first, second = images.load([0, 1], 0).images, images.load([0, 1], 0).images
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


def test_labels_come_from_targets_where_a_data_set_has_them():
    class WithTargets(Digits):
        classes = tuple("abcdefghij")

        def __init__(self, count):
            super().__init__(count)
            self.targets = [self[i][1] for i in range(count)]

    chosen = Subset(WithTargets(80), range(60))
    assert prepare(chosen).splits.train.classes == tuple("abcdefghij")


@pytest.mark.parametrize("form", ["finished", "uint8"])
def test_masks_and_several_labels(form):
    masks = prepare(Masks(20, form), "segmentation")
    assert masks.splits.train.classes == ("0", "1")
    target = EvalSet(masks.held_out, find_task("segmentation").eval_transform(masks.settings)).load([0], 0).target
    assert sorted(target.unique().tolist()) == [-100, 0, 1] and (target[0, 0] == -100).all()
    labels = prepare(Labels(20, form), "multilabel")
    assert labels.splits.train.classes == ("even", "large") and labels.splits.train.labels[3].tolist() == [0, 0]


class Broken(Digits):
    def __init__(self, change):
        super().__init__(40)
        self.change = change

    def __getitem__(self, i):
        return self.change(i, *super().__getitem__(i))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i, image, label: image, "item 0 of Own: a Tensor is no pair"),
        (lambda i, image, label: (image, label - 1), "item 0 of Own has the label -1, and there are"),
        (lambda i, image, label: (image, 0.5), "has the label 0.5; give a class number"),
        (lambda i, image, label: (image[0], label), r"has the shape \(8, 8\); give \(channels, height, width\)"),
        (
            lambda i, image, label: (1 / (i - 3), label),
            "Own raised ZeroDivisionError: .*, given item 3 of Own",
        ),
        (
            lambda i, image, label: ("cat.png", label),
            "item 0 of Own: str is no picture; give a PIL image",
        ),
        (
            lambda i, image, label: ((image[0].double().numpy()), label),
            r"item 0 of Own: float64 \(8, 8\) is no picture",
        ),
    ],
)
def test_what_no_network_can_learn_from_is_said(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        prepare(Broken(change))


def test_settings_that_would_change_finished_images_are_refused():
    for setting, value in {
        **{"augment": ["flip"], "image_size": 16, "channels": 3, "mean": [0.5], "std": [2.0]},
        **{"gray_range": (0, 255), "value_range": (0, 1), "short_side": 16},
    }.items():
        with pytest.raises(ValueError, match=rf"data.{setting}=.* does not fit Own, whose images are finished"):
            prepare(Digits(40), **{setting: value})
    with pytest.raises(ValueError, match="data.finished=true has no effect"):
        prepare_data(DataPart(source="digits", finished=True), find_task("classification"))


@pytest.mark.parametrize("form", ["finished", "uint8"])
def test_images_that_come_decoded_have_no_drafts(form):
    with pytest.raises(ValueError, match="data.draft=true has no effect on images that come decoded"):
        prepare(Digits(40, form), draft=True)


def test_a_tensor_of_another_shape_is_named():
    train_set = open_train_set(Digits(40))
    train_set.dataset.dataset = Broken(lambda i, image, label: (image[:, :4], label))
    with pytest.raises(ValueError, match=r"item 2 of Own: torch.float32 \(1, 4, 8\), and the first"):
        train_set[EpochIndex(0, 2)]
