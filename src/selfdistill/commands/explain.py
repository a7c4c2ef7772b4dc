"""explain: where a run's student looks, and what its self-teacher refines there."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..build import make_file_name
from ..build.teacher import rebuild_method
from ..data import read_image
from ..data.datasets.base import select_evenly
from ..data.pictures import NARROWEST, draw_grid
from ..distributed import default_device
from ..errors import count_of
from ..features.activation import class_activation
from ..features.extractor import Taps
from ..features.modes import set_mode
from ..method import Method
from ..methods import find_method
from ..report.attention import compute_attention, compute_distance, draw_attention
from ..report.document import draw_document, to_html
from ..report.elements import Element, element
from ..report.pictures import Budget
from ..report.sections.blocks import table
from ..runs.files import make_folders, replace_file, write_text
from ..runs.folder import Run
from ..runs.student import StudentCard, is_own_card, load_student, read_complete_card
from ..runs.trust import refuse_code, refuse_unpacking
from ..tasks import find_task
from .arguments import tell_other_run
from .console import say, tell
from .evaluate import open_held_out
from .places import find_data_paths
from .predict import list_images

WIDEST, BYTES = 1600, 20_000_000  # pixels of a picture in the page, and bytes of all; the files beside it are whole
LEAD = (
    "Each map is the mean of squares over channels, colored from its lowest value (dark) to its highest (bright). The "
    "last picture of the student's row shows what speaks for the named class (Grad-CAM)."
)
STUDENT, SELF_TEACHER, BASELINE = "student", "self-teacher", "baseline"  # the rows of a picture


class ExplainedImage(NamedTuple):
    """One image and where the networks look."""

    name: str
    pixels: np.ndarray  # (H, W, 3) uint8, as the student sees the image
    label: str | None  # its class, where that is known
    predicted: str  # what the student says
    activated: str  # the class that `activation` explains
    attention: dict[str, list[np.ndarray]]  # by network: a map (h, w) of unit norm for each of its levels
    activation: np.ndarray | None  # (h, w), see `features.activation`

    @property
    def distances(self) -> list[float] | None:
        """Squared distance of the student's maps from the self-teacher's at each of its levels."""
        if SELF_TEACHER not in self.attention:
            return None
        refined = self.attention[SELF_TEACHER]
        own = self.attention[STUDENT][-len(refined) :]
        return [compute_distance(a, b) for a, b in zip(own, refined, strict=True)]


class Explanation(NamedTuple):
    """What `explain_images` computes; levels go from shallow to deep, and networks with fewer share the deepest."""

    levels: list[str]  # the student's submodules whose maps are shown
    images: list[ExplainedImage]
    notes: list[str]  # sentences for the user

    @property
    def distances(self) -> list[float] | None:
        """The mean over images of the distance at each level of the self-teacher."""
        each = [image.distances for image in self.images if image.distances is not None]
        return np.mean(each, axis=0).tolist() if each else None


class Seen(NamedTuple):
    """An image as it is shown to a network."""

    name: str
    image: Image.Image
    label: str | None


def print_explanation(
    path: Path, images: Sequence[Path], *, baseline: Path | None, out: Path | None, most: int, trust: bool = False
) -> None:
    """Writes the pictures of some images, or of `most` held-out ones, and prints the distance at each level."""
    seen = list_seen(path, images, most, trust=trust) if images else list_held_out(path, most, trust=trust)
    explanation = explain_images(path, seen, baseline=baseline, trust=trust)
    for note in explanation.notes:
        tell(f"note: {note}")
    folder = write_pictures(explanation, make_folders(out, ".") if out else make_folders(path, "explain"))
    if explanation.distances is not None:
        say("squared distance of the student's attention from the self-teacher's, 0 to 2, mean over images:")
        for level, distance in zip(
            explanation.levels[-len(explanation.distances) :], explanation.distances, strict=True
        ):
            say(f"{level}\t{distance:.3f}")
    say(f"pictures of {count_of(len(explanation.images), 'image')} are in {folder}; open {folder / 'index.html'}")


def list_seen(path: Path, images: Sequence[Path], most: int, *, trust: bool = False) -> list[Seen]:
    """The image files, and those in folders; the first `most` of them."""
    card = read_complete_card(path, trust=trust)
    files = [*list_images(images)]
    if len(files) > most:
        tell(f"note: the first {most} of {count_of(len(files), 'image')} are explained; --most={len(files)} takes all")
    seen, errors = [], []
    for file in files[:most]:
        try:
            picture = read_image(
                str(file.path), max_megapixels=card.data.max_megapixels, channels=card.data.channels or 1
            )
            seen.append(Seen(str(file.path), picture, None))
        except ValueError as error:  # the others may be sound
            errors.append(str(error))
    if not seen:
        raise ValueError(errors[0])
    for error in errors:
        tell(f"not explained: {error}")
    return seen


def list_held_out(path: Path, most: int, *, indices: Sequence[int] | None = None, trust: bool = False) -> list[Seen]:
    """Held-out images of a run: those at `indices` of the split, or `most` evenly spaced ones, with their classes."""
    card = read_complete_card(path, trust=trust)
    if not trust and not is_own_card(path):
        refuse_unpacking(path, card.data)
    settings = find_data_paths(card.data, Run(path), card.task, advice="name the images behind the run")
    dataset = open_held_out(settings, find_task(card.task))[1]
    chosen = select_evenly(len(dataset), most) if indices is None else indices
    return [Seen(dataset.name(i), dataset.read(i), dataset.describe_label(i)) for i in chosen]


@torch.no_grad()
def explain_images(
    path: Path, images: Sequence[Seen], *, baseline: Path | None = None, trust: bool = False
) -> Explanation:
    """Attention and class activation maps of a run's networks for some images.

    The self-teacher is rebuilt from the run's recipe and last checkpoint; a run without one, and a method without a
    self-teacher, lack its maps. `baseline` is another run, whose student is shown the same images as its own.
    """
    card = read_complete_card(path, trust=trust)
    tell_other_run(path, card)
    task = find_task(card.task)
    transform = task.eval_transform(card.data)
    method, notes = load_method_to_explain(path, card, trust=trust)
    student = (method.student if method else load_student(path, trust=trust)).to(default_device())
    taps = method.taps if method else Taps(student, card.student.image_shape)
    other = None if baseline is None else load_baseline(baseline, trust=trust)
    explained = []
    for seen in images:
        shown = transform.show(seen.image)[None].to(default_device())
        maps = {}
        if other is not None:
            maps[BASELINE] = other(seen.image)
        maps |= run_networks(student, taps, method, shown)
        logits, classes, activation = class_activation(student, shown, taps.image_shape, [tap.name for tap in taps])
        explained.append(
            ExplainedImage(
                name=seen.name,
                pixels=restore_pixels(shown[0].cpu(), card),
                label=seen.label,
                predicted=task.say_answer(logits[0], card) or card.classes[int(classes[0])],
                activated=card.classes[int(classes[0])],
                attention={name: [to_attention(feature) for feature in features] for name, features in maps.items()},
                activation=None if activation is None else activation[0].float().cpu().numpy(),
            )
        )
    if any(image.activation is None for image in explained):
        notes.append(f"no map of {card.student.name} has a gradient, so there is no class activation map")
    return Explanation([tap.name for tap in taps], explained, notes)


def load_method_to_explain(path: Path, card: StudentCard, *, trust: bool) -> tuple[Method | None, list[str]]:
    """The method of a run with its self-teacher, and why it cannot be had where the method has one."""
    if not trust and not is_own_card(path):
        refuse_code(path, [("method", card.method)])
    method_class = find_method(card.method)
    if method_class.compare_maps is Method.compare_maps:
        return None, [f"method={card.method} has no self-teacher"]
    if not Run.open(path).has_checkpoint:
        return None, [f"{path} holds no checkpoint (last.pt), so the maps of its self-teacher are missing"]
    average = ["the student's moving average ships, and these are the maps of the student that was trained"]
    return rebuild_method(path, trust=trust).to(default_device()), average if card.weights == "ema" else []


def load_baseline(path: Path, *, trust: bool = False) -> Callable[[Image.Image], list[Tensor]]:
    """A function that gives the maps of another run's student for an image."""
    card = read_complete_card(path, trust=trust)
    student = load_student(path, trust=trust).to(default_device())
    taps, transform = Taps(student, card.student.image_shape), find_task(card.task).eval_transform(card.data)
    return lambda image: run_networks(student, taps, None, transform.show(image)[None].to(default_device()))[STUDENT]


