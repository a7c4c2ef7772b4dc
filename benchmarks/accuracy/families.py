"""What the study "does self-distillation pay?" trains: families of tasks, arms, lengths and seeds. See PROTOCOL.md."""

from typing import NamedTuple

LATER = 10  # the first seed that confirms


class Family(NamedTuple):
    """Tasks of one kind."""

    title: str
    about: str  # what is trained on what
    words: str  # of `selfdistill train`
    lengths: list[int]  # epochs of the plain network
    budgets: list[int]  # epochs of every other arm, as far as `arms` says nothing else
    data: str | None = None  # the option that names its folder


FAMILIES = {
    "part": Family(
        "2,000 photographs from scratch",
        "The first 2,000 training images of CIFAR-10, `cifar:resnet8` from random weights, batches of 64, float32; "
        "scored on the 10,000 test images.",
        "student=cifar:resnet8 data.limit=2000 batch_size=64 precision=fp32",
        [20, 27, 40, 60, 90, 120, 180, 270, 400],
        [20, 60, 180],
        "cifar10",
    ),
    "whole": Family(
        "50,000 photographs from scratch",
        "CIFAR-10, `cifar:wrn-16-2` from random weights, batches of 128, bfloat16; scored on the 10,000 test images.",
        "student=cifar:wrn-16-2 batch_size=128 precision=bf16",
        [10, 15, 20, 30, 45],
        [10, 20],
        "cifar10",
    ),
    "street": Family(
        "Street scenes, masks, from scratch",
        "367 photographs of CamVid at 240x180 in crops of 208x160, `smp:Unet/mobilenetv3_large_100` from random "
        "weights, batches of 8, float32; scored on 101 others at their own 480x360.",
        "task=segmentation student=smp:Unet/mobilenetv3_large_100 data.void=[11] data.short_side=180 "
        "data.image_size=[160,208] batch_size=8 optim.lr=0.05 optim.warmup=0.1 precision=fp32",
        [10, 14, 20, 30, 45],
        [10, 20],
        "camvid",
    ),
    "scenes": Family(
        "Scenes of digits, masks, from scratch",
        "The built-in recipe `quick/scenes`: 400 scenes, a small U-Net from random weights.",
        "quick/scenes",
        [12, 17, 24, 36, 54],
        [12, 24],
    ),
}

# Tried on `part` at its shortest lengths, with three seeds. Each changes one thing, but for those named together.
LEVERS = [
    "frskd",
    *("frskd+stop_gradient=true", "frskd+beta=0", "frskd+alpha=0", "frskd+ramp=0", "deep_supervision"),
    *("frskd+start=0.5", "frskd+start=0.67", "frskd+start=0.8", "frskd+start=0.67+stop_gradient=true"),
    *("frskd+share=0.5", "frskd+share=0.25"),
    *("frskd+width=1", "frskd+depth=1", "frskd+levels=2", "frskd+width=1+depth=1+levels=2"),
    *("frskd+alpha=1", "frskd+alpha=4", "frskd+temperature=2", "frskd+beta=200"),
    *("frskd+optim.method_lr=0.03", "frskd+optim.method_lr=0.3"),
]
FAMILY = [
    *("label_smoothing", "baseline+mix=mixup", "baseline+mix=cutmix", "baseline+optim.ema=0.99"),
    *("sad", "tfd", "dsr", "ps_kd", "drg", "byot", "tf_fd", "tf_kd_reg", "zipf_ls", "uskd", "frskd+optim.ema=0.99"),
]
