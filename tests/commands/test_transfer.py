"""transfer, as a user calls it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.commands.transfer import split_rows


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Images of three classes that any network tells apart: dark, bright, and half of each."""
    folder = tmp_path_factory.mktemp("shapes")
    for k, name in enumerate(("bright", "dark", "half")):
        (folder / name).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(10 * k + i).integers(0, 40, (12, 12), dtype=np.uint8)
            pixels[:, : (12, 0, 6)[k]] += 200
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.slow
def test_features_are_tried_by_both_ways_beside_an_untrained_network(run, digits_run, shapes):
    code, out, err = run("transfer", digits_run, f"data={shapes}", "seeds=2", "--json")
    assert code == 0, err
    trained, untrained = (json.loads(line) for line in out.splitlines())
    assert trained["run"] == str(digits_run) and untrained["run"] == "cifar:resnet8, untrained"
    assert len(trained["linear"]) == 2 and len(trained["neighbors"]) == 1 and trained["linear"][0] == 1.0
    assert trained["chance"] == pytest.approx(1 / 3) and trained["split"] == "val"


def test_a_table_tells_chance_and_error(run, digits_run, shapes):
    code, out, err = run("transfer", digits_run, f"data={shapes}")
    assert code == 0, err
    assert "6 images of val" in out and "100.00 ± 0.00" in out and "33.33" in out and "the input of fc" in out
    assert err.count("held out") == 1


def test_a_segmenter_is_tried_by_its_deepest_map(run, masks_run, shapes):
    code, out, err = run("transfer", masks_run, f"data={shapes}", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["features"] == "the mean of blocks.2"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data=digits"], "name the run folders"),
        (["RUN"], "data=DATA is missing"),
        (["RUN", "data=digits", "epochs=3"], "epochs= has no effect on transfer"),
        (["RUN", "data=digits", "data.image_size=9"], "as its own training images"),
    ],
)
def test_what_has_no_effect_is_refused(run, digits_run, words, sentence):
    code, _, err = run("transfer", *(digits_run if word == "RUN" else word for word in words))
    assert code == 1 and sentence in err


def test_rows_are_split_class_by_class():
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    kept, held = split_rows(labels, 0)
    assert labels[held].tolist() == [0, 0, 1] and sorted([*kept.tolist(), *held.tolist()]) == list(range(13))
    assert not torch.equal(held, split_rows(labels, 1)[1])
