"""Frozen features of any network, and what is read from them."""

import numpy as np
import pytest
import timm
import torch
import torchvision

from helpers.networks import SmallResNet, SmallSegmenter
from helpers.plain_students import classifier
from selfdistill.features.frozen import STRENGTHS, FrozenFeatures, LinearProbe, choose_decay, predict_by_neighbors


def from_timm(name, **options):
    network = timm.create_model(name, num_classes=7, **options)
    return network, lambda images: network.forward_head(network.forward_features(images), pre_logits=True)


def from_torchvision():
    network = torchvision.models.mobilenet_v3_small(num_classes=7)
    return network, lambda images: network.classifier[:-1](network.avgpool(network.features(images)).flatten(1))


def own():
    network = SmallResNet()
    stages = [network.stem, network.stage1, network.stage2, network.stage3]
    return network, lambda images: torch.nn.Sequential(*stages)(images).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "make",
    [own, from_torchvision, lambda: from_timm("test_resnet"), lambda: from_timm("test_vit", img_size=64)],
    ids=["own", "torchvision", "timm", "vit"],
)
def test_features_are_what_the_classifier_is_given(make):
    torch.manual_seed(0)
    network, expected = make()
    network.train()
    images = torch.randn(2, 3, 64, 64)
    features = FrozenFeatures(network, (3, 64, 64))(images)
    assert network.training
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(features, expected(images).flatten(1))


@pytest.mark.parametrize("network", [SmallSegmenter(), classifier(5, (3, 16, 16))], ids=["pixels", "mean of scores"])
def test_a_network_without_a_last_classifier_gives_its_deepest_map(network):
    images, frozen = torch.randn(3, 3, 16, 16), FrozenFeatures(network, (3, 16, 16))
    features = frozen(images)
    assert features.shape == (3, 16 if isinstance(network, SmallSegmenter) else 10)
    assert "the mean of" in frozen.name and features.dtype == torch.float32


def test_neighbors_vote_as_in_a_slow_loop():
    generator = np.random.default_rng(0)
    features, queries, labels = generator.normal(size=(30, 6)), generator.normal(size=(12, 6)), np.arange(30) % 4
    expected = []
    for query in queries:
        similarity = [query @ row / np.linalg.norm(query) / np.linalg.norm(row) for row in features]
        votes = [0.0] * 4
        for i in sorted(range(30), key=lambda i: -similarity[i])[:5]:
            votes[labels[i]] += np.exp(similarity[i] / 0.07)
        expected.append(int(np.argmax(votes)))
    arguments = torch.tensor(features), torch.tensor(labels), torch.tensor(queries)
    assert (
        predict_by_neighbors(
            *(a.float() if a.is_floating_point() else a for a in arguments), num_classes=4, neighbors=5
        ).tolist()
        == expected
    )
    one = predict_by_neighbors(torch.ones(1, 2), torch.tensor([3]), torch.randn(2, 2), num_classes=4)
    assert one.tolist() == [3, 3]


def test_a_probe_is_at_the_minimum_of_its_objective():
    torch.manual_seed(0)
    features, labels, decay = 5 + 3 * torch.randn(60, 4), torch.arange(60) % 3, 0.1
    probe = LinearProbe(features, labels, decay)
    scaled = ((features - features.mean(0)) / features.std(0)).double()
    weight = torch.tensor(probe.model.coef_, requires_grad=True)
    bias = torch.tensor(probe.model.intercept_, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(scaled @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
    assert all(gradient.abs().max() < 1e-4 for gradient in torch.autograd.grad(loss, [weight, bias]))
    assert torch.equal(probe.predict(features), (scaled @ weight.T + bias).argmax(1))


def test_the_decay_is_the_strongest_of_those_that_are_right_most_often():
    features, labels = torch.tensor([[-1.0], [1.0]]).repeat(10, 1), torch.tensor([0, 1]).repeat(10)
    assert choose_decay(features, labels, features, labels) == STRENGTHS[-1]
