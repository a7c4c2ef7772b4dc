"""Pictures of what a segmenter says."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data.pictures import WRONG, add_legend, draw_comparison, draw_errors, draw_grid, draw_overlay

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_an_overlay_blends_inside_and_is_pure_where_another_class_begins():
    classes = torch.zeros(5, 6, dtype=torch.int64)
    classes[:, 3:] = 1
    pixels = np.asarray(draw_overlay(Image.new("RGB", (6, 5), (100, 100, 100)), classes, [RED, BLUE], opacity=0.25))
    inside, border = [139, 75, 75], list(RED)  # 100 + (255 - 100) / 4 and 100 - 100 / 4
    assert pixels[2].tolist() == [inside, inside, border, list(BLUE), [75, 75, 139], [75, 75, 139]]


def test_pixels_without_a_class_are_striped_and_else_as_they_are():
    picture = Image.fromarray(np.arange(12 * 12 * 3, dtype=np.uint32).astype(np.uint8).reshape(12, 12, 3) // 2)
    shown = np.asarray(draw_overlay(picture, torch.full((12, 12), -100), [RED]))
    white = (shown == 255).all(axis=2)
    assert white.any(axis=0).all() and white.any(axis=1).all() and white.mean() == pytest.approx(1 / 3)
    assert np.array_equal(shown[~white], np.asarray(picture)[~white])


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_pictures_of_every_mode_can_be_painted_over(mode):
    image = (
        Image.new("RGB", (4, 3), (50, 50, 50)).convert("L").convert(mode) if mode != "I;16" else Image.new(mode, (4, 3))
    )
    shown = draw_overlay(image, torch.zeros(3, 4, dtype=torch.int64), [GREEN], opacity=1.0)
    assert shown.mode == "RGB" and shown.getpixel((0, 0)) == GREEN


def test_errors_are_red_void_is_striped_and_the_rest_is_pale():
    labels = torch.tensor([[0] * 12, [1] * 12, [-100] * 12])
    shown = np.asarray(
        draw_errors(Image.new("RGB", (12, 3), (40, 80, 120)), torch.zeros(3, 12, dtype=torch.int64), labels)
    )
    assert (shown[1] == WRONG).all() and not (shown[[0, 2]] == WRONG).all(axis=2).any()
    assert (shown[0] == shown[0, 0]).all() and len(set(shown[0, 0].tolist())) == 1
    assert (shown[2] == 255).all(axis=1).sum() == 4


@pytest.mark.parametrize("size", [(3, 2), (200, 100), (1300, 40)])
def test_a_comparison_shows_four_pictures_and_a_legend_of_what_is_in_them(size):
    width, height = size
    classes, labels = torch.zeros(height, width, dtype=torch.int64), torch.zeros(height, width, dtype=torch.int64)
    labels[:, 1:] = 2
    picture = draw_comparison(
        Image.new("RGB", size, (90, 90, 90)), classes, labels, names=["a", "b", "c"], colors=[RED, GREEN, BLUE]
    )
    panel = {3: 162, 200: 200, 1300: 640}[width]
    assert picture.width == 4 * panel + 12
    pixels = np.asarray(picture)[-24:].reshape(-1, 3).tolist()  # the legend
    assert list(RED) in pixels and list(BLUE) in pixels and list(GREEN) not in pixels
    everywhere = np.asarray(picture).reshape(-1, 3).tolist()
    assert list(WRONG) in everywhere


def test_a_legend_is_below_the_picture_and_wraps():
    picture = Image.new("RGB", (300, 50), GREEN)
    short = add_legend(picture, [("road", RED)])
    assert short.width == 300 and short.crop((0, 0, 300, 50)).tobytes() == picture.tobytes()
    long = add_legend(picture, [(f"class with a name {k}", (k, k, 200)) for k in range(30)], void=True)
    assert long.width == 300 and long.height > short.height + 100
    assert add_legend(Image.new("RGB", (8, 8)), [("猫\x1b[31m", RED)]).width > 8  # small, with a name of any script


def test_a_grid_has_titles_and_leaves_places_empty():
    tile = Image.new("RGB", (200, 100), RED)
    grid = draw_grid({"a\x1b": [tile, None], "longer": [None, tile]}, ["one", "two"])
    pixels = np.asarray(grid)
    red = (pixels == RED).all(axis=2)
    assert red.sum() == 2 * 200 * 100 and not red[:20].any()
    rows = red.any(axis=1).nonzero()[0]
    assert rows[-1] - rows[0] + 1 == 204
