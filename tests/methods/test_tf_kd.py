"""Self-training and the virtual teacher, against the slow reference."""

import math

import pytest
import torch

from helpers.methods import method_and_batch
from helpers.networks import CLASSES


def test_published_virtual_teacher_is_nearly_uniform_and_softened_logits_less_so():
    ratios = {}
    for softens in ("probabilities", "logits"):
        method, _ = method_and_batch("tf_kd_reg", softens=softens)
        (row,) = method.virtual_teacher(torch.tensor([2]), torch.float64)
        assert row.sum().item() == pytest.approx(1) and row.argmax() == 2
        ratios[softens] = (row[2] / row[0]).item()
    assert ratios["probabilities"] == pytest.approx(math.exp((0.99 - 0.0025) / 20))
    assert ratios["logits"] == pytest.approx((0.99 / 0.0025) ** (1 / 20))


def test_virtual_teacher_at_temperature_1_of_logits_is_label_smoothing_up_to_its_entropy():
    method, batch = method_and_batch(
        "tf_kd_reg", softens="logits", temperature=1.0, alpha=1.0, multiplier=float(CLASSES)
    )
    smoothing, _ = method_and_batch("label_smoothing", epsilon=0.01, share="others")
    entropy = -0.99 * math.log(0.99) - 0.01 * math.log(0.01 / (CLASSES - 1))
    expected = smoothing(batch).losses["task"] - entropy
    torch.testing.assert_close(method(batch).losses["reg"], expected)


def test_virtual_teacher_may_be_certain():
    for softens in ("probabilities", "logits"):
        method, batch = method_and_batch("tf_kd_reg", softens=softens, correct=1.0)
        loss = method(batch).loss
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.student.parameters())


def test_virtual_teacher_of_a_mixed_label_softens_the_mixture():
    method, _ = method_and_batch("tf_kd_reg")
    soft_target = torch.tensor([[0.3, 0.0, 0.7, 0.0, 0.0]], dtype=torch.float64)
    (row,) = method.virtual_teacher(torch.tensor([2]), torch.float64, soft_target)
    mixture = torch.tensor([0.3 * 0.99 + 0.7 * 0.0025, 0.0025, 0.7 * 0.99 + 0.3 * 0.0025, 0.0025, 0.0025])
    torch.testing.assert_close(row, torch.softmax(mixture.double() / 20, dim=0), rtol=1e-6, atol=0)
