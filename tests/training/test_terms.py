"""Means of the loss terms between two log lines, and the sentences about unhealthy ones."""

import math

import pytest
import torch

from selfdistill import Step
from selfdistill.training.meters import Meter, right, warnings

LOGITS = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]])


def step(rows=4, **losses):
    return Step({name: torch.tensor(value) for name, value in losses.items()}, LOGITS[:rows])


def test_means_are_over_rows_not_over_steps():
    meter = Meter()
    meter.add(step(4, task=1.0, kd=0.0), torch.tensor([0, 1, 2, 0]))
    meter.add(step(2, task=4.0, kd=3.0), torch.tensor([1, 0]))
    losses, accuracy = meter.flush()
    assert losses == {"task": pytest.approx(2.0), "kd": pytest.approx(1.0)}
    assert accuracy == pytest.approx(4 / 6)


def test_flush_starts_over():
    meter = Meter()
    meter.add(step(task=1.0), torch.tensor([0, 1, 2, 0]))
    meter.flush()
    meter.add(step(other=7.0), torch.tensor([1, 1, 1, 1]))
    assert meter.flush() == ({"other": 7.0}, 0.25)


def test_flush_adds_up_over_processes():
    meter = Meter()
    meter.add(step(4, task=1.0), torch.tensor([0, 1, 2, 0]))
    elsewhere = torch.tensor([12.0, 0.0, 2.0, 2.0])  # of another process: term, right answers, labels, rows
    losses, accuracy = meter.flush(lambda sums: sums + elsewhere)
    assert losses == {"task": pytest.approx(16 / 6)} and accuracy == pytest.approx(4 / 6)


def test_state_goes_on_bit_for_bit():
    first, second = Meter(), Meter()
    first.add(step(4, task=0.1), torch.tensor([0, 1, 1, 1]))
    second.load(first.state(), torch.device("cpu"))
    for meter in (first, second):
        meter.add(step(2, task=0.7), torch.tensor([0, 0]))
    assert first.flush() == second.flush()


def test_meter_holds_no_graph():
    meter = Meter()
    loss = torch.tensor(2.0, requires_grad=True)
    meter.add(Step({"task": loss * 3}, LOGITS), torch.tensor([0, 1, 2, 0]))
    assert not any(value.requires_grad for value in meter.state().values())


def test_many_small_values_are_summed_without_loss():
    meter = Meter()
    for value in [1e6] + [0.1] * 1000:
        meter.add(step(1, task=value), torch.tensor([0]))
    assert meter.flush()[0]["task"] == pytest.approx((1e6 + 0.1 * 1000) / 1001, rel=1e-7)


def test_right_of_mixed_labels_is_the_share_of_the_class_that_was_named():
    soft = torch.tensor([[0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert right(LOGITS, torch.tensor([0, 1, 0, 0])).item() == 3
    assert right(LOGITS, torch.tensor([0, 1, 0, 0]), soft).item() == pytest.approx(0.3 + 1.0 + 0.0 + 1.0)


def test_accuracy_of_masks_is_the_share_of_the_labelled_pixels():
    """The terms are means over images all the same, as they are what is minimised."""
    maps = LOGITS.T[None, :, None]  # one image of a single row of pixels, named 0, 1, 2, 0
    meter = Meter()
    meter.add(Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 1, -100]]]))
    meter.add(Step({"task": torch.tensor(4.0)}, maps.repeat(2, 1, 1, 1)), torch.tensor([[[1, 1, -100, -100]]] * 2))
    assert meter.flush() == ({"task": pytest.approx(3.0)}, pytest.approx((2 + 2 * 1) / (3 + 2 * 2)))
    meter.add(Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 255, 255]]]), 255)
    assert meter.flush()[1] == 1
    soft = torch.full((1, 3, 1, 4), 1 / 3)
    meter.add(Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 1, -100]]]), soft_target=soft)
    assert meter.flush()[1] == pytest.approx(1 / 3)


def test_where_no_pixel_is_labelled_accuracy_is_no_number():
    meter = Meter()
    meter.add(Step({"task": torch.tensor(0.0)}, LOGITS.T[None, :, None]), torch.full((1, 1, 4), -100))
    losses, accuracy = meter.flush()
    assert losses == {"task": 0.0} and math.isnan(accuracy)


def said(losses, **options):
    return dict(warnings(losses, **options))


def test_healthy_terms_are_not_spoken_of():
    assert said({"task": 2.0, "kd": 0.5, "feature": 0.1}) == {}
    assert said({"task": 2.0}) == {}


def test_a_zero_term_is_named_unless_its_weight_still_sleeps():
    assert "'kd' is exactly zero" in said({"task": 2.0, "kd": 0.0})["kd zero"]
    assert said({"task": 2.0, "kd": 0.0}, asleep=True) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_is_named_asleep_or_not(value):
    for asleep in (False, True):
        spoken = said({"task": 2.0, "kd": value}, asleep=asleep)
        assert list(spoken) == ["kd finite"]
        assert "'kd' is" in spoken["kd finite"] and "optim.lr" in spoken["kd finite"]


def test_a_term_that_dwarfs_all_others_together_is_named():
    assert said({"task": 2.0, "kd": 1.0, "feature": 299.0}) == {}
    spoken = said({"task": 2.0, "kd": 1.0, "feature": 301.0})
    assert list(spoken) == ["feature dwarfs"]
    assert "'feature' (301)" in spoken["feature dwarfs"] and "(3)" in spoken["feature dwarfs"]


def test_each_term_has_a_key_of_its_own():
    spoken = list(warnings({"task": 2.0, "kd": 0.0, "feature": math.nan, "votes": 1e9}))
    assert [key for key, _ in spoken] == ["kd zero", "feature finite", "votes dwarfs"]
