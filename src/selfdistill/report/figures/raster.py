"""Figures as pixels, for programs that take no SVG.

It draws what `plot` writes and nothing else: lines, rectangles, circles, polygons, paths of straight lines, and text.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..elements import Element, Number
from ..style import own_style

SCALE, FINER = 2, 2  # pixels of a picture for one of the figure, and how many times finer it is drawn
RULE = re.compile(r"([^{}]+)\{([^}]*)\}")
PLACE = re.compile(r"-?[\d.]+")
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
PLAIN = str.maketrans({"×": "x", "−": "-", "–": "-", "…": "..", "“": '"', "”": '"'})  # every font has these
Point = tuple[Number, Number]


class Rule(NamedTuple):
    """Properties of elements that have all of these classes, and perhaps a name."""

    name: str
    classes: frozenset[str]
    properties: dict[str, str]


def rasterize(svg: Element) -> Image.Image:
    """A drawn figure as a picture, twice its size, on white."""
    finer = SCALE * FINER
    width, height = (int(svg.attributes[side]) for side in ("width", "height"))
    picture = Image.new("RGB", (width * finer, height * finer), "white")
    drawing = ImageDraw.Draw(picture, "RGBA")  # which blends
    for part in list_parts(svg):
        draw_part(part, picture, drawing, finer)
    return picture.resize((width * SCALE, height * SCALE), Image.Resampling.BOX)


def list_parts(whole: Element) -> Iterator[Element]:
    """The elements in their order, without titles and descriptions."""
    for child in whole.children:
        if isinstance(child, Element) and child.name not in ("title", "desc", "style"):
            yield child
            if child.name != "text":
                yield from list_parts(child)


@cache
def read_rules() -> tuple[Rule, ...]:
    """The rules of the figures' style sheet; of "a b" the last part counts."""
    rules = []
    for selectors, text in RULE.findall(own_style().text):
        properties = dict(part.strip().split(":", 1) for part in text.split(";") if ":" in part)
        for selector in selectors.split(","):
            name, *classes = selector.split()[-1].split(".")
            rules.append(Rule(name, frozenset(classes), properties))
    return tuple(rules)


def find_style(part: Element) -> dict[str, str]:
    """The properties of an element; later rules win."""
    return _find_style(part.name, part.attributes.get("class", ""))


@cache
def _find_style(name: str, classes: str) -> dict[str, str]:
    style, known = {"fill": "#000000"}, frozenset(classes.split())
    for rule in read_rules():
        if rule.name in ("", name) and rule.classes <= known:
            style |= rule.properties
    return style


def draw_part(part: Element, picture: Image.Image, drawing: ImageDraw.ImageDraw, scale: int) -> None:
    """Draws one element."""
    style, attributes = find_style(part), part.attributes
    fill, stroke = (find_color(style, name) for name in ("fill", "stroke"))
    width = max(1, round(float(style.get("stroke-width", 1)) * scale))

    def place(*names: str) -> list[Number]:
        return [scale * float(attributes[name]) for name in names]

    match part.name:
        case "text":
            draw_text(part, picture, drawing, scale, fill or (0, 0, 0, 255))
        case "line":
            x1, y1, x2, y2 = place("x1", "y1", "x2", "y2")
            draw_line([(x1, y1), (x2, y2)], drawing, stroke, width, read_dashes(style, scale))
        case "rect":
            x, y, w, h = place("x", "y", "width", "height")
            if w >= 1 and h >= 1:
                drawing.rectangle((x, y, x + w - 1, y + h - 1), fill=fill, outline=stroke, width=width)
        case "circle":
            x, y, r = place("cx", "cy", "r")
            drawing.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=stroke, width=width)
        case "polygon" | "path":
            numbers = [
                scale * float(number) for number in PLACE.findall(attributes.get("points", attributes.get("d", "")))
            ]
            points = list(zip(numbers[::2], numbers[1::2], strict=True))
            if part.name == "polygon" or attributes["d"].endswith("Z"):
                drawing.polygon(points, fill=fill, outline=stroke, width=width)
            else:
                draw_line(points, drawing, stroke, width, read_dashes(style, scale))


def find_color(style: dict[str, str], name: str) -> tuple[int, ...] | None:
    """Red, green, blue and opacity, each to 255; None where nothing is drawn."""
    color = style.get(name, "none")
    if color == "none":
        return None
    return (*ImageColor.getrgb(color)[:3], round(255 * float(style.get("opacity", 1))))


def read_dashes(style: dict[str, str], scale: int) -> list[Number]:
    return [scale * float(number) for number in style.get("stroke-dasharray", "").split()]


def draw_line(
    points: Sequence[Point],
    drawing: ImageDraw.ImageDraw,
    color: tuple[int, ...] | None,
    width: int,
    dashes: Sequence[Number],
) -> None:
    if color is None:
        return
    for stretch in cut(points, dashes) if dashes else [points]:
        drawing.line(stretch, fill=color, width=width, joint="curve")


def cut(points: Sequence[Point], dashes: Sequence[Number]) -> Iterator[list[Point]]:
    """The stretches of a line that are drawn, of lengths and gaps in turn.

    >>> list(cut([(0, 0), (10, 0)], [4, 3]))
    [[(0, 0), (4.0, 0.0)], [(7.0, 0.0), (10, 0)]]
    """
    turn, left, stretch = 0, dashes[0], [points[0]]
    for (x1, y1), (x2, y2) in zip(points, points[1:], strict=False):
        length, done = math.hypot(x2 - x1, y2 - y1), 0.0
        while length - done > left:
            done += left
            at = (x1 + (x2 - x1) * done / length, y1 + (y2 - y1) * done / length)
            if turn % 2 == 0:
                yield [*stretch, at]
            turn += 1
            left, stretch = dashes[turn % len(dashes)], [at]
        left -= length - done
        stretch.append((x2, y2))
    if turn % 2 == 0 and len(stretch) > 1:
        yield stretch


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """A font of the system with many letters, else Pillow's own, which has those of English."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)  # type: ignore[return-value]


def draw_text(
    part: Element, picture: Image.Image, drawing: ImageDraw.ImageDraw, scale: int, color: tuple[int, ...]
) -> None:
    """Text from its anchor; turned text is drawn apart, turned around its anchor, and laid over the picture."""
    content = "".join(child for child in part.children if isinstance(child, str)).translate(PLAIN)
    font = load_font(round(float(find_style(part).get("font-size", "11px").removesuffix("px")) * scale))
    x, y = (scale * float(part.attributes[name]) for name in ("x", "y"))
    anchor = ANCHORS[part.attributes.get("text-anchor", "start")]
    if "transform" not in part.attributes:
        drawing.text((x, y), content, fill=color, font=font, anchor=anchor)
        return
    reach = math.ceil(font.getlength(content)) + 4 * scale
    layer = Image.new("RGBA", (2 * reach, 2 * reach))
    ImageDraw.Draw(layer).text((reach, reach), content, fill=color, font=font, anchor=anchor)
    degrees = float(PLACE.findall(part.attributes["transform"])[0])
    turned = layer.rotate(-degrees, Image.Resampling.BILINEAR)
    picture.paste(turned, (round(x) - reach, round(y) - reach), turned)
