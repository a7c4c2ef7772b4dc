"""The command line. Heavy imports stay inside the commands, so that help answers at once."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__

TRACEBACK = "--traceback"

app = typer.Typer(
    name="selfdistill",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _complete(kind: str) -> Callable[..., list[str]]:
    """A function for the shell's completion of words of this kind."""

    def complete(ctx: Any, incomplete: str) -> list[str]:
        from .commands.completion import list_completions

        return list_completions(kind, incomplete, ctx.params.get("words") or [])

    return complete


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [NAME=VALUE]...",
        help="A recipe, if any (a file, or a name that `selfdistill recipes` lists), and settings over it:"
        " data=/my/images student=timm:resnet18 method=frskd",
        show_default=False,
        autocompletion=_complete("words"),
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code that a run folder from somebody else names (SECURITY.md).")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `selfdistill train` makes them.")]


Checkpoint = Annotated[
    str, typer.Option(help="last | best: the student of the last epoch, or of the best one on the validation images.")
]


def main() -> None:
    """Runs the command line; an error that the user can mend is printed as one sentence."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # one error tells what went wrong, not a line for every retry
    words = [word for word in sys.argv[1:] if word != TRACEBACK]
    try:
        _refuse_dashes(words)
        build_command()(args=words, prog_name="selfdistill")
    except SystemExit as end:
        if end.__context__ is not None and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)  # typer ends the program without a word
        raise
    except (Exception, KeyboardInterrupt) as error:
        from .commands.failures import describe_failure

        failure = None if TRACEBACK in sys.argv else describe_failure(error)
        if failure is None:
            raise
        from .commands.console import tell

        tell(failure[0])
        sys.exit(failure[1])
    finally:
        if "torch" in sys.modules:
            from .commands.launch import leave_processes

            leave_processes()


@functools.cache
def build_command() -> Any:
    """The program with all its commands, read from the functions of this file."""
    return typer.main.get_command(app)


def _refuse_dashes(words: list[str]) -> None:
    """Raises `ValueError` for a setting that is written as an option, such as --epochs 3."""
    command = build_command().commands.get(words[0] if words else "")
    if command is None or all(parameter.name != "words" for parameter in command.params):
        return
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word, value in zip(words[1:], [*words[2:], ""], strict=True):
        name, equals, text = word.partition("=")
        if word.startswith("--") and len(word) > 2 and name not in options:
            from .commands.failures import say_without_dashes

            raise ValueError(say_without_dashes(name, text if equals else value))


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"selfdistill {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="Show all of an error, not one sentence; anywhere in the line.")
    ] = False,
) -> None:
    """Train any PyTorch image network to be better without a bigger teacher."""


@app.command()
def train(
    words: Words = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with an interrupted run; with epochs=N a finished one."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many optimizer steps.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and at which rates; train nothing.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Train a network, by default with FRSKD on the built-in digits."""
    from .commands.launch import refuse_lone_process

    refuse_lone_process()
    from .commands.recipes import read_words
    from .commands.train import describe_run, resume_run, start_run

    words = list(words or [])
    if max_steps is not None:
        words.append(f"max_steps={max_steps}")
    if dry_run:
        if resume is not None:
            raise ValueError("--dry-run is for a run that has not begun; leave out --resume")
        describe_run(read_words(words), trust=trust)
    elif resume is not None:
        resume_run(resume, words, trust=trust)
    else:
        start_run(read_words(words), trust=trust)


@app.command()
def compare(words: Words = None, trust: Trust = False) -> None:
    """Train several methods with several seeds under one recipe, and say whether they help.

    Beside a recipe's settings stand:

    methods=baseline,frskd,frskd+beta=0 (the first is the baseline; settings stand behind a +; auto is the arm that
    did best in measured runs like these)

    seeds=3 (or a list: seeds=0,7, or seeds=[7] for one seed)

    controls=auto (or some of equal_cost,label_smoothing,deep_supervision,cutmix: the baseline that is trained for as
    long a time, label smoothing, deep supervision, and each method with cutmix)

    margin=0.5 (points of gain that are worth a method)

    budget=2h (what fits into this time, most informative first)

    Arms, seeds and the rule of the verdicts are written into plan.json before the first run, and the tables into
    compare.md, .json, .csv and .tex. Where the data have no test split, a fifth of each class is held out for one
    (data.test_fraction=none: it is not). Runs that are finished are not repeated, so an interrupted comparison goes on
    where it stopped, and several processes that are given the same line share its runs. A run whose code or teacher
    changed since is trained anew beside the old one, and the written table keeps the arms and seeds that it had.
    """
    from .commands.launch import refuse_lone_process

    refuse_lone_process()
    from .commands.compare import compare_methods

    compare_methods(words or [], trust=trust)


