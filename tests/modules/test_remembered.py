"""Tables of what was said of each image: their precision, their rows, and what cannot fit."""

import pytest
import torch
from torch import nn

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from selfdistill.methods import find_method
from selfdistill.modules import remembered
from selfdistill.modules.remembered import compute_dtype, recall, register_table


def table_of(*shape):
    owner = nn.Module()
    register_table(owner, "table", *shape)
    return owner.table


@pytest.mark.parametrize("name", ["ps_kd", "dtskd"])
def test_a_method_names_its_tables_and_ddp_does_not_send_them(name):
    method = small_method(find_method(name), small_task(side=8))
    tables = [each for each, value in method.named_buffers(recurse=False) if len(value) == method.task.num_examples]
    assert list(method.remembered) == tables == method._ddp_params_and_buffers_to_ignore


def test_a_table_that_is_named_and_not_there_is_refused():
    class Forgetful(find_method("ps_kd")):
        remembered = ("past", "future")

    with pytest.raises(ValueError, match="Forgetful.remembered names 'future'; have setup register that buffer"):
        small_method(Forgetful, small_task(side=8))


def test_large_tables_are_in_half_precision(monkeypatch):
    monkeypatch.setattr(remembered, "LARGE", 24)
    assert table_of(5, 4).dtype == torch.float32 and table_of(2, 3, 4).dtype == torch.float16
    assert table_of(2, 3, 4).shape == (2, 3, 4) and not table_of(2, 3, 4).any()


def test_half_precision_moves_a_probability_by_a_2000th_of_itself_or_3e_8(monkeypatch):
    monkeypatch.setattr(remembered, "LARGE", 1)
    table, said = table_of(50, 1000), (8 * torch.randn(50, 1000)).softmax(dim=1)
    table[:] = said
    past = recall(table, torch.arange(50), otherwise=torch.zeros(50, 1000))
    assert past.dtype == compute_dtype(table) == torch.float32 and compute_dtype(table.double()) == torch.float64
    assert ((past - said).abs() <= torch.clamp(said / 2000, min=3e-8)).all()
    assert ((said.bfloat16() - said).abs() > said / 2000).any()


def test_an_image_that_was_not_seen_has_what_stands_in_for_its_past():
    table, otherwise = table_of(4, 2), torch.full((3, 2), 0.5)
    table[2] = torch.tensor([0.9, 0.1])
    past = recall(table, torch.tensor([0, 2, 3]), otherwise)
    torch.testing.assert_close(past, torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]]))


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_an_image_of_which_nothing_is_likely_was_seen_in_half_precision_too(monkeypatch, kind):
    monkeypatch.setattr(remembered, "LARGE", 1)
    task = small_task(kind, side=8)
    method = small_method(find_method("ps_kd"), task)
    batch = small_batch(type(method), task)
    with torch.no_grad():
        method.student.fc.weight.zero_()
        method.student.fc.bias.fill_(-90)
    method(batch)
    assert method.past.dtype == torch.float16 and (method.past[batch.index].float().sum(dim=1) > 0).all()


@pytest.mark.parametrize("shape", [(2**36, 1000), (2**60, 1000)])
def test_a_table_that_cannot_fit_is_refused_in_a_sentence(shape):
    with pytest.raises(ValueError, match=r"Module remembers .* GiB of \d+ images, more than this machine has; take"):
        table_of(*shape)
