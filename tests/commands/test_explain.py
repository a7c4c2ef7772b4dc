"""explain, as a user calls it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.build.teacher import rebuild_method
from selfdistill.commands.explain import SELF_TEACHER, STUDENT, explain_images, list_held_out, list_seen
from selfdistill.losses import attention_transfer
from selfdistill.runs.student import read_card
from selfdistill.tasks import find_task


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number, size in enumerate([(40, 30), (61, 77)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"<b>{number}.png")
    return folder


def test_it_writes_a_picture_of_each_image_and_a_page(run, digits_run, photographs, tmp_path):
    code, out, err = run("explain", digits_run, photographs, "--baseline", digits_run, "--out", tmp_path / "x")
    assert code == 0, err
    assert [line.partition("\t")[0] for line in out.splitlines()[1:-1]] == ["layer1", "layer2", "layer3"]
    page = (tmp_path / "x" / "index.html").read_text()
    assert "<b>0" not in page and page.count("<img ") == 2
    pictures = sorted((tmp_path / "x").glob("*.png"))
    assert page.count("data:image/jpeg;base64,") == len(pictures) == 2 and "<script" not in page
    with Image.open(pictures[0]) as first, Image.open(pictures[1]) as second:
        assert first.size == second.size and len(first.getcolors(maxcolors=10**6)) > 100


def test_distances_are_those_of_the_feature_loss(digits_run):
    seen = list_held_out(digits_run, 3)
    explanation = explain_images(digits_run, seen)
    method, card = rebuild_method(digits_run).eval(), read_card(digits_run)
    images = torch.stack([find_task(card.task).eval_transform(card.data).show(image.image) for image in seen])
    both = method.both(images)
    for level, distance in enumerate(explanation.distances):
        expected = attention_transfer(both.features[level], both.refined[level]).item()
        positions = both.features[level][0, 0].numel()
        assert distance / positions == pytest.approx(expected, rel=1e-4)
    assert explanation.images[0].label in card.classes and explanation.images[0].predicted in card.classes


def test_masks_of_any_size_are_explained(masks_run, photographs):
    images = explain_images(masks_run, list_seen(masks_run, [photographs], 9)).images
    assert [image.pixels.shape for image in images] == [(40, 30, 3), (61, 77, 3)]
    for image in images:
        own, refined = image.attention[STUDENT], image.attention[SELF_TEACHER]
        assert [a.shape for a in own] == [b.shape for b in refined] and image.activation is not None
        assert [np.square(a).sum() for a in own + refined] == pytest.approx([1.0] * 2 * len(own), abs=1e-4)


def test_without_a_checkpoint_the_self_teacher_is_missing_and_it_is_said(run, digits_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(digits_run, copy, ignore=shutil.ignore_patterns("last*.pt"))
    code, out, err = run("explain", copy, "--most", 1)
    assert code == 0 and "holds no checkpoint (last.pt)" in err and "distance" not in out
    assert (copy / "explain" / "index.html").is_file()
    assert SELF_TEACHER not in explain_images(copy, list_held_out(copy, 1)).images[0].attention


def test_a_bad_file_is_named_and_the_others_are_explained(run, digits_run, photographs, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    code, out, err = run("explain", digits_run, bad, photographs, "--out", tmp_path / "x")
    assert code == 0 and "not explained: " in err and "bad.png" in err and "pictures of 2 images" in out
    assert run("explain", digits_run, bad)[0] == 1


def test_chosen_held_out_images_come_in_the_order_asked_for(digits_run):
    both = [list_held_out(digits_run, 0, indices=indices) for indices in ([4, 1], [1])]
    assert both[0][1].name == both[1][0].name != both[0][0].name


def test_a_link_below_the_run_is_not_followed(run, digits_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(digits_run, copy)
    (copy / "explain").symlink_to(tmp_path)
    code, _, err = run("explain", copy, "--most", 1)
    assert code == 1 and "is a link" in err
