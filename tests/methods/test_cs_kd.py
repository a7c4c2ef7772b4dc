"""CS-KD: its positives teach without being learned from."""

import torch

from helpers.methods import method_and_batch


def test_positives_teach_and_do_not_learn():
    method, batch = method_and_batch("cs_kd")
    leaves = [images.requires_grad_() for images in (batch.images, batch.positives)]
    of_images, of_positives = torch.autograd.grad(method(batch).losses["kd"], leaves, allow_unused=True)
    assert of_images.count_nonzero() and of_positives is None
