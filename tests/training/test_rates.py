"""Learning rates that fall from the last layer to the first."""

import pytest
import torch
from torch import nn

from helpers.batches import small_task
from helpers.methods import small_method
from selfdistill.config.recipe import OptimPart
from selfdistill.methods import find_method
from selfdistill.models import build_student
from selfdistill.training.optim import create_optimizer, create_schedule
from selfdistill.training.rates import list_rates, number_layers


def layers(name, size=32, **options):
    student = build_student(name, num_classes=4, image_shape=(3, size, size), **options)
    numbers = number_layers(student)
    assert numbers.keys() == dict(student.named_parameters()).keys()
    return numbers


def test_a_layer_is_a_block_with_its_norms_and_the_head_is_the_last():
    numbers = layers("cifar:resnet8")
    assert numbers["conv1.weight"] == numbers["bn1.bias"] == 0 and max(numbers.values()) == numbers["fc.weight"] == 4
    assert numbers["layer2.0.conv1.weight"] == numbers["layer2.0.bn2.bias"] == 2
    numbers = layers("timm:resnet18")
    assert numbers["conv1.weight"] == 0 and numbers["fc.bias"] == max(numbers.values()) == 9


def test_a_decoder_is_one_new_layer_behind_its_encoder():
    numbers = layers("smp:Unet/resnet18")
    decoder = {number for name, number in numbers.items() if not name.startswith("encoder.")}
    assert decoder == {max(numbers.values())} and numbers["encoder.conv1.weight"] == 0


def test_each_layer_learns_at_a_share_of_the_next_ones_rate_and_a_self_teacher_at_its_own():
    method = small_method(find_method("frskd"), small_task("classification"))
    optim = OptimPart(lr=1.0, layer_decay=0.5, method_lr=3.0, weight_decay=0.1, method_decay=0.2)
    rates = [*list_rates(method, optim)]
    assert sum(rate.count for rate in rates) == sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert rates[-1].lr == 3 and rates[-1].first.startswith("self_teacher.")
    assert rates[-1].weight_decay == 0.2 and {rate.weight_decay for rate in rates[:-1]} == {0.1}
    groups = create_optimizer(method, OptimPart(lr=1.0, weight_decay=0.1, method_decay=0.0)).param_groups
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [(0.1, 1.0), (0.0, 1.0)]
    assert [rate.lr for rate in rates[:-1]] == [0.5**place for place in range(len(rates) - 1)] and len(rates) > 3
    optimizer = create_optimizer(method, optim)
    schedule = create_schedule(optimizer, optim, 100)
    schedule.step_update(50)
    shares = [group["lr"] / rate.lr for group, rate in zip(optimizer.param_groups, rates, strict=True)]
    assert shares == pytest.approx([shares[0]] * len(shares)) and 0.4 < shares[0] < 0.6


def test_without_a_decay_nothing_is_grouped():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for optim in (OptimPart(lr=1.0), OptimPart(lr=1.0, layer_decay=1.0)):
        (group,) = create_optimizer(net, optim).param_groups
        assert len(group["params"]) == 4 and "lr_scale" not in group
    torch.testing.assert_close(
        [group["lr_scale"] for group in create_optimizer(net, OptimPart(lr=1, layer_decay=0.5)).param_groups],
        [1.0, 0.5],
    )