def run_networks(student: nn.Module, taps: Taps, method: Method | None, images: Tensor) -> dict[str, list[Tensor]]:
    """The student's maps, and the self-teacher's where there is one."""
    with set_mode(method or student, training=False):
        pair = method.compare_maps(images) if method else None
        features = taps(images)[1]
    return {STUDENT: features} if pair is None else {STUDENT: features, SELF_TEACHER: pair[1]}


def to_attention(feature: Tensor) -> np.ndarray:
    return compute_attention(feature.float().cpu().numpy())[0]


def restore_pixels(image: Tensor, card: StudentCard) -> np.ndarray:
    """The pixels (H, W, 3), uint8, of a normalized image (c, H, W)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.data.mean, card.data.std))
    pixels = (255 * (image * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return (pixels[:1].expand(3, -1, -1) if len(pixels) < 3 else pixels[:3]).permute(1, 2, 0).contiguous().numpy()


def draw_explanation(image: ExplainedImage, levels: Sequence[str]) -> Image.Image:
    """The image, and a row of attention maps for each network; the student's row ends in the class activation map."""
    scale = -(-NARROWEST // image.pixels.shape[1])  # small images are enlarged before the smooth maps are drawn
    pixels, rows = image.pixels.repeat(scale, axis=0).repeat(scale, axis=1), {}
    for name, maps in image.attention.items():
        drawn = [Image.fromarray(draw_attention(pixels, attention)) for attention in maps[-len(levels) :]]
        rows[name] = [None, *[None] * (len(levels) - len(drawn)), *drawn, None]
    first = next(iter(rows))
    rows[first][0] = Image.fromarray(pixels)
    columns = ["image", *levels]
    if image.activation is not None:
        rows[STUDENT][-1] = Image.fromarray(draw_attention(pixels, image.activation))
        columns.append(f"for {image.activated}")
    return draw_grid({name: panels[: len(columns)] for name, panels in rows.items()}, columns)


def write_pictures(explanation: Explanation, folder: Path) -> Path:
    """Writes a PNG for each image and index.html, which shows them all."""
    pictures = {}
    for number, image in enumerate(explanation.images, 1):
        short = Path(re.sub(r"[^\s/]*/", "", image.name)).stem  # "row 5 of x/y.parquet" too
        name = f"{number:03d}-{make_file_name(short)[:60]}.png"
        pictures[name] = draw_explanation(image, explanation.levels)
        with replace_file(folder / name, durable=False) as temporary:
            pictures[name].save(temporary)
    write_text(folder / "index.html", to_html(draw_page(explanation, pictures)))
    return folder


def draw_page(explanation: Explanation, pictures: Mapping[str, Image.Image]) -> Element:
    """The page of all pictures, by the names of their files; it holds as many as a page should."""
    rows, budget = [], Budget(BYTES)
    if explanation.distances is not None:
        levels = explanation.levels[-len(explanation.distances) :]
        rows = [[level, f"{d:.3f}"] for level, d in zip(levels, explanation.distances, strict=True)]
    caption = "Squared distance of student and self-teacher, 0 to 2, mean over images"
    sections = []
    for image, (name, picture) in zip(explanation.images, pictures.items(), strict=True):
        label = f", labeled {image.label}" if image.label is not None else ""
        title = f"{image.name}: {image.predicted}{label}"
        shown = budget.show(picture, f"Attention maps of {title}", side=WIDEST)
        box = element("div", shown or f"See {name} beside this page.", class_="scroll")
        sections.append(element("section", element("h2", title), box))
    return draw_document(
        "Attention maps",
        element("header", element("h1", "Attention maps"), element("p", LEAD)),
        element("main", table(["level", "distance"], rows, caption, sortable=False) if rows else None, sections),
    )
