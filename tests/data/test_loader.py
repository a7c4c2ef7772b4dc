"""Augmented images and loaders: what is drawn depends on seed, epoch and index alone."""

import multiprocessing
import pickle
import random

import numpy as np
import pytest
import torch

from helpers.generators import draw_from_generators, seed_generators
from helpers.images import damage, encoded, opened, write_classes, write_image, write_parquet
from helpers.tasks import CLASSIFICATION
from helpers.transforms import FunctionTransform
from selfdistill.config.recipe import DataPart
from selfdistill.data import (
    BatchSampler,
    EpochIndex,
    EvalSet,
    TrainSet,
    choose_defaults,
    eval_loader,
    image_shape,
    open_splits,
    train_loader,
)
from selfdistill.data.transforms.image import eval_transform, train_transform


class AllGenerators:
    """Noise from all three global generators in place of an augmentation."""

    def __call__(self, image) -> torch.Tensor:
        return torch.tensor([torch.rand(()).item(), random.random(), float(np.random.rand())]).reshape(3, 1, 1)


class MeanGray:
    """The mean grey of the image, which tells rows apart."""

    def __call__(self, image) -> torch.Tensor:
        return torch.tensor(np.asarray(image, dtype=np.float32).mean()).reshape(1, 1, 1)


NOISE, MEAN_GRAY = FunctionTransform(AllGenerators()), FunctionTransform(MeanGray())


@pytest.fixture(scope="module")
def digits():
    return open_splits(DataPart(source="digits", limit=60), CLASSIFICATION).train


def presented(augment: str | list[str] = "auto") -> DataPart:
    return choose_defaults(
        DataPart(augment=augment, mean=[0.3], std=[0.4]),
        open_splits(DataPart(source="digits"), CLASSIFICATION),
        CLASSIFICATION,
    )


def test_augmentation_depends_on_seed_epoch_row_and_view_alone(digits):
    dataset = TrainSet(digits, NOISE, seed=0, views=2, positives=2)
    first = dataset[EpochIndex(0, 7)]
    dataset[EpochIndex(0, 8)], draw_from_generators()
    again = dataset[EpochIndex(0, 7)]
    seen = [first.images, *first.views, *first.positives]
    for one, two in zip(seen, [again.images, *again.views, *again.positives], strict=True):
        assert torch.equal(one, two)
    other = [dataset[EpochIndex(1, 7)], dataset[EpochIndex(0, 8)], TrainSet(digits, NOISE, seed=1)[EpochIndex(0, 7)]]
    values = torch.stack([*seen, *(batch.images for batch in other)]).flatten()
    assert len(values.unique()) == len(values)  # every generator differs in every view, epoch, row and seed
    assert torch.equal(
        TrainSet(digits, NOISE, seed=0)[EpochIndex(0, 7)].images, first.images
    )  # whatever else is asked for


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_generators_outside(digits, workers):
    dataset = TrainSet(digits, NOISE, seed=0, views=1, positives=1)
    seed_generators()
    expected = draw_from_generators()
    seed_generators()
    for _ in train_loader(dataset, BatchSampler(len(digits), 20, seed=0).epoch(0), workers=workers):
        pass
    for _ in eval_loader(EvalSet(digits, MEAN_GRAY), batch_size=20, workers=workers):
        pass
    # Not random's, which the checks of annotations in tests draw from.
    assert draw_from_generators()[::2] == expected[::2]


@pytest.mark.slow
def test_positives_are_other_rows_of_the_same_label(tmp_path):
    splits = opened(
        write_classes(tmp_path / "train", {"a": 5, "b": 4, "c": 1}).parent,
        val_fraction=None,
        val=str(tmp_path / "train"),
    )
    rows = splits.train
    greys = [float(MEAN_GRAY.function(rows.image(i))) for i in range(len(rows))]
    assert len(set(greys)) == 10
    dataset = TrainSet(rows, MEAN_GRAY, seed=0, positives=3)
    met: dict[int, set[int]] = {row: set() for row in range(10)}
    for epoch in range(10):
        for row in range(10):
            others = [greys.index(float(positive)) for positive in dataset[EpochIndex(epoch, row)].positives]
            met[row] |= set(others)
            if rows.labels[row] != 2:
                assert len(set(others)) == 3
    assert met == {
        **{row: set(range(5)) - {row} for row in range(5)},
        **{row: set(range(5, 9)) - {row} for row in range(5, 9)},
        9: {9},  # alone in its class
    }
    few = TrainSet(rows, MEAN_GRAY, seed=0, positives=6)[EpochIndex(0, 6)].positives
    assert few.shape == (6, 1, 1, 1) and {greys.index(float(one)) for one in few} <= {5, 7, 8}


