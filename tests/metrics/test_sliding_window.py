"""Class scores of whole images and of windows: every pixel is seen, and overlaps are averaged."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.metrics.sliding_window import WINDOWS_AT_ONCE, list_window_starts, score_map


class Pointwise(nn.Module):
    """Looks at single pixels, and remembers what shapes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.conv(images).tanh()


class Whereabouts(nn.Module):
    """Scores that depend on the place in the window alone."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return (torch.arange(height)[:, None] * 100.0 + torch.arange(width)).expand(len(images), 1, height, width)


@pytest.mark.parametrize("shape", [(1, 3, 17, 23), (3, 3, 40, 9), (2, 3, 5, 30), (1, 3, 4, 4), (1, 3, 8, 12)])
@torch.no_grad()
def test_windows_of_a_pointwise_network_give_what_the_whole_image_gives(shape: tuple[int, ...]) -> None:
    student, images = Pointwise(), torch.randn(shape)
    whole = score_map(student, images, shape[2:])
    student.seen.clear()
    torch.testing.assert_close(score_map(student, images, shape[2:], window=(8, 12)), whole)
    assert {seen[2:] for seen in student.seen} == {(8, 12)} and max(seen[0] for seen in student.seen) <= WINDOWS_AT_ONCE


@torch.no_grad()
def test_a_constant_network_gives_a_constant_map() -> None:
    student = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(student.weight)
    found = score_map(student, torch.randn(1, 3, 31, 19), (50, 60), window=(7, 7))
    torch.testing.assert_close(found, student.bias[None, :, None, None].expand(1, 2, 50, 60))


@pytest.mark.parametrize("window", range(1, 14))
@pytest.mark.parametrize("more", [0, 1, 5, 20])
def test_windows_reach_both_ends_and_overlap_by_a_third(window: int, more: int) -> None:
    found = list_window_starts(window + more, window)
    assert found[0] == 0 and found[-1] == more and found == sorted(set(found))
    assert all(b - a <= max(1, round(2 * window / 3)) for a, b in zip(found, found[1:], strict=False))
    assert len(found) == 1 + -(-more // max(1, round(2 * window / 3)))  # and no more of them than that needs


def test_overlapping_windows_are_averaged() -> None:
    found = score_map(Whereabouts(), torch.zeros(1, 3, 7, 8), (7, 8), window=(6, 6))[0, 0]
    for y in range(7):
        for x in range(8):
            places = [(y - top, x - left) for top in (0, 1) for left in (0, 2)]
            seen = [100.0 * v + u for v, u in places if 0 <= v < 6 and 0 <= u < 6]
            assert found[y, x].item() == pytest.approx(sum(seen) / len(seen))


def test_images_smaller_than_the_window_stand_in_its_corner() -> None:
    shown = []
    student = nn.Identity()
    student.register_forward_hook(lambda module, args, output: shown.append(args[0]))
    images = torch.randn(1, 3, 4, 5)
    assert torch.equal(score_map(student, images, (4, 5), window=(6, 8)), images)
    assert torch.equal(shown[0], F.pad(images, (0, 3, 0, 2)))


@pytest.mark.parametrize("window", [None, (6, 6)])
@torch.no_grad()
def test_scores_are_resized_bilinearly_and_images_do_not_meet(window: tuple[int, int] | None) -> None:
    student, images = nn.Conv2d(3, 4, 3, padding=1), torch.randn(3, 3, 10, 8)
    together = score_map(student, images, (25, 17), window=window)
    assert together.shape == (3, 4, 25, 17)
    for image, found in zip(images.split(1), together.split(1), strict=True):
        plain = score_map(student, image, (10, 8), window=window)
        resized = F.interpolate(plain, size=(25, 17), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, resized)


def test_half_precision_scores_become_float32() -> None:
    images = torch.randn(1, 3, 4, 4).half()
    assert score_map(nn.Identity(), images, (4, 4), window=(3, 3)).dtype == torch.float32


@pytest.mark.parametrize("student", [nn.AvgPool2d(2), nn.Flatten()])
@pytest.mark.parametrize("window", [None, (4, 4)])
def test_a_student_that_does_not_score_pixels_is_refused(student: nn.Module, window: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match=r"have shape .* and segmentation needs \(\d, classes, \d, \d\)"):
        score_map(student, torch.zeros(1, 3, 8, 8), (8, 8), window=window)
