"""Where decoded images are kept changes nothing but the time: every cache, with workers or without, gives the same."""

import itertools
import os
import pickle
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.images import damage, opened, write_classes, write_image
from helpers.masks import Drawn
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.build import build
from selfdistill.config.read import parse
from selfdistill.config.recipe import DataPart
from selfdistill.data import (
    BatchSampler,
    CachedDataset,
    EvalSet,
    Splits,
    TrainSet,
    choose_defaults,
    eval_loader,
    open_splits,
    train_loader,
)
from selfdistill.data import loader as loaders
from selfdistill.data.cache import cached as cached_module
from selfdistill.data.cache import disk as disk_module
from selfdistill.data.cache import images as images_module
from selfdistill.data.cache.disk import DAY, DiskImages
from selfdistill.data.cache.folder import cache_folder
from selfdistill.data.datasets.base import LabeledDataset
from selfdistill.data.transforms.image import eval_transform, train_transform
from selfdistill.task import Batch

CPU = torch.device("cpu")
CACHES = ["auto", "device", "memory", "disk"]
SMALL = {"image_size": [12, 16], "augment": ["crop", "flip", "rotation", "cutout"]}
LARGE = {"image_size": 70, "augment": ["crop", "rotation", "erasing"]}
ALONE = {"image_size": 12, "augment": ["flip", "trivialaugment", "resized_crop"]}
PRESENTED = {"small": SMALL, "large": LARGE, "alone": ALONE}


@pytest.fixture(autouse=True)
def folder_of_the_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> LabeledDataset:
    """Sixteen images of several sizes and modes."""
    folder = write_classes(tmp_path_factory.mktemp("pictures"), {"a": 5, "b": 5}, size=(90, 80))
    for number in range(5, 8):
        write_image(folder / "a" / f"{number}.png", number, size=(75 + number, 120), mode="L")
        write_image(folder / "b" / f"{number}.png", number, size=(60, 30 + number), mode="RGBA")
    return opened(folder, val=str(folder)).train


def part_of(rows: LabeledDataset, **settings) -> DataPart:
    return choose_defaults(
        DataPart(mean=[0.4] * 3, std=[0.3] * 3, channels=3, **settings),
        open_splits(DataPart(source="digits"), CLASSIFICATION),
        CLASSIFICATION,
    )


def train_set(rows: LabeledDataset, settings: dict, cache: str, **drawn) -> TrainSet:
    transform = train_transform(part_of(rows, **settings))
    return TrainSet(CachedDataset(rows, transform, cache), transform, **drawn)


def trained(rows: LabeledDataset, settings: dict, cache: str, *, workers: int = 0, start: int = 0) -> list[Batch]:
    dataset = train_set(rows, settings, cache, seed=3, views=1, positives=2)
    steps = BatchSampler(len(rows), 5, seed=3, accumulate=2).epoch(1)
    return list(train_loader(dataset, steps[start:], workers=workers, channels_last=True))


def scored(rows: LabeledDataset, cache: str) -> list[Batch]:
    transform = eval_transform(part_of(rows, image_size=70))
    dataset = EvalSet(CachedDataset(rows, transform, cache), transform)
    return [*eval_loader(dataset, batch_size=3), *eval_loader(dataset, batch_size=3, rank=1, world=2, workers=1)]


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for one, two in zip(some, others, strict=True):
        for a, b in zip(one, two, strict=True):
            assert (a is None and b is None) or (torch.equal(a, b) and a.stride() == b.stride())


@pytest.fixture(scope="module")
def uncached(pictures) -> dict[str, list[Batch]]:
    return {name: trained(pictures, settings, "none") for name, settings in PRESENTED.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cache"),
    [*(("small", cache) for cache in CACHES), *itertools.product(["large", "alone"], ["memory", "disk"])],
)
def test_every_cache_gives_the_same_batches_bit_for_bit(pictures, uncached, name, cache):
    expected = uncached[name]
    assert [len(batch.images) for batch in expected] == [2, 3] * 3
    assert expected[0].views.shape[:2] == (2, 1) and expected[0].positives.shape[:2] == (2, 2)
    assert_same(trained(pictures, PRESENTED[name], cache), expected)


