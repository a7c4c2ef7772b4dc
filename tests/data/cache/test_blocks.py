"""Copies of the few blocks that are being read."""

import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch

from selfdistill.data.cache.blocks import BlockFolder, Blocks, ReadAhead


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Numbers:
    """Writes the number of a block, and a line to a log."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, number: int, copy: Path) -> None:
        with self.log.open("a") as log:
            log.write(f"{number}\n")
        copy.write_text(str(number))

    def fetched(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []


@pytest.fixture
def numbers(tmp_path) -> Numbers:
    return Numbers(tmp_path / "log")


def count_copies(folder: BlockFolder) -> int:
    return sum(not name.startswith(".") for name in os.listdir(folder.folder))


def test_the_blocks_used_last_stay_and_others_go(numbers):
    folder = BlockFolder(numbers, 2)
    for number in (0, 1, 2, 3, 0, 4, 0, 5, 0):
        assert folder.read(number, Path.read_text) == str(number)
        assert count_copies(folder) <= 4
    assert numbers.fetched() == [0, 1, 2, 3, 4, 5]  # 0 was used again and again
    assert folder.read(1, Path.read_text) == "1" and numbers.fetched()[-1] == 1


def test_a_folder_goes_with_its_data_set_and_that_of_a_killed_process_with_the_next(cache_folder, numbers):
    folder = BlockFolder(numbers, 2)
    folder.provide(0)
    place = folder.folder
    assert place.is_relative_to(cache_folder)
    left = cache_folder / "blocks" / "left"
    left.mkdir()
    (left / ".holder").touch()
    (left / "7").write_text("7")
    other = BlockFolder(numbers, 2)
    assert place.exists() and not left.exists()
    del folder, other
    assert not place.exists() and list((cache_folder / "blocks").iterdir()) == []


def test_threads_and_processes_fetch_a_block_once(numbers):
    folder = BlockFolder(numbers, 4)
    threads = [threading.Thread(target=folder.provide, args=(k % 3,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers.fetched()) == [0, 1, 2]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(folder.read, [(k % 4, Path.read_text) for k in range(8)]) == list("01230123")
    assert sorted(numbers.fetched()) == [0, 1, 2, 3] and folder.folder.exists()
    assert pickle.loads(pickle.dumps(folder)).read(3, Path.read_text) == "3"


def test_what_fails_leaves_nothing_half_written(numbers, cache_folder, monkeypatch):
    def fail(number: int, copy: Path) -> None:
        copy.write_text("half")
        raise ValueError("the shard is cut short")

    folder = BlockFolder(fail, 2)
    with pytest.raises(ValueError, match="the shard is cut short"):
        folder.read(0, Path.read_text)
    assert count_copies(folder) == 0

    def fill(number: int, copy: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="data.stream keeps some blocks in .*No space left on device.; name another"):
        BlockFolder(fill, 2).read(0, Path.read_text)
    monkeypatch.setenv("SELFDISTILL_CACHE", str(cache_folder / "file"))
    (cache_folder / "file").write_text("")
    with pytest.raises(ValueError, match="data.stream keeps some blocks in .*file/blocks, which fails"):
        BlockFolder(numbers, 2)


def test_blocks_are_fetched_ahead_but_not_too_far(numbers):
    folder = BlockFolder(numbers, 2)
    blocks = Blocks(torch.arange(10).repeat_interleave(5), folder)
    ahead = ReadAhead(blocks, torch.arange(50))
    waiting = threading.Event()
    for position, wanted in ((0, 3), (5, 4), (12, 5)):
        ahead.reach(position)
        while len(numbers.fetched()) < wanted:
            waiting.wait(0.001)
    assert numbers.fetched() == [0, 1, 2, 3, 4]
    ahead.close()
    assert numbers.fetched() == [0, 1, 2, 3, 4] and count_copies(folder) <= 4
    ReadAhead(None, torch.arange(50)).close()
