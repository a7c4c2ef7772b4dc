"""eval --robust, as a user calls it."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.commands.robustness import CLEAN, make_batch
from selfdistill.data import Sample
from selfdistill.data.corruptions import CORRUPTIONS, corrupt
from selfdistill.runs.student import read_card
from selfdistill.tasks import find_task


def scores(run, *words):
    code, out, err = run("eval", *words, "--robust", "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.slow
def test_clean_scores_are_those_of_eval_and_masks_stay(run, masks_run):
    (result,) = scores(run, masks_run)
    plain = json.loads(run("eval", masks_run, "--json")[1])
    assert result["clean"]["miou"] == pytest.approx(plain["miou"]) and result["clean"]["iou"] == plain["iou"]
    code, out, err = run("eval", masks_run, "--robust", "--most", 1)
    assert code == 0 and "severity 5" in out and "defocus_blur" in out and "1 of 2 images are scored" in err


@pytest.mark.slow
def test_every_cell_is_there_and_several_runs_make_one_table(run, digits_run, tmp_path):
    (result,) = scores(run, digits_run, "--most", 4)
    assert list(result["corruptions"]) == list(CORRUPTIONS) and result["clean"]["count"] == 4
    tops = [cell["top1"] for cells in result["corruptions"].values() for cell in cells]
    assert len(tops) == 5 * len(CORRUPTIONS) and result["mean"]["top1"] == pytest.approx(np.mean(tops))
    shutil.copytree(digits_run, tmp_path / "copy")
    code, out, _ = run("eval", digits_run, tmp_path / "copy", "--robust", "--most", 1)
    assert code == 0 and "copy" in out and "severity" not in out


def test_an_image_is_corrupted_at_the_size_that_the_network_sees(digits_run):
    data = read_card(digits_run).data
    transform = find_task("classification").eval_transform(data)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    sample = transform.cached(Sample(photo.resize((80, 80), Image.Resampling.NEAREST), torch.tensor(3)))
    images = [make_batch([sample] * 2, transform, cell)[0] for cell in (CLEAN, ("contrast", 5))]
    assert torch.equal(images[0][0], transform.show(sample.image))
    assert torch.equal(images[1][1], transform.show(corrupt(sample.image, "contrast", 5)))
    assert make_batch([sample], transform, CLEAN)[1].tolist() == [3]


def test_most_alone_has_no_effect_and_is_refused(run, digits_run):
    assert "no effect without --robust" in run("eval", digits_run, "--most", 3)[2]
