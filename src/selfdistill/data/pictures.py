"""Pictures of what a segmenter says: masks over images, with a legend, and beside their labels."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import escape_controls
from .datasets.conversion import convert_channels

Color = tuple[int, int, int]  # red, green, blue, 0 to 255

PAPER, INK = (250, 250, 250), (20, 20, 20)
WRONG: Color = (230, 25, 40)
HATCH = 6  # pixels from one stripe of void to the next
SWATCH, ROW, TEXT = 12, 20, 12  # pixels: side of a color in the legend, height of its rows, height of letters
NARROWEST = 160  # pixels; smaller pictures are enlarged beside each other, and get a legend of this width
WIDEST = 640  # of each picture beside others
MOST_ENTRIES = 24  # of a legend


def draw_overlay(
    image: Image.Image, classes: Int64[Tensor, "h w"], colors: Sequence[Color], *, opacity: float = 0.5
) -> Image.Image:
    """Blends the color of each pixel's class over the image, in RGB.

    Pixels beside another class get the pure color of their class, so that borders stand out. Pixels with a negative
    number have no class, and white stripes.
    """
    numbers = classes.cpu().numpy()
    colors_of_pixels = np.array([*colors], dtype=np.float32)[numbers.clip(min=0)]
    share = np.where(_find_borders(numbers), 1.0, opacity) * (numbers >= 0)
    picture = np.asarray(convert_channels(image, 3), dtype=np.float32)
    blended = picture + share[..., None] * (colors_of_pixels - picture)
    return _hatch(blended, numbers < 0)


def draw_errors(image: Image.Image, classes: Int64[Tensor, "h w"], labels: Int64[Tensor, "h w"]) -> Image.Image:
    """Shows in red where `classes` differ from `labels`, over the image in pale gray; void has white stripes."""
    predicted, wanted = classes.cpu().numpy(), labels.cpu().numpy()
    gray = np.asarray(convert_channels(convert_channels(image, 1), 3), dtype=np.float32)
    picture = 128 + gray / 4
    picture[(predicted != wanted) & (wanted >= 0)] = WRONG
    return _hatch(picture, wanted < 0)


def draw_comparison(
    image: Image.Image,
    classes: Int64[Tensor, "h w"],
    labels: Int64[Tensor, "h w"],
    *,
    names: Sequence[str],
    colors: Sequence[Color],
) -> Image.Image:
    """The image, its label, the prediction and the errors side by side, above a legend."""
    labeled = labels >= 0
    wrong = (classes != labels)[labeled].float().mean().item() if labeled.any() else 0.0
    panels = {
        "image": convert_channels(image, 3),
        "label": draw_overlay(image, labels, colors),
        "prediction": draw_overlay(image, classes, colors),
        f"errors: {wrong:.1%}": draw_errors(image, classes, labels),
    }
    scaled = {title: _fit(panel) for title, panel in panels.items()}
    width, height = next(iter(scaled.values())).size
    row = Image.new("RGB", (len(scaled) * (width + 4) - 4, height + ROW), PAPER)
    drawing = ImageDraw.Draw(row)
    for number, (title, panel) in enumerate(scaled.items()):
        row.paste(panel, (number * (width + 4), ROW))
        drawing.text((number * (width + 4) + 4, 3), title, fill=INK, font=_load_font())
    present = sorted({*classes.unique().tolist(), *labels.unique().tolist()})
    return add_legend(row, [(names[k], colors[k]) for k in present if k >= 0], void=bool((~labeled).any()))


def draw_grid(rows: Mapping[str, Sequence[Image.Image | None]], columns: Sequence[str]) -> Image.Image:
    """Pictures of one size in rows and columns with titles; None leaves a place empty. Small pictures are enlarged."""
    font, gap = _load_font(), 4
    scaled = {title: [panel and _fit(panel) for panel in panels] for title, panels in rows.items()}
    width, height = next(panel.size for panels in scaled.values() for panel in panels if panel)
    left = max(round(font.getlength(escape_controls(title))) for title in rows) + 3 * gap
    size = (left + len(columns) * (width + gap), ROW + len(rows) * (height + gap))
    grid = Image.new("RGB", size, PAPER)
    drawing = ImageDraw.Draw(grid)
    for number, title in enumerate(columns):
        drawing.text((left + number * (width + gap), 3), escape_controls(title), fill=INK, font=font)
    for row, (title, panels) in enumerate(scaled.items()):
        top = ROW + row * (height + gap)
        drawing.text((gap, top + height // 2), escape_controls(title), fill=INK, font=font)
        for number, panel in enumerate(panels):
            if panel is not None:
                grid.paste(panel, (left + number * (width + gap), top))
    return grid


def add_legend(picture: Image.Image, entries: Sequence[tuple[str, Color]], *, void: bool = False) -> Image.Image:
    """Adds a strip below the picture with the name and the color of each class, and of void if there is any."""
    font = _load_font()
    shown = [(escape_controls(name), color) for name, color in entries[:MOST_ENTRIES]]
    if len(entries) > MOST_ENTRIES:
        shown.append((f"and {len(entries) - MOST_ENTRIES} more", PAPER))
    if void:
        shown.append(("void", None))
    width = max(picture.width, NARROWEST)
    places, x, y = [], 4, 0
    for name, _ in shown:
        needed = SWATCH + 4 + round(font.getlength(name)) + 10
        if x > 4 and x + needed > width:
            x, y = 4, y + ROW
        places.append((x, y))
        x += needed
    whole = Image.new("RGB", (width, picture.height + y + ROW + 4), PAPER)
    whole.paste(picture)
    drawing = ImageDraw.Draw(whole)
    for (name, color), (left, top) in zip(shown, places, strict=True):
        top += picture.height + 4
        swatch = Image.new("RGB", (SWATCH, SWATCH), color or (110, 110, 110))
        if color is None:
            swatch = _hatch(np.asarray(swatch, dtype=np.float32), np.ones((SWATCH, SWATCH), dtype=bool))
        whole.paste(swatch, (left, top + 1))
        drawing.text((left + SWATCH + 4, top), name, fill=INK, font=font)
    return whole


def _load_font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(TEXT)


def _fit(picture: Image.Image) -> Image.Image:
    """Enlarges a small picture by a whole number, and reduces a large one."""
    if picture.width < NARROWEST:
        factor = -(-NARROWEST // picture.width)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if picture.width > WIDEST:
        return picture.resize((WIDEST, max(picture.height * WIDEST // picture.width, 1)), Image.Resampling.BILINEAR)
    return picture


def _hatch(picture: np.ndarray, where: np.ndarray) -> Image.Image:
    """An image of the pixels (h, w, 3), with white diagonal stripes `where` there is no class."""
    rows, columns = np.indices(where.shape)
    stripes = where & ((rows + columns) % HATCH < HATCH // 3)
    return Image.fromarray(np.where(stripes[..., None], 255, picture).round().astype(np.uint8))


def _find_borders(numbers: np.ndarray) -> np.ndarray:
    """Marks the pixels (h, w) with a different number in one of the four pixels beside them."""
    borders = np.zeros(numbers.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = numbers[one] != numbers[other]
        borders[one] |= differs
        borders[other] |= differs
    return borders
