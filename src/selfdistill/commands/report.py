"""report: one self-contained page of runs, or of a comparison."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from ..data import LabeledDataset, open_splits
from ..data.datasets.conversion import to_8_bits
from ..data.pictures import draw_errors, draw_overlay
from ..distributed import default_device
from ..errors import one_line
from ..method import Method
from ..methods import find_method, list_methods
from ..report.attention import draw_attention
from ..report.comparison import Comparison, compare_runs
from ..report.earlier import read_earlier_runs
from ..report.evidence import ArmRun, Evidence, gather_evidence
from ..report.finished import read_finished
from ..report.page import write_page
from ..report.pictures import Attention, AttentionPictures, Gallery
from ..report.plan import Plan, read_plan
from ..report.sections.origin import MethodCard
from ..runs.folder import Run
from ..runs.student import StudentCard, is_own_card, load_student, read_complete_card
from ..tasks import find_task
from ..tasks.base import Predictor
from .cards import describe_method
from .console import say
from .evaluate import has_changed
from .explain import explain_images, list_held_out
from .places import find_data_paths

EXPLAINED = 4  # held-out images whose attention maps are shown


def report(paths: Sequence[Path], *, baseline: str | None = None, out: Path | None = None, trust: bool = False) -> None:
    """Writes the page of run folders, or of the folder of a comparison, and names its file."""
    comparison, plan = compare_paths(paths, baseline, trust=trust)
    words = [*map(str, paths), *(["--baseline", baseline] if baseline else [])]
    folder = out or (paths[0] if len(paths) == 1 else Path("report"))
    command = shlex.join(["selfdistill", "report", *words])
    path = write_report(comparison, folder, command=command, controls=plan.controls, trust=trust)
    say(f"written: {path}")


def compare_paths(
    paths: Sequence[Path], baseline: str | None = None, *, trust: bool = False
) -> tuple[Comparison, Plan]:
    """Runs, or the folder of a comparison, side by side; and the comparison's plan."""
    runs, plan = list_arms(paths, trust=trust), read_plan(paths[0]) or Plan()
    first = next((arm for arm in [*plan.arms[:1], *runs] if arm in runs), None) if isinstance(runs, dict) else None
    rule = plan.get_rule()
    return compare_runs(runs, baseline or first, trust=trust, rule=rule, equal_cost=plan.equal_cost), plan


def list_arms(paths: Sequence[Path], *, trust: bool = False) -> dict[str, list[Path]] | list[Path]:
    """The runs of a lone comparison by the arms of its table, those under way under their own names; else all runs.

    Raises `ValueError` for a folder that is no run and holds none.
    """
    runs: list[Path] = []
    for path in paths:
        inside = sorted(file.parent for file in path.glob("*/recipe.yaml"))
        if inside and not (path / "recipe.yaml").is_file():
            runs += inside
        elif path.is_dir() and not (path / "recipe.yaml").is_file():
            raise ValueError(f"{path} is neither a run folder nor a folder of runs: it holds no recipe.yaml")
        else:
            runs.append(Run.open(path).path)
    table = read_earlier_runs(paths[0]) if len(paths) == 1 else {}
    arms = {name: [*group] for name, group in table.items() if group}
    known = [path for group in arms.values() for path in group]
    under_way = [path for path in runs if path not in known and read_finished(Run.open(path), trust=trust) is None]
    return {**arms, **{path.name: [path] for path in under_way}} if arms else runs


def write_report(
    comparison: Comparison, folder: Path, *, command: str, controls: Collection[str] = (), trust: bool = False
) -> Path:
    """Writes report.html and its figures into a folder. `controls` are arms that nobody asked for."""
    evidence = gather_evidence(comparison, controls, trust=trust)
    return write_page(
        evidence,
        folder,
        command=command,
        gallery=open_gallery(evidence, trust=trust),
        cards=list_cards(evidence, trust=trust),
        attention=list_attention(evidence, trust=trust),
    )


def list_cards(evidence: Evidence, *, trust: bool = False) -> list[MethodCard]:
    """The card of every method; without those of code that a folder from somebody else names."""
    names = dict.fromkeys(get_method_name(run) for run in evidence.runs if may_import_method(run, trust=trust))
    return [describe_method(name) for name in names]


def get_method_name(run: ArmRun) -> str:
    return str(run.settings["method.name"])


def may_import_method(run: ArmRun, *, trust: bool) -> bool:
    return trust or run.run.is_own or get_method_name(run) in list_methods()


def may_open(run: ArmRun, *, trust: bool) -> bool:
    """Whether a run may name images to show: what somebody else's folder names would end up in the page."""
    return trust or (run.run.is_own and is_own_card(run.run.path))


