"""Means of the loss terms between two log lines, and the sentences about unhealthy ones."""

import math

import pytest
import torch

from selfdistill import Batch, Step, Task
from selfdistill.training.meters import Meter, check_losses

LOGITS = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]])


TASK = Task("classification", 3, (3, 4, 4))


def add(meter, step, target, ignore_index=-100, soft_target=None):
    """Adds labels and what a method said of them; the meter looks at no image."""
    task = Task("segmentation" if target.ndim > 1 else "classification", 3, (3, 4, 4), ignore_index=ignore_index)
    meter.add(step, Batch(torch.empty(0), target, soft_target), task)


def step(rows=4, **losses):
    return Step({name: torch.tensor(value) for name, value in losses.items()}, LOGITS[:rows])


def test_means_are_over_rows_not_over_steps():
    meter = Meter()
    add(meter, step(4, task=1.0, kd=0.0), torch.tensor([0, 1, 2, 0]))
    add(meter, step(2, task=4.0, kd=3.0), torch.tensor([1, 0]))
    means = meter.flush()
    assert means.losses == {"task": pytest.approx(2.0), "kd": pytest.approx(1.0)}
    assert means.accuracy == pytest.approx(4 / 6) and means.self_teacher_accuracy is None


def test_distances_of_levels_are_averaged_as_losses_are():
    meter = Meter()
    add(meter, step(4, task=1.0)._replace(level_distances={"a": torch.tensor(1.0)}), torch.tensor([0, 1, 2, 0]))
    add(meter, step(2, task=4.0)._replace(level_distances={"a": torch.tensor(4.0)}), torch.tensor([1, 0]))
    means = meter.flush()
    assert means.level_distances == {"a": pytest.approx(2.0)} and means.losses == {"task": pytest.approx(2.0)}
    add(meter, step(task=1.0), torch.tensor([0, 1, 2, 0]))
    assert meter.flush().level_distances is None


def taught(right, rows=4):
    """A step whose own teacher is right about so many of the labels 0, 1, 2, 0."""
    teacher = LOGITS.roll(1, dims=1)
    teacher[:right] = LOGITS[:right]
    return step(rows, task=1.0)._replace(teacher_logits=teacher[:rows])


def test_the_accuracy_of_an_own_teacher_is_that_of_a_student_with_its_answers():
    meter, target = Meter(), torch.tensor([0, 1, 2, 0])
    add(meter, taught(3), target)
    add(meter, taught(1, rows=2), target[:2])
    assert meter.flush().self_teacher_accuracy == pytest.approx(4 / 6)
    soft = torch.tensor([[0.3, 0.7, 0.0]] * 4)
    add(meter, taught(4), target, soft_target=soft)
    assert meter.flush().self_teacher_accuracy == pytest.approx((0.3 + 0.7 + 0.0 + 0.3) / 4)
    add(meter, step(task=1.0), target)
    add(meter, taught(2), target)  # only where there is one
    assert meter.flush().self_teacher_accuracy == pytest.approx(2 / 4)


def test_an_own_teacher_that_is_no_better_is_told_of_the_whole_epoch():
    meter, target = Meter(), torch.tensor([0, 1, 2, 0])
    assert meter.describe_teacher() is None
    add(meter, taught(2), target)
    meter.flush()
    meter.start_epoch()
    add(meter, taught(4), target)
    meter.flush()
    again = Meter()
    again.load_state_dict(meter.state_dict(), torch.device("cpu"))
    add(again, taught(3), target)
    again.flush()
    assert "no better than the student (87.5% of 8 labels against 100.0%)" in again.describe_teacher()
    add(meter, taught(4), torch.tensor([0, 1, 2, 1]))
    meter.flush()
    assert "(87.5% of 8 labels against 87.5%)" in meter.describe_teacher()  # a tie
    meter.start_epoch()
    add(meter, taught(4)._replace(logits=LOGITS.roll(1, dims=1)), target)
    meter.flush()
    assert meter.describe_teacher() is None


def test_flush_starts_over():
    meter = Meter()
    add(meter, step(task=1.0), torch.tensor([0, 1, 2, 0]))
    meter.flush()
    add(meter, step(other=7.0), torch.tensor([1, 1, 1, 1]))
    assert meter.flush() == ({"other": 7.0}, 0.25, None, None)


def test_flush_adds_up_over_processes():
    meter = Meter()
    add(meter, step(4, task=1.0), torch.tensor([0, 1, 2, 0]))
    elsewhere = torch.tensor([12.0, 0.0, 2.0, 2.0])  # of another process: term, right answers, labels, rows
    means = meter.flush(lambda sums: sums + elsewhere)
    assert means.losses == {"task": pytest.approx(16 / 6)} and means.accuracy == pytest.approx(4 / 6)