@app.command("eval")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; several give a table.")],
    data: Annotated[str | None, typer.Option(help="Other labeled images, as data= of a recipe.")] = None,
    robust: Annotated[
        bool, typer.Option("--robust", help="Score on corrupted images too: noise, blur, light, JPEG; 5 severities.")
    ] = False,
    most: Annotated[
        int | None, typer.Option(min=1, help="With --robust: how many images at most; 1,000 by default.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Fit the probabilities' temperature on validation images; store it."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    checkpoint: Checkpoint = "last",
    trust: Trust = False,
) -> None:
    """Score a run's student by its task: top-1, or mean IoU and every class's; nll (nats) and ece."""
    from .commands.arguments import choose_student
    from .commands.calibrate import print_calibrations
    from .commands.evaluate import print_scores, print_table
    from .commands.robustness import print_robustness

    paths = [choose_student(run, checkpoint) for run in dict.fromkeys(runs)]
    if most is not None and not robust:
        raise ValueError(f"--most={most} has no effect without --robust; leave it out")
    if robust and calibrate:
        raise ValueError("--robust and --calibrate are two commands; call one after the other")
    if calibrate:
        print_calibrations(paths, data, as_json=as_json, trust=trust)
    elif robust:
        print_robustness(paths, data, most=most, as_json=as_json, trust=trust)
    elif len(paths) > 1:
        print_table(paths, data, as_json=as_json, trust=trust)
    else:
        print_scores(paths[0], data, as_json=as_json, trust=trust)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_COMPARE...", help="Run folders, or the folder of a comparison.")
    ],
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="What to compare with; the first arm of a comparison by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the page goes; into the folder named, ./report for several."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Write one self-contained page: verdict, curves, costs, classes, images whose answer changed, settings.

    It is report.html, with each figure as a file beside it. `compare` writes it at its end.
    """
    from .commands.report import report as write_page

    write_page(folders, baseline=baseline, out=out, trust=trust)


@app.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes to name; by default one, or all that an image shows.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where a segmenter's masks go; RUN/predictions by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table too, a line for each image.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Of a segmenter: also draw the labels that these data (as data= of a recipe) have for the images, and"
            " where they differ.",
        ),
    ] = None,
    checkpoint: Checkpoint = "last",
    trust: Trust = False,
) -> None:
    """Name the most probable classes of images; of a segmenter their shares, with masks and overlays as files.

    A file that cannot be read is named, the others are predicted, and the exit code is 1.
    """
    from .commands.arguments import choose_student
    from .commands.predict import print_predictions

    print_predictions(
        choose_student(run, checkpoint),
        images,
        top=top,
        out=out,
        as_json=as_json,
        table=csv,
        compare=compare,
        trust=trust,
    )


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_FOLDER", help="A run, or the folder of a comparison.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 0,
    trust: Trust = False,
) -> None:
    """Show the report of runs that are still going on to a browser of this machine, until Ctrl-C."""
    from .commands.watch import watch as serve

    serve(run, port=port, trust=trust)


@app.command()
def transfer(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... data=DATA [NAME=VALUE]...",
            help="Run folders, and labeled images with data settings as in a recipe; seeds=3.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    trust: Trust = False,
) -> None:
    """Try the frozen features of students on another data set: a linear probe and nearest neighbors."""
    from .commands.transfer import print_transfer

    print_transfer(words, as_json=as_json, trust=trust)


@app.command()
def explain(
    run: RunFolder,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGES]...", help="Image files, or folders of them; else held-out images of the run."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run, whose maps are drawn above the student's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the pictures go; RUN/explain by default.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="How many images at most.")] = 12,
    trust: Trust = False,
) -> None:
    """Draw where the student and its self-teacher look: attention maps at every level, and a class activation map."""
    from .commands.explain import print_explanation

    print_explanation(run, images or [], baseline=baseline, out=out, most=most, trust=trust)


@app.command()
def export(
    run: RunFolder,
    format: Annotated[str, typer.Option(help="safetensors | onnx | torch-export")] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="The file to write; beside the run's others by default.")] = None,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="Bind a segmenter's file to the height and width of training.")
    ] = False,
    checkpoint: Checkpoint = "last",
    trust: Trust = False,
) -> None:
    """Write the student as a file that other programs read, and check that the file computes the same."""
    from .commands.arguments import choose_student
    from .commands.export import export_run

    export_run(choose_student(run, checkpoint), format, out=out, fixed_size=fixed_size, trust=trust)


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Print this method's card.", autocompletion=_complete("methods")),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the training methods by what teaches, with where to begin, price and tasks; or tell all about one."""
    from .commands.show import print_methods

    print_methods(name, as_json=as_json)


@app.command()
def contract(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="package.module:Class of yours, or any method.")],
) -> None:
    """Try whether a method keeps what every method must: finite, resumable, one graph, a plain student.

    Exit code 1 where it does not.
    """
    from .commands.contract import print_contract

    if not print_contract(method):
        raise typer.Exit(1)


@app.command(name="new-method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the method and its file: my_method.")],
) -> None:
    """Write NAME.py, a method to start from, and test_NAME.py, which holds it to its contract."""
    from .commands.template import write_method

    write_method(name)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME | FILTER]",
            help="A recipe to print whole, or a part of name, data or method.",
            autocompletion=_complete("recipes"),
        ),
    ] = None,
) -> None:
    """List the recipes that come with the package, or print one with all that it takes from its bases."""
    from .commands.recipes import print_recipes

    print_recipes(name)


@app.command()
def taps(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="timm:NAME | torchvision:NAME | cifar:NAME | ...")],
    names: Annotated[list[str] | None, typer.Argument(help="Submodules to read; found by themselves.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels; 32 for cifar: networks, else 224.")] = None,
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 3,
    task: Annotated[
        str | None, typer.Option(help="classification | segmentation; found by the network's name.")
    ] = None,
) -> None:
    """Show the feature maps that methods find in a network."""
    from .commands.show import print_taps

    print_taps(student, names or None, image_size=image_size, channels=channels, task=task)


@app.command()
def check(
    words: Words = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="How many images of each split at most; all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write check.html there, a page with pictures.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the suggested settings as a recipe.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Look at a data set before training: selfdistill check data=/my/images

    Classes and counts, unusable and nearly empty images, exact and near duplicates inside and across splits, class
    names that look alike, sizes, and settings that suit. Exit code 1 where there is a problem.
    """
    from .commands.check import check_data

    check_data(words or [], most=most, as_json=as_json, out=out, file=recipe, trust=trust)


@app.command()
def init(
    words: Words = None,
    file: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe for your images: selfdistill init data=/my/images"""
    from .commands.init import write_recipe
    from .commands.recipes import read_words

    write_recipe(read_words(words or []), file)
