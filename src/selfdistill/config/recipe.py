"""A recipe: everything that decides a training run, as plain values. Unknown names are errors.

`data.source`, `student.name`, `optim.lr` and `batch_size` have defaults that depend on the task. They are None until
`tasks.complete_recipe` fills them in.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from .part import Part

Natural = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _check_rising(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] >= values[1]:
        raise ValueError("must be two numbers, the lower one first")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_check_rising)]

BLOCKS_AT_ONCE = 16  # of data that a function of the user's own opens
AUTO = "auto"  # the name of a method that is chosen when the run is built


class DataPart(Part):
    """Which images to train on, which to hold out, and how to resize and augment them."""

    main: ClassVar[str] = "source"
    source: str | None = Field(
        None,
        description="digits | scenes | digit_scenes | a folder | .csv | .tsv | .jsonl | .parquet | .tar | hf:NAME |"
        " torchvision:NAME",
    )
    val: str | None = Field(None, description="validation source or split name; a split called val is found without it")
    val_fraction: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of each class held out; 0.2 where the source has no other split; 0: nothing is held out",
    )
    test_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of each class held out for a test at the end of the run, where the source has no test split",
    )
    split_seed: int = Field(0, description="seed of the held-out choice; independent of the training seed")
    fraction: float | None = Field(
        None, gt=0, le=1, description="train on this share of each class only; a larger share holds those of a smaller"
    )
    limit: Natural | None = Field(None, description="train on only this many images, the first of every class in turn")
    drop_last: Literal["auto"] | bool = Field(
        "auto",
        description="leave out the last, incomplete batch of each epoch (other images each time); auto: unless it is"
        " the only batch",
    )
    sampler: str = Field(
        "shuffle",
        description="shuffle: every image once an epoch | balanced: every class as often as any other (no masks) |"
        " MODULE:FUNCTION(labels, generator), the indices of an epoch",
    )
    image_size: Natural | tuple[Natural, Natural] | None = Field(
        None,
        description="pixels, or [height, width]; default: the images' own if all agree and are small, else 224;"
        " segmentation: of the training crops, the images' own up to 512",
    )
    channels: Natural | None = Field(
        None,
        description="1 if all images are gray, those of an .npy or a TIFF with several, else 3; 4 keeps alpha; also:"
        " gray pages of a TIFF that make one image",
    )
    value_range: Range | list[Range] | None = Field(
        None,
        description="[low, high], or one for each channel: values that become 0 and 1, of images of more than 8 bits or"
        " other channels, which keep their depth; default: the training images' own",
    )
    gray_range: Range | None = Field(
        None,
        description="[low, high]: reduces images of more than 8 bits to 8, from black to white",
    )
    augment: str | list[str] = Field(
        "auto",
        description="auto | none | crop, reflect_crop, flip, resized_crop, rotation, randaugment, trivialaugment,"
        " cutout, erasing, MODULE:FUNCTION; segmentation: short_side, scale, crop, flip, colour, blur, MODULE:FUNCTION",
    )
    mean: list[float] | None = Field(None, description="per channel, pixels in [0, 1]; computed from the training set")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="as mean")
    image_column: str | None = Field(
        None, description="of tables, or a part of the samples in .tar files; found by its type or name"
    )
    label_column: str | list[str] | None = Field(
        None,
        description="of tables, or a part or a JSON field of the samples in .tar files; found so too; of masks too;"
        " multilabel: or [a, b, ...], a column of 0 and 1 for each class",
    )
    separator: str | None = Field(None, min_length=1, description="multilabel: what separates the labels of an image")
    stream: int = Field(
        0,
        ge=0,
        description=".tar and .parquet files: take images from this many shards or row groups at a time, and copy each"
        " whole when its turn comes; for data larger than the disk; 0: read single images, or 16 with an opener",
    )
    opener: str | None = Field(
        None,
        description="MODULE:FUNCTION(name), a file to read bytes from: .tar and .parquet files that are not local",
    )
    classes: list[str] | None = Field(
        None, description="segmentation: names of the mask values 0, 1, ..., void ones included; found beside the masks"
    )
    void: list[int | str] | None = Field(
        None, description="segmentation: mask values, or their names, that count for nothing; 255 where not named"
    )
    palette: str | None = Field(
        None,
        description="segmentation: a CSV of name, r, g, b for masks whose colors are the classes; found beside them",
    )
    short_side: Natural | None = Field(
        None,
        description="segmentation: first resize the short side of images to this many pixels; null: do not",
    )
    window: bool = Field(
        False, description="segmentation: score windows of image_size that overlap by a third, not whole images"
    )
    max_megapixels: float = Field(
        64.0, gt=0, le=178, description="refuse larger images and masks, in millions of pixels"
    )
    draft: bool = Field(
        False,
        description="augment resized_crop first: decode large JPEG files at a half, a quarter or an eighth of their"
        " size, as far as the smallest crop keeps image_size pixels; faster, with slightly other pixels",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="skip: read all images before training and leave out those that cannot be used, which exclude then"
        " lists",
    )
    exclude: list[str] | str | None = Field(
        None,
        description="images to leave out, such as train/cat/7.jpg, or train/17 of a table; or a file of such lines",
    )
    finished: bool = Field(
        False,
        description="found out, not set: images come as float tensors from a data set given in Python, as they are",
    )
    download: bool = Field(False, description="allow torchvision: and hf: sources to download what is missing")
    root: str = Field("data", description="folder of torchvision: sources, and where they are downloaded to")

    @property
    def blocks_at_once(self) -> int:
        """From how many shards or row groups an epoch takes its images at a time; 0: from all."""
        return self.stream or (BLOCKS_AT_ONCE if self.opener is not None else 0)

    def allows_size(self, height: int, width: int) -> bool:
        """Whether images of this size, in pixels, stay within `max_megapixels`."""
        return height * width <= self.max_megapixels * 1e6


class TaskPart(Part):
    """What the network learns."""

    main: ClassVar[str] = "kind"
    kind: str = Field(
        "classification",
        description="classification, one class for each image | multilabel, any number of them | segmentation, one"
        " for each pixel | MODULE:CLASS",
    )
    loss: str | None = Field(
        None,
        description="cross_entropy | focal | bce | dice+cross_entropy (segmentation) | asymmetric (multilabel) |"
        " MODULE:FUNCTION(logits, target, soft_target, ignore_index); default: cross_entropy, bce of multilabel",
    )
    class_weights: Literal["auto", "effective"] | dict[str, Weight] | list[Weight] | None = Field(
        None,
        description="auto: n / (k n_c), as scikit-learn's balanced | effective: by effective number | {name: weight},"
        " 1 for the others | a weight for each class in order; multilabel: of the images that show a class, auto:"
        " (n - n_c) / n_c",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each label that all classes get alike; multilabel: yes and no"
    )
    gamma: Weight = Field(2.0, description="focal: how fast the weight of a label falls with its probability")

    @model_validator(mode="before")
    @classmethod
    def _read_older_name(cls, value: Any) -> Any:
        """`loss` was called `criterion`."""
        if not isinstance(value, dict) or "criterion" not in value:
            return value
        older = value["criterion"]
        if older is not None and value.get("loss") is not None:
            raise ValueError(f"task.criterion={older} is the older name of task.loss={value['loss']}; give one of them")
        rest = {name: item for name, item in value.items() if name != "criterion"}
        return rest if older is None else {**rest, "loss": older}


class StudentPart(Part):
    """The network that ships."""

    name: str | None = Field(
        None,
        description="timm:NAME | torchvision:NAME | cifar:NAME | hf:FOLDER | MODULE:FUNCTION; segmentation:"
        " smp:ARCH/ENCODER | torchvision:NAME | efficientdet:d0",
    )
    pretrained: bool = Field(False, description="start from the source's weights")
    start: str | None = Field(
        None, description="weights to start from: a run folder, or a .safetensors, .pth or .pt file"
    )
    freeze: list[str] | None = Field(
        None, description="submodules whose weights and batch norms stay as they are; [all,-fc]: all but fc"
    )
    unfreeze_at: Share | None = Field(
        None, description="share of training after which what is frozen learns too; null: it never does"
    )
    options: dict[str, Any] = Field({}, description="passed on to the network's constructor")


class MethodPart(Part):
    """How the student is trained; hyper-parameters of the method stand beside its name."""

    model_config = ConfigDict(extra="allow")
    drops_old_settings: ClassVar[bool] = True
    name: str = Field(
        "frskd",
        description="a name that `selfdistill methods` lists, or package.module:Class | auto: the best of what was"
        " measured on like data",
    )
    taps: list[str] | None = Field(
        None, description="submodules that give the feature maps; default: the ends of the network's stages"
    )
    teacher: str | None = Field(
        None,
        description="for methods that need one: a run folder, timm:NAME, torchvision:NAME"
        " (with public weights), a file of weights, or MODULE:FUNCTION of a trained network",
    )
    teacher_network: str | None = Field(None, description="the network of a teacher that is a file, such as timm:NAME")

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MixPart(Part):
    """Mixing images and labels of a batch, around any method that takes soft labels."""

    name: Literal["none", "mixup", "cutmix"] = "none"
    alpha: float = Field(1.0, gt=0, description="of the Beta(alpha, alpha) from which the mixing weight is drawn")
    probability: Share = Field(1.0, description="share of the batches that are mixed")


class OptimPart(Part):
    """The optimizer, the learning-rate schedule, and what is done to gradients."""

    name: str = Field("sgd", description="sgd or any optimizer of timm")
    lr: float | None = Field(
        None,
        gt=0,
        description="default: the task's for sgd, 0.001 for others; lower for a student with trained weights",
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="each layer of the student learns at this share of the rate of the next; default: 1",
    )
    method_lr: float | None = Field(
        None,
        gt=0,
        description="of what only training needs, a self-teacher; default: lr",
    )
    momentum: Weight = 0.9
    nesterov: bool = Field(False, description="sgd only")
    weight_decay: Weight = 1e-4
    method_decay: Weight | None = Field(
        None, description="weight decay of what only training needs; default: weight_decay"
    )
    decay: Literal["all", "weights"] = Field("all", description="all parameters, or all but biases, norms and vectors")
    schedule: Literal["step", "cosine", "constant", "linear", "poly"] = "cosine"
    milestones: list[Share] = Field([0.5, 0.75], description="step: shares of training after which lr drops")
    gamma: float = Field(0.1, gt=0, le=1, description="step: what lr is multiplied by")
    min_lr: Weight = Field(0.0, description="cosine, linear, poly: lr at the end")
    warmup: Share | None = Field(
        None,
        description="share of training over which lr rises linearly from a hundredth; default: 0, or 0.1 with"
        " trained weights",
    )
    clip: float | None = Field(None, gt=0, description="clip gradients to this norm")
    clip_value: float | None = Field(None, gt=0, description="clip each value of a gradient to this size")
    accumulate: Natural = Field(1, description="micro-batches that a batch is split into")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of an exponential average of the student, which then ships"
    )
    restarts: list[tuple[Natural, Natural, float]] = Field(
        [],
        description="schedules that `--resume RUN epochs=N` added: steps done before, steps planned before, share of lr"
        " from which it began; the run writes it",
    )


class MachinePart(Part):
    """Settings that change where and how fast a run computes, not what, up to rounding."""

    main: ClassVar[str] = "device"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0)] = Field(0, description="number of processes that load images")
    cache: Literal["auto", "device", "memory", "disk", "none"] = Field(
        "auto", description="where decoded images are kept; auto: on the device where they are small, else nowhere"
    )
    compile: Literal["auto", "graphs"] | bool = Field(
        "auto",
        description="auto: on GPUs, in long runs | true | false | graphs: with CUDA graphs too",
    )
    channels_last: bool = True
    checkpoint_minutes: float = Field(10.0, gt=0, description="longest time between two checkpoints")
    track: list[str] = Field([], description="trackers of accelerate, for example tensorboard")


class Recipe(Part):
    """A whole run."""

    data: DataPart = DataPart()
    task: TaskPart = TaskPart()
    student: StudentPart = StudentPart()
    method: MethodPart = MethodPart()
    mix: MixPart = MixPart()
    optim: OptimPart = OptimPart()
    epochs: Natural | None = Field(None, description="30 where max_steps is not given either")
    max_steps: Natural | None = Field(
        None, description="alone: the length of the schedule in optimizer steps; beside epochs: stops early"
    )
    evaluate_every: Natural = Field(
        1, description="epochs between two scorings of the student; after the last step it is always scored"
    )
    best_by: str | None = Field(
        None,
        description="score of the validation images that chooses the best epoch, and that patience watches: top1,"
        " balanced_accuracy, nll, ece; segmentation: miou, boundary_f, nll, ece; default: the task's first",
    )
    patience: Natural | None = Field(
        None, description="scorings without a better one on the validation images after which training ends; null: all"
    )
    diagnose: Natural | None = Field(
        None, description="steps between two measurements of how each loss term pulls at the student; null: none"
    )
    batch_size: Natural | None = Field(
        None, description="images per optimizer step, over all processes; default: the task's"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs and CPUs that compute with it and are not slower so, else fp32"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    out: str | None = Field(None, description="the run folder; runs/DATA-STUDENT-METHOD-sSEED")
    machine: MachinePart = MachinePart()

    @model_validator(mode="after")
    def _choose_length(self) -> "Recipe":
        if self.epochs is None and self.max_steps is None:
            self.epochs = 30
        return self