def list_attention(evidence: Evidence, *, trust: bool = False) -> list[Attention]:
    """Attention maps of the first shown arm that has a self-teacher, beside the baseline's."""
    for arm in evidence.shown or evidence.arms:
        run = next((run for run in arm.finished if may_open(run, trust=trust)), None)
        if run is not None and find_method(get_method_name(run)).compare_maps is not Method.compare_maps:
            others = evidence.baseline.finished if evidence.baseline and evidence.baseline is not arm else []
            beside = next((other.run.path for other in others if other.seed == run.seed), None)
            try:
                return [explain_run(arm.name, run, beside, trust=trust)]
            except (ValueError, RuntimeError) as error:
                return [Attention(arm.name, [], [], None, [f"No maps are shown: {one_line(error)}."])]
    return []


def explain_run(name: str, run: ArmRun, baseline: Path | None, *, trust: bool) -> Attention:
    """The attention maps of a run's networks for a few held-out images."""
    seen = list_held_out(run.run.path, EXPLAINED, trust=trust)
    explanation = explain_images(run.run.path, seen, baseline=baseline, trust=trust)
    images = [
        AttentionPictures(
            image.name if image.label is None else f"{image.label}: {image.name}",
            {
                network: [Image.fromarray(draw_attention(image.pixels, level)) for level in maps]
                for network, maps in image.attention.items()
            },
            f"The student of seed {run.seed} says {image.predicted}.",
        )
        for image in explanation.images
    ]
    return Attention(name, explanation.levels, images, explanation.distances, explanation.notes)


def open_gallery(evidence: Evidence, *, trust: bool = False) -> Gallery | str:
    """Draws the scored images of the runs; a sentence where these cannot be opened, or are not the same any more."""
    runs = [run for run in evidence.runs if run.outcomes is not None]
    if not runs:
        return "The runs kept no answers for single images."
    if not may_open(runs[0], trust=trust):
        return f"The images are not shown: {runs[0].run.path} is not signed by this machine. With --trust they are."
    try:
        card = read_complete_card(runs[0].run.path, trust=trust)
        if card.data.finished:
            return "The images are not shown: they come as finished tensors."
        dataset = open_scored_images(runs[0], card)
    except (ValueError, OSError) as error:
        return f"The images are not shown: {error}."
    if len(dataset) != len(runs[0].outcomes.nll) or has_changed(dataset, runs[0].split or "", runs[0].run):
        return "The images are not shown: they are not those that the runs were scored on."
    if find_task(card.task).output == "image":
        return Gallery(dataset.name, lambda index, students: {"image": to_8_bits(dataset.read(index), 3)})
    if card.masks is None:
        return "The images are not shown: the runs do not tell the colors of their classes."
    draw = draw_masks(dataset, card, trust=trust)
    return Gallery(dataset.name, draw, tuple(zip(card.classes, card.masks.colours, strict=True)))


def open_scored_images(run: ArmRun, card: StudentCard) -> LabeledDataset:
    """The split that a run's scores were taken on."""
    task = find_task(card.task)
    splits = open_splits(find_data_paths(card.data, run.run, card.task, advice="move them there"), task)
    dataset = splits.test if run.split == "test" else splits.val
    if dataset is None:
        raise ValueError(f"{card.data.source} has no {run.split} images any more")
    return dataset


def draw_masks(
    dataset: LabeledDataset, card: StudentCard, *, trust: bool
) -> Callable[[int, Mapping[str, Path]], dict[str, Image.Image]]:
    """The function that draws an image, its label, and what students say of it, with their errors."""
    assert card.masks is not None, "only masks have colors"
    colors = card.masks.colours

    @cache
    def open_predictor(path: Path) -> Predictor:
        own = read_complete_card(path, trust=trust)
        student = load_student(path, trust=trust).to(default_device())
        return find_task(own.task).predictor(student, own, path, None)

    def draw(index: int, students: Mapping[str, Path]) -> dict[str, Image.Image]:
        stored, label = dataset[index]
        image = to_8_bits(stored, 3)
        with torch.inference_mode():
            said = {name: open_predictor(path).label_pixels(stored) for name, path in students.items()}
        answers = {name: draw_overlay(image, numbers, colors) for name, numbers in said.items()}
        errors = {f"errors of {name}": draw_errors(image, numbers, label) for name, numbers in said.items()}
        return {
            "image": image,
            **answers,
            "label": draw_overlay(image, label, colors),
            **errors,
        }  # errors below answers

    return draw
