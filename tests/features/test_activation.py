"""Class activation maps."""

import torch
from torch import nn

from helpers.networks import SmallResNet, SmallSegmenter
from selfdistill.features.activation import choose_class, class_activation

STAGES = ["stage1", "stage2", "stage3"]


def test_behind_pooling_and_a_linear_layer_it_is_the_classifiers_weighted_map():
    torch.manual_seed(0)
    student, images = SmallResNet().eval(), torch.randn(3, 3, 16, 16)
    logits, classes, activation = class_activation(student, images, (3, 16, 16), STAGES)
    with torch.no_grad():
        feature = student.stage3(student.stage2(student.stage1(student.stem(images))))
        assert torch.equal(logits, student(images))
    for row in range(3):
        k = int(logits[row].argmax())
        expected = sum(student.fc.weight[k, c] * feature[row, c] for c in range(16)).clamp(min=0)
        assert int(classes[row]) == k
        torch.testing.assert_close(activation[row] * 16, expected.detach())  # its gradient is weight / (4 * 4)


def test_it_explains_the_class_of_most_pixels_and_leaves_modes_and_gradients_alone():
    torch.manual_seed(0)
    student, images = SmallSegmenter().train(), torch.randn(2, 3, 16, 12)
    student.stage1.eval()
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        logits, classes, activation = class_activation(student, images, (3, 16, 12), STAGES)
    assert activation.shape == (2, 4, 3) and not activation.requires_grad
    assert classes.tolist() == [row.flatten().mode().values.item() for row in logits.argmax(dim=1)]
    assert student.training and not student.stage1.training and images.grad is None
    assert not any(module._forward_hooks for module in student.modules())


def test_the_scores_of_a_class_are_summed_over_its_own_pixels():
    logits = torch.tensor([[[[3.0, 5.0, 0.0]], [[1.0, 2.0, 9.0]]]])
    classes, score = choose_class(logits)
    assert classes.tolist() == [0] and score == 8


class LastTokenCounts(nn.Module):
    """As a ViT with a class token: of the last map the score reads one position that is no part of the image."""

    def __init__(self):
        super().__init__()
        self.embed, self.block, self.fc = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 4), nn.Linear(4, 5)
        self.last = nn.Linear(4, 4)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        mixed = self.block(torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))
        mixed = torch.cat([mixed.mean(dim=1, keepdim=True), mixed[:, 1:]], dim=1)
        return self.fc(self.last(mixed)[:, 0])


def test_a_map_without_a_gradient_gives_way_to_the_one_before():
    student, images = LastTokenCounts(), torch.randn(2, 3, 16, 16)
    maps = [class_activation(student, images, (3, 16, 16), names)[2] for names in (["block", "last"], ["block"])]
    assert maps[0].shape == (2, 4, 4) and torch.equal(*maps)
    assert class_activation(student, images, (3, 16, 16), ["last"])[2] is None
