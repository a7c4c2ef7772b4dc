"""Students that start from files of weights: names, prefixes, shapes, and what is said of them."""

import pytest
import torch
from torch import nn

from selfdistill.build.start import load_start
from selfdistill.config.recipe import StudentPart
from selfdistill.models import build_student
from selfdistill.tasks import Task


def start(path, stored, *, name="cifar:resnet8", classes=10, channels=3, size=16, kind="classification"):
    """The student that starts from what is stored in a file, and what is said of it."""
    torch.save(stored, path / "weights.pth")
    task = Task(kind, classes, (channels, size, size))
    student = build_student(name, num_classes=classes, image_shape=task.image_shape, output=task.output)
    part = StudentPart(name=name, start=str(path / "weights.pth"))
    return student, load_start(student, part, task, [str(k) for k in range(classes)])


def weights(name="cifar:resnet8", classes=10, channels=3, size=16):
    student = build_student(name, num_classes=classes, image_shape=(channels, size, size))
    return {key: value + 0.5 if value.is_floating_point() else value for key, value in student.state_dict().items()}


def prefixed(stored, prefix):
    return {prefix + name: value for name, value in stored.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.model.encoder."])
@pytest.mark.parametrize("key", ["", "state_dict", "model"])
def test_prefixes_and_nesting_are_found(tmp_path, prefix, key):
    stored = prefixed(weights(), prefix)
    student, notes = start(tmp_path, {key: stored, "epoch": 3} if key else stored)
    assert torch.equal(student.conv1.weight, stored[f"{prefix}conv1.weight"])
    total = len(student.state_dict())
    assert len(notes) == 1 and f"{total} of {total} tensors are loaded" in notes[0] and prefix in notes[0]
    assert notes[0].endswith("the scores are taken to be of these classes, in this order")


def test_of_several_networks_the_average_is_taken(tmp_path):
    teacher, student = weights(), weights()
    stored = {
        "student": prefixed(student, "module.backbone."),
        "teacher": prefixed(teacher, "backbone.") | {"head.mlp.0.weight": torch.zeros(3)},
    }
    loaded, notes = start(tmp_path, stored)
    assert torch.equal(loaded.conv1.weight, teacher["conv1.weight"]) and "nested under 'teacher'" in notes[0]
    assert notes[-1] == "not used, as the network has no such tensors: head.mlp.0.weight"


def test_a_head_of_another_size_is_drawn_as_small_as_torch_draws_it(tmp_path):
    stored = weights("timm:efficientnet_lite0")
    student, notes = start(tmp_path, stored, name="timm:efficientnet_lite0", classes=4)
    bound = student.classifier.in_features**-0.5  # timm's own draw reaches 0.5 for four classes
    assert 0.9 * bound < student.classifier.weight.abs().max() <= bound
    assert torch.equal(student.conv_stem.weight, stored["conv_stem.weight"])
    assert notes[1:] == ["drawn anew: classifier.weight, classifier.bias (10 classes in the file, 4 here)"]


def test_a_first_layer_for_colors_is_adapted_to_gray_images(tmp_path):
    stored = weights()
    student, notes = start(tmp_path, stored, channels=1)
    torch.testing.assert_close(student.conv1.weight, stored["conv1.weight"].sum(dim=1, keepdim=True))
    assert "conv1.weight resampled for these images" in notes[0]


def test_entries_in_the_same_order_are_paired_where_their_names_differ(tmp_path):
    stored = {f"_{key.replace('.', '_')}.{key.rpartition('.')[2]}": value for key, value in weights().items()}
    student, notes = start(tmp_path, stored, classes=4, channels=1)
    assert torch.equal(student.bn1.bias, stored["_bn1_bias.bias"]) and "by their order" in notes[0]
    assert "10 classes in the file, 4 here" in notes[1]


def test_a_classifier_s_file_starts_an_encoder(tmp_path):
    stored = {"model_state_dict": prefixed(weights("timm:resnet18", size=64), "module.")}
    student, notes = start(tmp_path, stored, name="smp:Unet/resnet18", size=32, kind="segmentation", classes=3)
    assert torch.equal(student.encoder.conv1.weight, stored["model_state_dict"]["module.conv1.weight"])
    assert "120 of" in notes[0] and "into 'encoder.'" in notes[0] and "decoder.blocks.0" in notes[1]


def test_a_network_of_another_kind_is_refused_with_names_of_both_sides(tmp_path):
    with pytest.raises(ValueError, match="fits cifar:resnet8, by name and shape: the file has 0.weight, 0.bias, and"):
        start(tmp_path, nn.Sequential(nn.Linear(3, 3)).state_dict())
    broken = weights()
    broken["conv1.weight"][0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values, in conv1.weight"):
        start(tmp_path, broken)
