"""Which images make up which batch."""

import pytest
import torch

from selfdistill.data import (
    BatchSampler,
    find_sampler,
)
from selfdistill.data.cache.blocks import Blocks
from selfdistill.data.sampler import balance, gather, shuffle


def rows_of(steps) -> list[int]:
    return [draw.index for step in steps for part in step for draw in part]


def sizes(steps) -> list[list[int]]:
    return [[len(part) for part in step] for step in steps]


def test_an_epoch_visits_every_row_once_in_an_order_of_its_own():
    plan = BatchSampler(24, 8, seed=0)
    assert sizes(plan.epoch(0)) == [[8], [8], [8]] and plan.steps_per_epoch == 3
    assert sorted(rows_of(plan.epoch(0))) == list(range(24))
    assert list(plan.epoch(0)) == list(BatchSampler(24, 8, seed=0).epoch(0))
    assert rows_of(plan.epoch(0)) != rows_of(plan.epoch(1)) != rows_of(BatchSampler(24, 8, seed=1).epoch(1))
    assert {draw.epoch for step in plan.epoch(3) for part in step for draw in part} == {3}


@pytest.mark.parametrize("drop_last", ["auto", True])
def test_the_last_incomplete_batch_is_left_out_and_is_of_other_rows_each_time(drop_last):
    plan = BatchSampler(31, 8, seed=0, drop_last=drop_last)
    assert sizes(plan.epoch(0)) == [[8], [8], [8]] and plan.steps_per_epoch == 3 and plan.num_dropped == 7
    lost = [set(range(31)) - set(rows_of(plan.epoch(number))) for number in range(8)]
    assert all(len(rows) == 7 for rows in lost) and not set.intersection(*lost)


def test_all_processes_leave_out_the_same_rows():
    whole = BatchSampler(31, 8, seed=0, accumulate=2)
    parts = [BatchSampler(31, 8, seed=0, accumulate=2, rank=rank, world=2) for rank in range(2)]
    assert all(part.num_dropped == 7 and sizes(part.epoch(1)) == [[2, 2]] * 3 for part in parts)
    assert sorted(rows_of(parts[0].epoch(1)) + rows_of(parts[1].epoch(1))) == sorted(rows_of(whole.epoch(1)))


def test_the_last_incomplete_batch_can_be_kept():
    plan = BatchSampler(25, 8, seed=0, drop_last=False)
    assert sizes(plan.epoch(0)) == [[8], [8], [8]] and plan.steps_per_epoch == 3  # the 25th row alone is no batch
    plan = BatchSampler(26, 8, seed=0, drop_last=False)
    assert sizes(plan.epoch(0)) == [[8], [8], [8], [2]] and plan.steps_per_epoch == 4 and plan.num_dropped == 0
    assert sorted(rows_of(plan.epoch(0))) == list(range(26))
    assert list(plan.epoch(0)[:3]) == list(BatchSampler(26, 8, seed=0).epoch(0))


def test_processes_share_the_batches_of_one():
    whole = BatchSampler(21, 8, seed=3, drop_last=False).epoch(2)
    parts = [BatchSampler(21, 8, seed=3, drop_last=False, rank=rank, world=2).epoch(2) for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    for step, first, second in zip(whole[:2], *(part[:2] for part in parts), strict=True):
        assert len(rows_of([first])) == len(rows_of([second])) == 4
        assert sorted(rows_of([step])) == sorted(rows_of([first, second]))
    assert (sizes(parts[0])[2], sizes(parts[1])[2]) == ([3], [2])
    assert sorted(rows_of([parts[0][2], parts[1][2]])) == sorted(rows_of([whole[2]]))


def test_every_process_cuts_its_share_into_as_many_micro_batches():
    plans = [BatchSampler(23, 8, seed=3, drop_last=False, accumulate=2, rank=rank, world=2) for rank in range(2)]
    assert [sizes(plan.epoch(0))[2] for plan in plans] == plans[0].deal(7) == [[4], [3]]
    assert plans[0].batch_sizes == [8, 8, 7] and plans[0].num_dropped == 0
    assert BatchSampler(19, 8, seed=3, drop_last=False, world=2).num_dropped == 3  # too few for two processes


def test_micro_batches_have_two_rows_at_least():
    assert sizes(BatchSampler(16, 8, seed=0, accumulate=3).epoch(0)) == [[2, 3, 3]] * 2
    assert sizes(BatchSampler(21, 8, seed=0, drop_last=False, accumulate=4).epoch(0)) == [[2] * 4, [2] * 4, [2, 3]]
    assert sizes(BatchSampler(8, 8, seed=0, accumulate=100, world=2).epoch(0)) == [[2, 2]]


def test_a_set_smaller_than_the_batch_is_one_batch():
    plan = BatchSampler(5, 128, seed=0)
    assert sizes(plan.epoch(0)) == [[5]] and plan.num_dropped == 0
    with pytest.raises(ValueError, match="data.drop_last=true leaves no batch of 128 of 5 training images; use auto"):
        BatchSampler(5, 128, seed=0, drop_last=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((1, 8, 1), "1 training image cannot be dealt to 1 process;"),
        ((3, 8, 2), "3 training images cannot be dealt to 2 processes"),
        ((9, 1, 1), "batch_size=1 cannot be dealt"),
        ((9, 9, 2), "batch_size=9 cannot be dealt to 2 processes; choose a multiple of 2 from 4 on"),
        ((9, 2, 2), "batch_size=2 cannot be dealt"),
    ],
)
def test_plans_that_cannot_work_say_why(settings, message):
    rows, batch_size, world = settings
    with pytest.raises(ValueError, match=message):
        BatchSampler(rows, batch_size, seed=0, world=world)