def test_batches_have_the_shapes_that_methods_expect(digits):
    part = presented()
    dataset = TrainSet(digits, train_transform(part), seed=0, views=2, positives=1)
    batch = next(iter(train_loader(dataset, BatchSampler(len(digits), 12, seed=0).epoch(0))))
    assert batch.images.shape == (12, 1, 8, 8) and batch.images.dtype == torch.float32
    assert batch.target.shape == batch.index.shape == (12,) and batch.target.dtype == batch.index.dtype == torch.int64
    assert batch.views.shape == (12, 2, 1, 8, 8) and batch.positives.shape == (12, 1, 1, 8, 8)
    assert torch.equal(batch.target, digits.labels[batch.index])
    plain = next(
        iter(train_loader(TrainSet(digits, train_transform(part), seed=0), BatchSampler(60, 12, seed=0).epoch(0)))
    )
    assert plain.views is None and plain.positives is None and torch.equal(plain.images, batch.images)


@pytest.mark.slow
def test_workers_and_resuming_change_nothing(digits):
    part = presented(["crop", "randaugment"])
    dataset = TrainSet(digits, train_transform(part), seed=4, views=1, positives=1)
    steps = BatchSampler(len(digits), 16, seed=4, drop_last=False, accumulate=2).epoch(1)
    alone = list(train_loader(dataset, steps))
    assert [len(batch.images) for batch in alone] == [8, 8, 8, 8, 8, 8, 6, 6]
    for others in (list(train_loader(dataset, steps, workers=2)), alone[:2] + list(train_loader(dataset, steps[1:]))):
        assert len(others) == len(alone)
        for one, two in zip(alone, others, strict=True):
            assert one.soft_target is two.soft_target is None
            pairs = [(a, b) for a, b in zip(one, two, strict=True) if a is not None]
            assert len(pairs) == 5 and all(torch.equal(a, b) for a, b in pairs)


def test_a_training_set_can_be_sent_to_a_fresh_process(tmp_path):
    pytest.importorskip("datasets")
    blob = encoded(write_image(tmp_path / "x.png"))
    file = write_parquet(tmp_path / "x.parquet", [blob] * 8, [0, 1] * 4)
    splits = opened(file)
    part = choose_defaults(
        DataPart(source=str(file), augment=["crop", "flip", "trivialaugment"]), splits, CLASSIFICATION
    )
    dataset = TrainSet(splits.train, train_transform(part), seed=0, positives=1)
    sent = pickle.loads(pickle.dumps(dataset))
    for one, two in zip(dataset[EpochIndex(2, 3)], sent[EpochIndex(2, 3)], strict=True):
        assert (one is None and two is None) or torch.equal(one, two)


@pytest.mark.slow
def test_evaluation_sees_every_row_once_over_all_processes(digits):
    part = presented()
    shares = []
    for rank in range(3):
        loader = eval_loader(EvalSet(digits, eval_transform(part)), batch_size=7, rank=rank, world=3, workers=rank // 2)
        shares.append(list(loader))
    seen = torch.cat([batch.index for share in shares for batch in share])
    assert seen.sort().values.tolist() == list(range(60))
    assert [len(batch.images) for batch in shares[1]] == [7, 7, 6]
    for batch in shares[2]:
        assert torch.equal(batch.target, digits.labels[batch.index]) and batch.views is None
    assert list(eval_loader(EvalSet(digits, eval_transform(part)), batch_size=7, rank=60, world=61)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_later_is_one_sentence_from_any_process(tmp_path, workers):
    splits = opened(write_classes(tmp_path, {"a": 5, "b": 5}, suffix=".jpg", size=(40, 40)))
    part = choose_defaults(DataPart(source=str(tmp_path)), splits, CLASSIFICATION)
    dataset = TrainSet(splits.train, train_transform(part), seed=0)
    damage(tmp_path / splits.train.key(3), "truncated")
    with pytest.raises(ValueError) as error:
        list(train_loader(dataset, BatchSampler(8, 4, seed=0).epoch(0), workers=workers))
    assert str(error.value).startswith(f"{splits.train.name(3)} cannot be read as an image: ")
    assert "\n" not in str(error.value) and image_shape(part) == (3, 40, 40)
    assert not multiprocessing.active_children()  # though the error holds all that was going on


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_comes_again_is_augmented_and_paired_anew(digits, workers):
    dataset = TrainSet(digits, NOISE, seed=0, views=1, positives=1)
    draws = [EpochIndex(4, 7), EpochIndex(4, 7, 1), EpochIndex(4, 7, 2)]
    (batch,) = train_loader(dataset, [[draws]], workers=workers)
    assert batch.index.tolist() == [7, 7, 7] and batch.target.tolist() == [digits.labels[7]] * 3
    for images in (batch.images, batch.views, batch.positives):
        assert len({tuple(image.flatten().tolist()) for image in images}) == 3
    (first,) = train_loader(dataset, [[draws[:1]]])
    assert torch.equal(first.images[0], batch.images[0]) and torch.equal(dataset[draws[2]].images, batch.images[2])
    whose = dataset.choose_positives(torch.tensor([7 + repeat * 60 for repeat in range(30)]), 4)
    assert len(whose.unique()) > 1 and set(digits.labels[whose.flatten()].tolist()) == {int(digits.labels[7])}