def test_state_goes_on_bit_for_bit():
    first, second = Meter(), Meter()
    add(first, step(4, task=0.1), torch.tensor([0, 1, 1, 1]))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    for meter in (first, second):
        add(meter, step(2, task=0.7), torch.tensor([0, 0]))
    assert first.flush() == second.flush()


def test_meter_holds_no_graph():
    meter = Meter()
    loss = torch.tensor(2.0, requires_grad=True)
    add(meter, Step({"task": loss * 3}, LOGITS), torch.tensor([0, 1, 2, 0]))
    assert not any(value.requires_grad for value in meter.sums.values())


@pytest.mark.slow
def test_many_small_values_are_summed_without_loss():
    meter = Meter()
    for value in [1e6] + [0.1] * 1000:
        add(meter, step(1, task=value), torch.tensor([0]))
    assert meter.flush()[0]["task"] == pytest.approx((1e6 + 0.1 * 1000) / 1001, rel=1e-7)


def test_right_of_mixed_labels_is_the_share_of_the_class_that_was_named():
    soft = torch.tensor([[0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert TASK.count_correct(LOGITS, torch.tensor([0, 1, 0, 0]))[0].item() == 3
    correct, labels = TASK.count_correct(LOGITS, torch.tensor([0, 1, 0, 0]), soft)
    assert correct.item() == pytest.approx(0.3 + 1.0 + 0.0 + 1.0) and labels.item() == 4


def test_accuracy_of_masks_is_the_share_of_the_labeled_pixels():
    """The terms are means over images all the same, as they are what is minimised."""
    maps = LOGITS.T[None, :, None]  # one image of a single row of pixels, named 0, 1, 2, 0
    meter = Meter()
    add(meter, Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 1, -100]]]))
    add(meter, Step({"task": torch.tensor(4.0)}, maps.repeat(2, 1, 1, 1)), torch.tensor([[[1, 1, -100, -100]]] * 2))
    assert meter.flush() == ({"task": pytest.approx(3.0)}, pytest.approx((2 + 2 * 1) / (3 + 2 * 2)), None, None)
    add(meter, Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 255, 255]]]), 255)
    assert meter.flush()[1] == 1
    soft = torch.full((1, 3, 1, 4), 1 / 3)
    add(meter, Step({"task": torch.tensor(1.0)}, maps), torch.tensor([[[0, 1, 1, -100]]]), soft_target=soft)
    assert meter.flush()[1] == pytest.approx(1 / 3)


def test_where_no_pixel_is_labeled_accuracy_is_no_number():
    meter = Meter()
    add(meter, Step({"task": torch.tensor(0.0)}, LOGITS.T[None, :, None]), torch.full((1, 1, 4), -100))
    losses, accuracy, *_ = meter.flush()
    assert losses == {"task": 0.0} and math.isnan(accuracy)


def said(losses, **options):
    return dict(check_losses(losses, **options))


def test_healthy_terms_are_not_spoken_of():
    assert said({"task": 2.0, "kd": 0.5, "feature": 0.1}) == {}
    assert said({"task": 2.0}) == {}


def test_a_zero_term_is_named_except_in_the_warmup():
    assert "'kd' is exactly zero" in said({"task": 2.0, "kd": 0.0})["kd zero"]
    assert said({"task": 2.0, "kd": 0.0}, in_warmup=True) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_is_named_in_warmup_or_not(value):
    for in_warmup in (False, True):
        spoken = said({"task": 2.0, "kd": value}, in_warmup=in_warmup)
        assert list(spoken) == ["kd finite"]
        assert "'kd' is" in spoken["kd finite"] and "optim.lr" in spoken["kd finite"]


def test_a_term_that_dwarfs_all_others_together_is_named():
    assert said({"task": 2.0, "kd": 1.0, "feature": 299.0}) == {}
    spoken = said({"task": 2.0, "kd": 1.0, "feature": 301.0})
    assert list(spoken) == ["feature dwarfs"]
    assert "'feature' (301)" in spoken["feature dwarfs"] and "(3)" in spoken["feature dwarfs"]


def test_each_term_has_a_key_of_its_own():
    spoken = list(check_losses({"task": 2.0, "kd": 0.0, "feature": math.nan, "votes": 1e9}))
    assert [key for key, _ in spoken] == ["kd zero", "feature finite", "votes dwarfs"]
