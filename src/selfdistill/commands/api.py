"""The commands as functions of Python: signatures and what they mean; whatever is heavy is imported on use."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..method import Method
    from ..report.comparison import Comparison
    from ..training.callbacks import Callback
    from ..training.experiment import Experiment
    from ..training.state import Result
    from .trained import TrainedRun


def train(
    recipe: "str | Path | None" = None,
    *,
    data: Any = None,
    student: Any = None,
    method: Any = None,
    resume: "str | Path | TrainedRun | None" = None,
    callbacks: "Sequence[Callback]" = (),
    progress: bool = True,
    trust: bool = False,
    **settings: Any,
) -> "TrainedRun":
    """Trains a network, as `selfdistill train` does.

    Args:
        recipe: A recipe file, or the name of one that comes with the package; None: all defaults.
        data: A source as on the command line, a torch Dataset of (image, label), or a pair (train, val) of these.
            Images may be PIL images or uint8, which are augmented and normalized, or finished float tensors (c, h, w),
            which stay as they are. Without `val`, a fifth of each class is held out.
        student: A name such as "timm:resnet18", a module, which is trained in place, or a class or function that is
            called with `num_classes=`.
        method: A name that `list_methods()` gives, a subclass of `Method`, or "auto": what did best in measured runs
            like this one, in equal time; a note says why.
        resume: A run to go on with. Give the objects that it began with again; of the settings only `machine` and the
            length may change, as with `--resume`.
        callbacks: Told what happens, after those that write the run folder.
        progress: Whether to show notes and progress.
        trust: Whether run folders from somebody else may run the code that they name.
        **settings: All other settings of a recipe, by name: `epochs=30`, `out="runs/mine"`,
            `optim={"lr": 0.05}`, `**{"optim.lr": 0.05}`, `task={"loss": my_function}`.

    Returns:
        The run: its student, classes, transforms and scores, and `predict(images)`.

    Raises:
        ValueError: in one sentence, with the nearest legal name, for what cannot work, before anything is trained.
        Interrupted: after Ctrl-C, once the checkpoint is written.

    >>> import selfdistill as sd
    >>> run = sd.train(data="digits", student="cifar:resnet8", method="frskd", epochs=20)   # doctest: +SKIP
    """
    from .python import train_run

    given = {"data": data, "student": student, "method": method, **settings}
    return train_run(recipe, given, resume=resume, callbacks=callbacks, progress=progress, trust=trust)


def compare(
    recipe: "str | Path | None" = None,
    *,
    methods: "str | Sequence[str | type[Method]]" = ("baseline", "frskd"),
    seeds: "int | Sequence[int]" = 3,
    controls: "str | Sequence[str]" = (),
    margin: float | None = None,
    budget: str | None = None,
    callbacks: "Sequence[Callback]" = (),
    progress: bool = True,
    trust: bool = False,
    **settings: Any,
) -> "Comparison":
    """Trains several methods and seeds under one recipe, as `selfdistill compare` does.

    Args:
        recipe: As in `train`.
        methods: Names, as on the command line ("frskd+beta=0", "auto"), or subclasses of `Method`; the first is the
            baseline.
        seeds: How many, counted from 0, or which.
        controls: "auto", or some of "equal_cost", "label_smoothing", "deep_supervision" and "cutmix".
        margin: Points of gain that are worth a method.
        budget: The time to spend, such as "2h".
        callbacks: Told what happens in every run.
        progress: Whether to show notes and progress.
        trust: As in `train`.
        **settings: As in `train`. A student that is a module is copied for every run, so seeds begin with the same
            weights.

    Returns:
        The comparison, which notebooks show as a table with its verdicts; `print(comparison.markdown())` elsewhere.

    Raises:
        ValueError: as `train`.
    """
    from .python import compare_arms

    words = {"methods": methods, "seeds": seeds, "controls": controls, "margin": margin, "budget": budget}
    return compare_arms(recipe, words, settings, callbacks=callbacks, progress=progress, trust=trust)


def load(run: "str | Path", *, student: "nn.Module | None" = None, trust: bool = False) -> "TrainedRun":
    """A run folder, with its student.

    Args:
        run: The folder.
        student: A network for the weights, where the run was given one that its folder cannot rebuild.
        trust: Whether to run the code that a folder from somebody else names.

    Returns:
        The run: its student, classes, transforms and scores, and `predict(images)`.

    Raises:
        ValueError: there is no run or no student, its files are damaged, or it would run code.
    """
    from .trained import TrainedRun

    return TrainedRun(run, student=student, trust=trust)


def fit(
    method: "Method | Experiment",
    data: Any = None,
    *,
    run: Any = None,
    resume: bool = False,
    callbacks: "Sequence[Callback]" = (),
    progress: bool | None = None,
    trust: bool = False,
    **settings: Any,
) -> "Result":
    """Trains a method that you have made, in place, on a data set of your own.

    Args:
        method: From `create_method` or `wrap`; its task's loss is used. Or an `Experiment`, which holds everything, and
            takes neither `data` nor settings.
        data: As in `train`. Views, positives and indices are made for the methods that need them.
        run: A folder to write metrics, checkpoints and the student to; None writes nothing.
        resume: Whether to go on from the run's last checkpoint.
        callbacks: Told what happens, after those that write the run folder.
        progress: Whether to show notes and progress; None: for a method.
        trust: As in `train`.
        **settings: As in `train`, but for task, student and method, which are there already; `student.pretrained`,
            `student.freeze` and `student.unfreeze_at` say what becomes of the network's weights.

    Returns:
        The scores of the student after the last step, and what training cost.

    Raises:
        ValueError: in one sentence, for settings that contradict each other, or data that the method does not fit.
        Interrupted: after Ctrl-C, once the checkpoint is written.
    """
    from .python import fit_method

    progress = not hasattr(method, "train_set") if progress is None else progress
    return fit_method(
        method, data, settings, run=run, resume=resume, callbacks=callbacks, progress=progress, trust=trust
    )


def describe_method(name: str) -> str:
    """The card of a method in Markdown: its paper, what it needs, and its hyper-parameters with their defaults.

    >>> "weighs the feature loss" in describe_method("frskd")
    True
    """
    from .cards import card

    return card(name)


def wrap(
    model: "nn.Module",
    method: "str | type[Method]" = "frskd",
    *,
    image_size: int | tuple[int, int] | None = None,
    loss: "str | Callable[..., Tensor] | None" = None,
    num_examples: int = 0,
    total_steps: int | None = None,
    taps: Sequence[str] | None = None,
    teacher: "nn.Module | None" = None,
    **hyperparameters: Any,
) -> "Method":
    """A method around a network; the task is told from the scores that the network gives for a blank image.

    Args:
        model: A classifier, or a network that scores every pixel. It stays as it is, and is what ships.
        method: As in `create_method`.
        image_size: Pixels, or (height, width), of the training images; None: the network's own, as timm's tell it.
        loss: The supervised loss, see `Task`; None: cross-entropy.
        num_examples: Images in the training set, for methods that remember each of them.
        total_steps: How many optimizer steps training takes, see `create_method`.
        taps: Names of the submodules whose outputs are the feature maps; None finds them.
        teacher: The network that some methods learn from.
        **hyperparameters: Values other than the method's defaults.

    Returns:
        The method.

    Raises:
        ValueError: where the size of the images is not known, or the network gives no class scores.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5))
    >>> wrap(model, "baseline", image_size=8).task.num_classes
    5
    """
    from .wrap import wrap_network

    options = {"total_steps": total_steps, "taps": taps, "teacher": teacher, **hyperparameters}
    return wrap_network(model, method, image_size=image_size, loss=loss, num_examples=num_examples, **options)