@pytest.mark.slow
def test_batches_do_not_depend_on_what_is_augmented_with_them(pictures, uncached, monkeypatch):
    assert_same(trained(pictures, SMALL, "device", start=1), uncached["small"][2:])  # as in a resumed run
    monkeypatch.setattr(loaders, "CHUNKS", {"cpu": 1})
    assert_same(trained(pictures, SMALL, "device"), uncached["small"])  # batch by batch


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.slow
def test_workers_read_what_is_kept(pictures, uncached, cache):
    assert_same(trained(pictures, ALONE, cache, workers=2), uncached["alone"])


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.slow
def test_evaluation_shows_the_same_from_every_cache(pictures, cache):
    assert_same(scored(pictures, cache), scored(pictures, "none"))


@pytest.mark.parametrize("cache", CACHES)
def test_an_image_is_decoded_once_where_it_is_kept(pictures, cache, monkeypatch):
    decoded = []
    image = LabeledDataset.image
    monkeypatch.setattr(LabeledDataset, "image", lambda self, i: decoded.append(i) or image(self, i))
    dataset = train_set(pictures, SMALL, cache, seed=3, positives=1)
    for epoch in range(3):
        for _ in train_loader(dataset, BatchSampler(len(pictures), 5, seed=3).epoch(epoch)):
            pass
    assert sorted(decoded) == list(range(len(pictures)))


# on the device


