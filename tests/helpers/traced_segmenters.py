"""Segmenters and their taps as one graph, traced in a process without the tests' type checks."""

import traceback

import torch

from helpers.students import segmenter
from selfdistill.features.extractor import Taps

TRACED = ["smp:Unet/resnet18", "smp:DPT/test_vit", "torchvision:lraspp_mobilenet_v3_large", "efficientdet:d0"]
EXPORTED = TRACED[1:3]  # test_export_onnx exports the other two


def trace_all(_, folder):
    """In a process without the run-time type checks of the tests: the compiler cannot see through them."""
    torch.set_num_threads(1)
    results = {}
    for name in TRACED:
        torch.compiler.reset()
        try:
            results[name] = differences(segmenter(name, (3, 157, 141)).eval(), name in EXPORTED)
        except Exception:
            results[name] = traceback.format_exc(limit=-3)
    torch.save(results, f"{folder}/traced.pt")


@torch.no_grad()
def differences(net, is_exported):
    """The largest ones between the network and its taps as one graph, and the network exported with free sizes.

    The images are larger than 128, so that no map of the paper's pyramid is a single position.
    """
    images, others = torch.randn(2, 3, 157, 141), torch.randn(3, 3, 220, 331)
    taps = Taps(net, (3, 157, 141))
    logits, features = taps(images)
    compiled, maps = torch.compile(taps, fullgraph=True, backend="eager")(images)
    pairs = [(compiled, logits), *zip(maps, features, strict=True)]
    if is_exported:
        free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
        exported = torch.export.export(net, (images,), dynamic_shapes=(free,)).module()
        pairs.append((exported(others), net(others)))
    return [(ours - theirs).abs().max().item() for ours, theirs in pairs]
