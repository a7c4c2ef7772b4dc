"""Class weights of a recipe become numbers, which the run's recipe holds."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from selfdistill.build import build
from selfdistill.config.read import parse

COUNTS = {"cat": 40, "dog": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of gray images, one ten times as frequent."""
    folder = tmp_path_factory.mktemp("uneven")
    draw = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / "train" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(draw.integers(256, size=(16, 16), dtype=np.uint8)).save(folder / f"train/{name}/{i}.png")
    return folder


def recipe(folder, **task):
    return parse(
        {
            "data": {"source": str(folder), "val_fraction": 0.25},
            "task": task,
            "student": "helpers.plain_students:classifier",
            "method": "baseline",
            "max_steps": 1,
            "batch_size": 8,
            "precision": "fp32",
        }
    )


def test_automatic_weights_are_those_of_the_training_images_and_stay_in_the_recipe(folder):
    built = build(recipe(folder, class_weights="auto"))
    labels = built.train_set.dataset.labels.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    np.testing.assert_allclose(built.recipe.task.class_weights, expected)
    assert any("task.class_weights=auto: from 0.55 for 'cat' to 5.5 for 'dog'" in note for note in built.notes)
    again = build(built.recipe)
    assert again.recipe.task == built.recipe.task and not any("class_weights" in note for note in again.notes)
    torch.testing.assert_close(again.method.task.class_weights.float(), torch.tensor(expected, dtype=torch.float32))


def test_weights_are_given_by_name_or_in_order(folder):
    assert build(recipe(folder, class_weights={"dog": 3})).recipe.task.class_weights == [1, 3]
    assert build(recipe(folder, class_weights=[2, 5])).recipe.task.class_weights == [2, 5]
    with pytest.raises(ValueError, match="names 'dgo', and the classes are 'cat', 'dog'"):
        build(recipe(folder, class_weights={"dgo": 3}))
    with pytest.raises(ValueError, match="there are 3 class weights, and the task has 2 classes"):
        build(recipe(folder, class_weights=[1, 2, 3]))
    with pytest.raises(ValueError, match="task.gamma=3.0 has no effect with task.loss=cross_entropy"):
        build(recipe(folder, gamma=3))


def test_a_balanced_sampler_is_refused_where_it_has_no_meaning(folder):
    data = {"source": str(folder), "val_fraction": 0.25, "sampler": "balanced"}
    common = {"data": data, "student": "helpers.plain_students:classifier", "max_steps": 1, "batch_size": 8}
    built = build(parse({**common, "method": "baseline"}))
    assert "data.sampler=balanced: an epoch shows an image of 'dog' 5.5 times" in " ".join(built.notes)
    with pytest.raises(ValueError, match="several times in an epoch, and method=ps_kd learns from what it said"):
        build(parse({**common, "method": "ps_kd"}))
    with pytest.raises(ValueError, match="even out the same classes twice"):
        build(parse({**common, "method": "baseline", "task": {"class_weights": "auto"}}))
    with pytest.raises(ValueError, match="data.sampler=balanced needs one class for each image"):
        build(parse({"task": "segmentation", "data": {"sampler": "balanced"}, "method": "baseline"}))


def test_weights_of_masks_count_labeled_pixels():
    settings = {
        "task": {"kind": "segmentation", "class_weights": "auto"},
        "data": {"source": "scenes", "limit": 6, "image_size": 32, "void": [2, 255]},
        "student": "helpers.plain_students:segmenter",
    }
    built = build(parse({**settings, "method": "baseline", "max_steps": 1, "batch_size": 2, "precision": "fp32"}))
    dataset = built.train_set.dataset
    pixels = torch.cat([dataset.mask(i).flatten() for i in range(len(dataset))])
    pixels = pixels[pixels >= 0].numpy()
    expected = compute_class_weight("balanced", classes=np.unique(pixels), y=pixels)
    weights = np.array(built.recipe.task.class_weights)
    np.testing.assert_allclose(weights[np.unique(pixels)], expected)
    np.testing.assert_allclose(weights[pixels].mean(), 1)
