"""Data made ready for training: each image is decoded once, and runs of one process may share what was read."""

import gc
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch

from helpers.images import damage, write_classes, write_image
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import (
    BatchSampler,
    CachedDataset,
    EvalSet,
    OpenedData,
    PreparedData,
    TrainSet,
    choose_defaults,
    eval_loader,
    open_splits,
    prepare_data,
    train_loader,
)
from selfdistill.data.datasets import base, masks
from selfdistill.data.prepare import TRANSFORM_SETTINGS

CACHES = ["none", "auto", "device", "memory", "disk"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    write_classes(tmp_path / "images" / "train", {"a": 4, "b": 4}, size=(20, 20))
    write_classes(tmp_path / "images" / "val", {"a": 2, "b": 2}, size=(20, 20))
    write_classes(tmp_path / "images" / "test", {"a": 1, "b": 1}, size=(20, 20))
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """How often each file was decoded, whole or to see that it is whole."""
    counts: Counter[str] = Counter()

    def count_whole(source, *arguments, **options):
        counts[str(source)] += 1
        return read_image(source, *arguments, **options)

    def count_checks(source, *arguments, decode=False, **options):
        counts[str(source)] += decode
        return read_format(source, *arguments, decode=decode, **options)

    read_image, read_format = base.read_image, base.read_format
    for module in (base, masks):
        monkeypatch.setattr(module, "read_image", count_whole)
    monkeypatch.setattr(base, "read_format", count_checks)
    return counts


def prepare(source: Path, *, opened: OpenedData | None = None, cache: str = "auto", **settings) -> PreparedData:
    return prepare_data(DataPart(source=str(source), **settings), CLASSIFICATION, cache=cache, opened=opened)


def train_and_evaluate(prepared: PreparedData) -> None:
    """Loads an epoch of both data sets."""
    transform = CLASSIFICATION.train_transform(prepared.settings)
    train_set = TrainSet(prepared.train, transform, seed=0)
    assert len(list(train_loader(train_set, BatchSampler(len(train_set), 4, seed=0).epoch(0)))) == 2
    eval_set = EvalSet(prepared.held_out, CLASSIFICATION.eval_transform(prepared.settings))
    assert sum(len(batch.images) for batch in eval_loader(eval_set, batch_size=4)) == len(eval_set)


@pytest.mark.parametrize("cache", CACHES)
def test_an_image_is_decoded_once_before_training_and_not_again_where_it_is_kept(folder, decoded, cache):
    prepared = prepare(folder, cache=cache)
    assert len(decoded) == 14 and set(decoded.values()) == {1}
    train_and_evaluate(prepared)
    uses = {path: 1 if cache != "none" or "/test/" in path else 2 for path in decoded}
    assert decoded == uses


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_images_that_are_resized_in_one_way_to_be_kept_and_in_another_for_statistics_are_decoded_once(
    folder, decoded, cache
):
    prepared = prepare(folder, cache=cache, image_size=72)  # random crops of images at their own size
    train_and_evaluate(prepared)
    assert len(decoded) == 14 and set(decoded.values()) == {1} and prepared.train[0].image.size == (20, 20)


def test_images_and_masks_are_decoded_once_before_training(tmp_path, decoded):
    for number in range(6):
        write_image(tmp_path / "images" / f"{number}.png", number)
        write_image(tmp_path / "masks" / f"{number}.png", number, mode="1")
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    prepared = prepare_data(DataPart(source=str(tmp_path)), SEGMENTATION, cache="auto")
    assert len(decoded) == 12 and set(decoded.values()) == {1}
    assert prepared.train[0].target.shape == (6, 8) and prepared.train[0].image.size == (8, 6)


def test_what_is_decided_is_what_each_step_alone_decides(folder):
    settings = DataPart(source=str(folder))
    prepared = prepare(folder)
    assert prepared.settings == choose_defaults(settings, open_splits(settings, CLASSIFICATION), CLASSIFICATION)
    assert prepare_data(prepared.settings, CLASSIFICATION).settings == prepared.settings
    assert prepared.held_out_split == "val" and prepared.held_out.dataset is prepared.splits.val


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_that_cannot_be_used_are_named_and_counted(folder, cache, split):
    damage(folder / split / "a" / "0.png", "truncated")
    damage(folder / split / "b" / "0.png", "truncated")
    with pytest.raises(ValueError, match=rf"{split}/a/0.png cannot be read .* \(and 1 more such image\)$"):
        prepare(folder, cache=cache)
    kept = [file for place in folder.parent.glob("cache") for file in place.iterdir() if file.suffix == ".part"]
    assert kept == []  # nothing half-written stays on the disk


# sharing


@pytest.mark.parametrize("cache", ["auto", "memory", "disk"])
def test_a_second_run_on_the_same_data_decodes_nothing(folder, decoded, cache):
    opened = OpenedData()
    first = prepare(folder, opened=opened, cache=cache)
    decoded.clear()
    second = prepare(folder, opened=opened, cache=cache, augment=["flip", "crop"])
    assert not decoded and second.train is first.train and second.held_out is first.held_out
    assert second.settings.mean == first.settings.mean and second.settings.augment != first.settings.augment
    resolved = prepare_data(first.settings, CLASSIFICATION, cache=cache, opened=opened)  # a recipe that a run wrote
    assert resolved.settings == first.settings and not decoded


def test_images_are_shared_only_where_the_next_run_needs_the_same(folder):
    opened = OpenedData()
    first = prepare(folder, opened=opened)
    one_by_one = prepare(folder, opened=opened, augment="trivialaugment")  # which need no image on the device
    assert one_by_one.train.on(torch.device("cpu")) is None and first.train.on(torch.device("cpu")) is not None
    smaller = prepare(folder, opened=opened, image_size=16)
    assert smaller.train.on(torch.device("cpu")).shape[2:] == (16, 16) and smaller.splits is first.splits
    assert prepare(folder, opened=opened, limit=4).splits is not first.splits


@pytest.mark.slow
def test_nothing_but_the_last_data_is_kept_alive(folder):
    opened = OpenedData()
    first = prepare(folder, opened=opened)
    images = weakref.ref(first.train)
    assert isinstance(images(), CachedDataset)
    del first
    gc.collect()
    assert images() is not None  # for the next run
    prepare(folder, opened=opened, limit=4)
    gc.collect()
    assert images() is None


def test_settings_of_transforms_are_settings():
    assert DataPart.model_fields.keys() >= TRANSFORM_SETTINGS


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_held_out_images_without_room_are_noticed_before_any_image_is_decoded(folder, cache, monkeypatch):
    def refuse_later(cache, needed, free, where, seen=[]):  # noqa: B006
        seen.append(needed)
        if len(seen) == 2:
            raise ValueError("no room for the held-out images")

    def no_decoding(*args):
        raise AssertionError("decoded")

    for module in ("images", "disk"):
        monkeypatch.setattr(f"selfdistill.data.cache.{module}.refuse_too_large", refuse_later)
    monkeypatch.setattr("selfdistill.data.reading._read_image", no_decoding)
    with pytest.raises(ValueError, match="no room for the held-out images"):
        prepare(folder, cache=cache)
    assert not list(folder.parent.glob("cache/*"))


def test_where_images_are_kept_is_decided_once(folder, monkeypatch):
    monkeypatch.setattr("selfdistill.data.cache.cached.count_free_bytes", lambda device: 0.0)
    prepared = prepare(folder, cache="auto")
    monkeypatch.undo()
    assert prepared.held_out.on(torch.device("cpu")) is None  # and not decoded anew after an epoch


def test_large_photographs_are_drafted_where_asked_and_told_of_otherwise(tmp_path):
    for split in ("train", "val"):
        for number, name in enumerate(("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")):
            write_image(tmp_path / "images" / split / name, size=(640, 480), seed=number)
    part = DataPart(source=str(tmp_path / "images"), image_size=72)
    whole = prepare_data(part, CLASSIFICATION)
    told = [note for note in whole.notes if "draft" in note]
    assert told == ["images of about 0.31 megapixels: data.draft=true reads JPEG files of this size in less time"]
    prepared = prepare_data(part.model_copy(update={"draft": True}), CLASSIFICATION)
    assert not [note for note in prepared.notes if "draft" in note]
    assert prepared.train[0].image.size == (320, 240)
    scored, expected = ([each.image.tobytes() for each in data.held_out] for data in (prepared, whole))
    assert scored == expected  # as they are
    assert not [note for note in prepare_data(DataPart(source="digits"), CLASSIFICATION).notes if "draft" in note]
    for cache in ("memory", "disk"):
        with pytest.raises(ValueError, match=rf"machine.cache={cache} keeps whole images, .*data.draft=false"):
            prepare_data(part.model_copy(update={"draft": True}), CLASSIFICATION, cache=cache)