LABELS = torch.tensor([0] * 50 + [2] * 3 + [3] * 10)  # class 1 has no image


def test_a_balanced_epoch_has_all_classes_equally_often_and_every_image_of_a_class_before_any_again():
    plan = BatchSampler(63, 9, seed=0, sampler=find_sampler("balanced"), labels=LABELS)
    for number in range(3):
        rows = torch.tensor(rows_of(plan.epoch(number)))
        assert len(rows) == 63 and LABELS[rows].bincount().tolist() == [21, 0, 21, 21]
        times = rows.bincount(minlength=63)
        assert set(times[:50].tolist()) == {0, 1} and set(times[50:53].tolist()) == {7}
        assert set(times[53:].tolist()) == {2, 3}
    assert rows_of(plan.epoch(0)) != rows_of(plan.epoch(1))


def test_what_does_not_divide_goes_to_other_classes_each_time():
    labels = torch.tensor([0] * 9 + [1])
    counts = [labels[balance(labels, torch.Generator().manual_seed(seed))].sum().item() for seed in range(20)]
    assert set(counts) == {5}
    labels = torch.tensor([0] * 10 + [1])
    counts = [labels[balance(labels, torch.Generator().manual_seed(seed))].sum().item() for seed in range(20)]
    assert set(counts) == {5, 6}


def test_a_balanced_epoch_is_dealt_to_processes_with_its_repeats():
    settings = {"seed": 0, "sampler": find_sampler("balanced"), "labels": LABELS}
    whole = BatchSampler(63, 14, **settings).epoch(2)
    parts = [BatchSampler(63, 14, rank=rank, world=2, **settings).epoch(2) for rank in range(2)]
    for step, ours, theirs in zip(whole, *parts, strict=True):
        assert sorted(step[0]) == sorted(ours[0] + theirs[0])
    draws = [draw for step in whole for draw in step[0]]
    assert len(set(draws)) == len(draws) and max(draw.repeat for draw in draws) > 1


def newest_first(labels, generator):
    return torch.arange(len(labels)).flip(0)


def too_few(labels, generator):
    return torch.arange(2)


def test_a_sampler_of_ones_own_is_taken_and_checked():
    plan = BatchSampler(63, 9, seed=0, sampler=find_sampler(f"{__name__}:newest_first"), labels=LABELS)
    assert rows_of(plan.epoch(0)) == list(range(62, -1, -1))
    plan = BatchSampler(63, 9, seed=0, sampler=find_sampler(f"{__name__}:too_few"), labels=LABELS)
    with pytest.raises(ValueError, match="too_few must return an int64 tensor of 63 indices below 63"):
        plan.epoch(0)
    with pytest.raises(ValueError, match="data.sampler=balancd is no sampler; did you mean 'balanced'"):
        find_sampler("balancd")


def gathered(blocks: torch.Tensor, at_once: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return gather(torch.randperm(len(blocks), generator=generator), blocks, at_once, generator)


@pytest.mark.parametrize("counts", [[30] * 12, [1, 50, 7, 3, 20, 20, 5, 90, 2, 4, 4]])
def test_images_in_blocks_come_from_few_of_them_at_a_time(counts):
    blocks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = gathered(blocks, 4)
    assert sorted(order.tolist()) == list(range(sum(counts)))
    assert order.tolist() != gathered(blocks, 4, seed=1).tolist() == gathered(blocks, 4, seed=1).tolist()
    where = [(blocks[order] == block).nonzero().flatten() for block in range(len(counts))]
    spans = [(places.min(), places.max()) for places in where]
    assert max(sum(first <= place <= last for first, last in spans) for place in range(len(order))) <= 4
    inside = [order[places].tolist() for places in where if len(places) > 5]
    assert all(rows != sorted(rows) for rows in inside)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_blocks_and_take_the_batches_of_one(world):
    blocks = torch.arange(16).repeat_interleave(24)

    class Folder:
        at_once = 4

    def plan(rank: int, world: int) -> BatchSampler:
        return BatchSampler(384, 8, seed=0, rank=rank, world=world, blocks=Blocks(blocks, Folder()))

    whole, parts = plan(0, 1).epoch(3), [plan(rank, world).epoch(3) for rank in range(world)]
    for step, *dealt in zip(whole, *parts, strict=True):
        assert sorted(rows_of([step])) == sorted(rows_of(dealt))
    used = [set(blocks[rows_of(part)].tolist()) for part in parts]
    assert sum(map(len, used)) == len(set.union(*used)) == 16


def test_a_sampler_draws_before_blocks_are_gathered():
    labels, blocks = torch.tensor([0, 1, 1, 1] * 12), torch.arange(6).repeat_interleave(8)

    class Folder:
        at_once = 2

    plan = BatchSampler(48, 8, seed=0, sampler=balance, labels=labels, blocks=Blocks(blocks, Folder()))
    assert labels[rows_of(plan.epoch(0))].bincount().tolist() == [24, 24]


def test_an_order_does_not_depend_on_torchs_default_device():
    """A generator of the CPU cannot draw on another device, which a user may have made the default."""
    labels, generators = torch.zeros(24), [torch.Generator().manual_seed(0) for _ in range(2)]
    order = shuffle(labels, generators[0])
    with torch.device("meta"):
        same = shuffle(labels, generators[1])
    assert torch.equal(same, order)
