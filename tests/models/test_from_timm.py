"""timm's networks: untouched, for other sizes, classes and channels."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.models import build_student


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("resnet10t", {"drop_rate": 0.5}),
        ("test_vit", {"img_size": (32, 48)}),
        ("levit_128s", {"img_size": (32, 48)}),
        ("test_byobnet.r160_in1k", {}),
    ],
)
def test_a_timm_student_is_an_untouched_timm_network(network, options):
    torch.manual_seed(0)
    twin = timm.create_model(network, num_classes=5, in_chans=1, **options)
    torch.manual_seed(0)
    free = {name: value for name, value in options.items() if name != "img_size"}
    net = build_student(f"timm:{network}", num_classes=5, image_shape=(1, 32, 48), **free)
    assert type(net) is type(twin) and net.training
    assert list(net.state_dict()) == list(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))
    images = torch.randn(2, 1, 32, 48)
    assert torch.equal(net.eval()(images), twin.eval()(images))
    assert getattr(net, "drop_rate", 0) == free.get("drop_rate", 0)


@pytest.mark.slow
def test_values_that_a_network_caches_in_eval_mode_do_not_outlive_the_trial_run():
    def build():
        return build_student("timm:levit_128s", num_classes=5, image_shape=(3, 32, 32))

    torch.manual_seed(0)
    trained, images = build(), torch.randn(2, 3, 32, 32)
    for name, parameter in trained.named_parameters():
        if "attention_bias" in name:
            nn.init.normal_(parameter)
    fresh = build()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(images), trained.eval()(images))


@pytest.mark.slow
def test_timm_networks_that_resize_images_themselves_keep_their_own_size():
    net = build_student("timm:crossvit_tiny_240", num_classes=5, image_shape=(3, 64, 64))
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_timms_pretrained_weights_fit_other_classes_and_channels(tmp_path):
    source = timm.create_model("resnet10t")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    local = {"file": str(tmp_path / "weights.safetensors")}
    net = build_student(
        "timm:resnet10t", num_classes=5, image_shape=(1, 32, 32), pretrained=True, pretrained_cfg_overlay=local
    )
    assert torch.equal(net.layer2[0].conv1.weight, source.layer2[0].conv1.weight)
    assert torch.allclose(net.conv1[0].weight, source.conv1[0].weight.sum(dim=1, keepdim=True))
    assert net.fc.out_features == 5