class Asked(TorchDispatchMode):
    """Notes the operations that wait for the values of a tensor."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> list[str]:
        return [call for call in self.calls if call in self.WAITING]


def test_batches_from_the_device_never_wait_for_a_value(pictures, monkeypatch):
    every = {"image_size": 16, "augment": ["crop", "resized_crop", "flip", "rotation", "cutout", "erasing"]}
    dataset = train_set(pictures, every, "auto", seed=0, views=1, positives=2)
    monkeypatch.setattr(loaders, "CHUNKS", {"cpu": 1})  # batch by batch
    loader = iter(train_loader(dataset, BatchSampler(len(pictures), 4, seed=0).epoch(0), channels_last=True))
    next(loader)  # moves what the epoch needs
    with Asked() as asked:
        assert len(list(loader)) == 3
    assert asked.waits == [] and asked.calls.count("index_select") == 3
    with Asked() as asked:
        torch.ones(1).item()
    assert asked.waits == ["_local_scalar_dense"]


@pytest.mark.slow
def test_auto_keeps_images_on_the_device_only_where_there_is_room(pictures, monkeypatch):
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "auto")
    needed = 16 * 3 * 12 * 16
    assert cached.bytes == needed and cached.on(CPU).shape == (16, 3, 12, 16)
    monkeypatch.setattr(cached_module, "count_free_bytes", lambda device: 8 * needed - 1)
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "auto")
    assert cached.may_lie_on_device and cached.on(CPU) is None
    monkeypatch.setattr(cached_module, "MOST", needed - 1)
    assert not cached.may_lie_on_device
    assert CachedDataset(pictures, train_transform(part_of(pictures, **ALONE)), "auto").on(CPU) is None


def test_images_lie_on_the_device_that_asks_for_them(pictures):
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "auto")
    here, other = cached.on(CPU), torch.device("meta")
    assert cached.on(CPU) is here and cached.on(other).device == other


@pytest.mark.parametrize("cache", ["device", "memory", "disk"])
def test_images_for_which_there_is_no_room_are_refused_with_figures(pictures, cache, monkeypatch):
    for module in (cached_module, images_module):
        monkeypatch.setattr(module, "count_free_bytes", lambda device: 2**12 * 1.0)
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**12))
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), cache)
    figures = r"decoded images of \S+ GiB, and .* has 3.81e-06 GiB free; (take|name) .*none$"
    with pytest.raises(ValueError, match=rf"^machine.cache={cache} would keep {figures}"):
        cached.on(CPU)


@pytest.mark.parametrize("settings", [LARGE, ALONE])
def test_a_device_keeps_no_images_with_which_something_is_done_one_by_one(pictures, settings):
    with pytest.raises(
        ValueError,
        match="^machine.cache=device keeps images of one size, and data.augment has steps that run per image",
    ):
        train_set(pictures, settings, "device", seed=0)


@pytest.mark.parametrize("cache", ["device", "memory", "disk"])
def test_images_with_masks_are_not_kept(cache):
    rows = Drawn((8, 8), (8, 8))
    part = choose_defaults(DataPart(), Splits(rows, None, None, ()), SEGMENTATION)
    with pytest.raises(ValueError, match=f"machine.cache={cache} keeps images that have one label each; with masks"):
        CachedDataset(rows, SEGMENTATION.train_transform(part), cache)


@pytest.mark.slow
def test_idle_workers_are_told_of(tmp_path):
    settings = {"data": {"source": "digits", "limit": 40}, "student": "cifar:resnet8", "out": str(tmp_path)}

    def notes(**machine) -> tuple[str, ...]:
        return build(parse({**settings, "method": "baseline", "machine": machine})).notes

    assert "machine.workers=2 has no effect on images that are kept on the device" in notes(workers=2)
    assert not any("workers" in note for note in (*notes(workers=2, cache="none"), *notes()))


# on the disk


@pytest.mark.slow
def test_a_second_run_maps_the_file_of_the_first(pictures, folder_of_the_cache, monkeypatch):
    expected = trained(pictures, ALONE, "disk")
    (file,) = folder_of_the_cache.iterdir()
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(LabeledDataset, "image", None)
    assert_same(trained(pictures, ALONE, "disk"), expected)
    assert [file] == list(folder_of_the_cache.iterdir()) and file.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_flipped_bit_of_the_file_is_noticed(pictures, folder_of_the_cache):
    def read() -> list[bytes]:
        cached = CachedDataset(pictures, train_transform(part_of(pictures, **ALONE)), "disk")
        cached.on(CPU)
        return [cached[i].image.tobytes() for i in range(len(cached))]

    expected = read()
    (file,) = folder_of_the_cache.iterdir()
    whole = file.read_bytes()
    header, generator = 12 * len(pictures) + 4, random.Random(0)
    for bit in [*generator.sample(range(8 * header), 3), *generator.sample(range(8 * header, 8 * len(whole)), 5)]:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        if bit < 8 * header:
            assert read() == expected  # it is written anew
        else:
            with pytest.raises(ValueError, match=r"pixels is damaged; remove it, and the next run writes it again"):
                read()
    for torn in (whole[:-1], whole + b"a", b""):
        file.write_bytes(torn)
        assert read() == expected and file.read_bytes() == whole


@pytest.mark.slow
def test_a_file_is_named_after_all_that_its_pixels_follow_from(tmp_path, folder_of_the_cache):
    folder = write_classes(tmp_path / "images", {"a": 3, "b": 3})
    rows = opened(folder, val=str(folder)).train

    def files(**settings) -> int:
        CachedDataset(rows, train_transform(part_of(rows, **settings)), "disk").on(CPU)
        return len(list(folder_of_the_cache.iterdir()))

    assert files(image_size=16) == files(image_size=16, augment=["flip", "crop"]) == 1  # of the same pixels
    assert files(image_size=20) == 2
    assert files(image_size=70) == 3  # the middle of larger images
    assert files(image_size=70, augment="crop") == 4
    changed = folder / "b" / "1.png"
    before, pixels = changed.stat(), changed.read_bytes()
    changed.write_bytes(pixels[:-1] + b"!")  # the end of a PNG's last checksum, which nobody reads
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files(image_size=16) == 5  # though size and time are as they were
    write_image(changed, seed=50)
    assert files(image_size=16) == 6
    found = CachedDataset(rows, train_transform(part_of(rows, image_size=[6, 8])), "disk")
    found.on(CPU)
    assert found.images[4].tobytes() == rows.image(4).tobytes()


@pytest.mark.slow
def test_a_file_that_was_not_finished_is_none(tmp_path, folder_of_the_cache):
    folder = write_classes(tmp_path / "images", {"a": 3, "b": 3}, suffix=".jpg", size=(40, 40))
    rows = opened(folder, val=str(folder)).train
    whole = (folder / rows.key(3)).read_bytes()
    damage(folder / rows.key(3), "truncated")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"jpg cannot be read as an image: "):
            CachedDataset(rows, train_transform(part_of(rows, image_size=16)), "disk").on(CPU)
        assert list(folder_of_the_cache.iterdir()) == []
    (folder / rows.key(3)).write_bytes(whole)
    CachedDataset(rows, train_transform(part_of(rows, image_size=16)), "disk").on(CPU)
    assert [file.suffix for file in folder_of_the_cache.iterdir()] == [".pixels"]


def test_what_a_killed_process_has_begun_is_removed_a_day_later(pictures, folder_of_the_cache):
    folder_of_the_cache.mkdir()
    for name, age in (("another's.part", 0), ("left.part", DAY + 60)):
        (folder_of_the_cache / name).touch()
        os.utime(folder_of_the_cache / name, (time.time() - age,) * 2)
    CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "disk").on(CPU)
    assert sorted(file.suffix for file in folder_of_the_cache.iterdir()) == [".part", ".pixels"]
    assert (folder_of_the_cache / "another's.part").exists()


def test_a_disk_that_is_full_is_one_sentence(pictures, folder_of_the_cache, monkeypatch):
    def full(handle, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "disk")
    with pytest.raises(
        ValueError, match=r"^machine.cache=disk cannot use .*cache \(No space left on device\); name an"
    ):
        cached.on(CPU)
    assert list(folder_of_the_cache.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_one_sentence(pictures, tmp_path, monkeypatch):
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **SMALL)), "disk")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        ValueError, match=r"^machine.cache=disk cannot use .*/file/cache \(Not a directory\); name anothe"
    ):
        cached.on(CPU)
    monkeypatch.setenv("SELFDISTILL_CACHE", "~no_such_user/cache")
    with pytest.raises(ValueError, match="^there is no home folder for ~no_such_user/cache; name another"):
        cached.on(CPU)


def test_a_file_sent_to_another_process_is_mapped_there(pictures):
    cached = CachedDataset(pictures, train_transform(part_of(pictures, **LARGE)), "disk")
    cached.on(CPU)
    first = cached.images[11]
    sent = pickle.dumps(cached.images)
    assert len(sent) < 3000 and len(cached.images.pixels) > 200_000
    assert isinstance(cached.images, DiskImages) and pickle.loads(sent)[11] == first


def test_the_folder_is_the_users(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SELFDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "selfdistill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "selfdistill"


@pytest.mark.parametrize("cache", ["none", *CACHES])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_used_is_one_sentence_from_every_cache(tmp_path, cache, workers):
    folder = write_classes(tmp_path / "images", {"a": 3, "b": 3}, suffix=".jpg", size=(40, 40))
    rows = opened(folder, val=str(folder)).train
    damage(folder / rows.key(4), "truncated")
    dataset = train_set(rows, {"image_size": 16}, cache, seed=0)
    with pytest.raises(ValueError) as error:
        list(train_loader(dataset, BatchSampler(len(rows), 3, seed=0).epoch(0), workers=workers))
    assert str(error.value).startswith(f"{rows.name(4)} cannot be read as an image: ") and "\n" not in str(error.value)
