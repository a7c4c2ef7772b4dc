import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.recipes import ALL, BASES, CLASSES, FILES, PAPER, ROOT, name_of, recipe_of
from helpers.tasks import CLASSIFICATION
from selfdistill.config.files import load_with_bases
from selfdistill.config.header import FROM_BASE, read_header, read_own_header
from selfdistill.config.names import list_recipes
from selfdistill.config.part import flatten
from selfdistill.config.read import merge_files, read
from selfdistill.config.recipe import DataPart
from selfdistill.data import open_splits
from selfdistill.methods import find_method, list_methods
from selfdistill.tasks import find_task

DENSE = {"voc", "camvid", "cityscapes", "ade20k"}
PUBLISHED = {  # the only accuracies with a source, % top-1 or % mean IoU; a recipe may also quote its control's
    "cifar100/resnet18_frskd": {"77.71"},
    "cifar100/resnet18_frskd_cutmix": {"80.49", "79.23"},
    "cifar100/resnet18_baseline_cutmix": {"79.23"},
    "cifar100/resnet18_bake": {"78.72"},
    "cifar100/resnet18_cs_kd": {"78.01"},
    "cifar100/resnet18_mixskd": {"80.32"},
    "cifar100/resnet18_ps_kd": {"79.18"},
    "cifar100/mobilenetv2_hsakd_resnet50": {"73.51", "78.79", "79.43"},
    "cifar100/mobilenetv2_hsakd_vgg13": {"73.51", "77.45", "79.27"},
    "cifar100/resnet18_teskd": {"79.15"},
    "cifar100/resnet18_tf_kd_reg": {"75.87"},
    "cifar100/resnet18_tf_kd_self": {"75.87"},
    "cifar100/resnet18_zipf_ls": {"77.38", "75.51"},
    "cifar100/resnet20_hsakd_resnet56": {"69.62", "72.58", "73.73"},
    "cifar100/resnet20_kd_tf_fd": {"71.56", "70.62"},
    "cifar100/resnet20_tf_fd": {"70.62", "69.06"},
    "cifar100/resnet20_tfd": {"70.56", "69.06"},
    "cifar100/resnet32x4_hsakd_teacher": {"79.63", "83.73"},
    "cifar100/resnet50_hsakd_teacher": {"79.34", "83.85"},
    "cifar100/resnet56_hsakd_teacher": {"73.44", "77.20"},
    "cifar100/resnet8x4_hsakd_resnet32x4": {"72.95", "77.26", "77.69"},
    "cifar100/shufflenetv1_hsakd_wrn-40-2": {"71.74", "78.51", "80.11"},
    "cifar100/shufflenetv2_hsakd_resnet32x4": {"72.96", "79.93", "80.86"},
    "cifar100/vgg13_hsakd_teacher": {"74.64", "78.48"},
    "cifar100/wrn-16-2_hsakd_wrn-40-2": {"73.57", "77.20", "78.67"},
    "cifar100/wrn-16-2_sskd_wrn-40-2": {"73.57", "76.16"},
    "cifar100/wrn-16-4_ofd": {"79.11", "77.28"},
    "cifar100/wrn-40-1_hsakd_wrn-40-2": {"71.95", "77.00", "78.12"},
    "cifar100/wrn-40-2_hsakd_online": {"76.44", "82.58"},
    "cifar100/wrn-40-2_hsakd_teacher": {"76.45", "80.70"},
    "imagenet/resnet18_hsakd_resnet34": {"69.75", "72.16", "72.39"},
    "imagenet/resnet34_hsakd_teacher": {"73.31", "75.48"},
    "imagenet/resnet18_frskd": {"70.17", "69.76"},
    "imagenet/resnet18_baseline": {"69.76"},
    "imagenet/resnet34_frskd": {"73.75", "73.31"},
    "imagenet/resnet34_baseline": {"73.31"},
    "voc/d0_baseline": {"79.07"},
    "voc/d0_frskd": {"80.55", "79.07"},
    "voc/d1_baseline": {"81.95"},
    "voc/d1_frskd": {"83.88", "81.95"},
    "camvid/DeepLabV3-resnet18_baseline": {"65.90"},
    "camvid/DeepLabV3-resnet18_tf_fd": {"67.01", "65.90"},
    "camvid/DeepLabV3-resnet18_sad": {"66.50", "65.90"},
    "cityscapes/DeepLabV3-resnet18_baseline": {"69.19"},
    "cityscapes/DeepLabV3-resnet18_tf_fd": {"70.83", "69.19"},
    "cityscapes/DeepLabV3-resnet18_sad": {"70.10", "69.19"},
}
FRSKDS = {"frskd", "frskd_sla", "deep_supervision"}
ACCURACY = r"\b[1-9]\d\.\d|%|±"  # what looks like one


def parts_of(path: Path) -> tuple[str, str, str]:
    """Data set, student and variant that a recipe's path names."""
    student, _, variant = path.stem.partition("_")
    return path.parent.name, student, variant


def method_of(variant: str) -> str:
    """The method that the end of a file's name begins with; a mixing, a variant or the teacher may follow it."""
    return max((name for name in list_methods() if f"{variant}_".startswith(f"{name}_")), key=len)


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def test_each_data_set_of_the_paper_has_its_baseline_and_frskd():
    for data in CLASSES:
        variants = {parts_of(path)[2] for path in PAPER if path.parent.name == data}
        wanted = {"baseline", "frskd"} if data in DENSE else {"baseline", "frskd_f", "frskd"}
        assert wanted <= variants, data
    assert {path.parent.name for path in PAPER} == CLASSES.keys()


@every_file
def test_a_file_says_nothing_that_its_base_says_already(path):
    *bases, file = load_with_bases(path)
    if not bases:
        return
    together = merge_files([*bases, file])
    for name in flatten(file.values):
        assert merge_files([*bases, file._replace(values=without(file.values, name))]) != together, name
    own, inherited = read_own_header(path), read_header(bases[-1].path)
    assert not [label for label in FROM_BASE if label in own and own[label] == inherited.get(label)]


def without(values: dict, name: str) -> dict:
    """Nested values without the one that has this dotted name."""
    first, _, rest = name.partition(".")
    others = {key: value for key, value in values.items() if key != first}
    return {**others, first: without(values[first], rest)} if rest else others


def test_every_base_is_built_on_and_every_folder_has_one():
    built_on = {file.path.resolve() for path in ALL for file in load_with_bases(path)[:-1]}
    assert built_on >= set(BASES)
    assert {path.parent for path in BASES if path.stem == "base"} == {path.parent for path in ALL}


def test_bases_are_not_listed_among_the_recipes():
    assert list_recipes() == {name_of(path): path for path in ALL}


def its_method_takes_its_settings(path: Path) -> None:
    method = recipe_of(path).method
    find_method(method.name).validate(method.hyperparameters)


def it_is_for_the_task_of_its_data_and_its_method_too(path: Path) -> None:
    recipe = recipe_of(path)
    dense = path.parent.name in DENSE or path.stem.startswith("scenes")
    several = path.stem.startswith("digit_scenes")
    assert recipe.task.kind == ("segmentation" if dense else "multilabel" if several else "classification")
    assert find_method(recipe.method.name).find_obstacle(find_task(recipe.task.kind), recipe.task.kind) is None


def it_mixes_only_for_methods_that_take_soft_labels(path: Path) -> None:
    recipe = recipe_of(path)
    assert recipe.mix.name == "none" or find_method(recipe.method.name).soft_targets


def its_file_is_named_after_its_student_and_method(path: Path) -> None:
    recipe, (_, student, variant) = recipe_of(path), parts_of(path)
    assert re.sub("[/_]", "-", recipe.student.name.partition(":")[2]) == student
    assert recipe.method.name == method_of(variant)
    mixing = variant.removeprefix(recipe.method.name).lstrip("_")
    assert recipe.mix.name == (mixing if mixing in ("mixup", "cutmix") else "none")
    assert (variant == "frskd_f") == (recipe.method.hyperparameters.get("beta") == 0)


def its_hyperparameters_are_spelled_out(path: Path) -> None:
    given = recipe_of(path).method.hyperparameters
    own = find_method(recipe_of(path).method.name).hyperparameters().keys()
    if method_of(parts_of(path)[2]) in FRSKDS:
        own = {"alpha", "beta", "temperature", "stop_gradient", "warmup", "ramp"} & own
    if path.parent.name in DENSE and "alpha" in own:
        own |= {"distil_void", "self_teacher_net"}
    assert own <= given.keys()


@pytest.mark.parametrize("path", [path for path in PAPER if method_of(parts_of(path)[2]) in FRSKDS], ids=name_of)
def test_the_weights_of_frskd_are_constant_or_for_masks_ramped_as_in_the_paper(path):
    given = recipe_of(path).method.hyperparameters
    defaults = find_method("frskd").defaults("pixel" if path.parent.name in DENSE and given else "image")
    for name in ("warmup", "ramp"):
        assert given.get(name, 0) == pytest.approx(defaults[name], abs=1e-6)
    assert not given.get("stop_gradient")


def its_schedule_and_presentation_are_spelled_out(path: Path) -> None:
    given = merge_files(load_with_bases(path))
    assert {"epochs", "batch_size", "precision", "seed", "mix"} <= given.keys()
    assert {"image_size", "channels", "augment", "mean", "std"} <= given["data"].keys()
    of_sgd = {"momentum", "nesterov"} if recipe_of(path).optim.name == "sgd" else set()
    of_steps = {"milestones"} if recipe_of(path).optim.schedule == "step" else set()
    assert {"lr", "weight_decay", "decay", "schedule", *of_sgd, *of_steps} <= given["optim"].keys()


def it_differs_from_its_baseline_in_method_and_mixing_alone(path: Path) -> None:
    """Of a recipe with another schedule, augmentation or start than its folder's baseline, the header names its own."""
    own, file = recipe_of(path), path.with_name(f"{parts_of(path)[1]}_baseline.yaml")
    if told := read_header(path).get("Baseline"):
        words = told.split()
        assert words[:3] == ["selfdistill", "train", name_of(path)] and "method=baseline" in words
        method = read(path, words[3:]).method
        assert (method.name, method.hyperparameters, method.teacher) == ("baseline", {}, None)
    else:
        baseline = recipe_of(file)
        assert own.model_copy(update={"method": baseline.method, "mix": baseline.mix}) == baseline


def its_header_says_what_it_expects_and_what_it_costs(path: Path) -> None:
    told = read_header(path)
    assert {"Reproduces", "Settings", "Expected", "Command", "Cost"} <= told.keys()
    command = told["Command"].split()
    assert command[:3] == ["selfdistill", "train", name_of(path)]
    read(path, command[3:])
    source = recipe_of(path).data.source
    assert "data.download=true" in command if source.startswith("torchvision:") else source in told["Data"]


def it_quotes_no_accuracy_without_a_source(path: Path) -> None:
    expected = read_header(path)["Expected"]
    figures = set(re.findall(r"\d+\.\d+(?= ?%)", expected))
    assert figures == PUBLISHED.get(name_of(path), set())
    assert "source: " in expected if figures else "no verified number" in expected
    rest = path.read_text(encoding="utf-8").replace("\n#   ", " ").replace(f"# Expected: {expected}", "")
    assert not re.search(ACCURACY, rest), "an accuracy outside of the line Expected"


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_a_recipe_keeps_every_rule(path):
    """One case for each recipe, not one for each of nine rules: the line that fails tells which it was."""
    its_method_takes_its_settings(path)
    it_is_for_the_task_of_its_data_and_its_method_too(path)
    it_mixes_only_for_methods_that_take_soft_labels(path)
    if path in PAPER:
        its_file_is_named_after_its_student_and_method(path)
        its_hyperparameters_are_spelled_out(path)
        its_schedule_and_presentation_are_spelled_out(path)
        it_differs_from_its_baseline_in_method_and_mixing_alone(path)
        its_header_says_what_it_expects_and_what_it_costs(path)
        it_quotes_no_accuracy_without_a_source(path)


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_a_base_quotes_no_accuracy(path):
    assert not re.search(ACCURACY, path.read_text(encoding="utf-8"))


def readme() -> str:
    return (ROOT / "recipes/README.md").read_text(encoding="utf-8")


def test_the_page_on_recipes_names_every_folder_student_and_variant():
    for path in PAPER:
        data, student, variant = parts_of(path)
        assert all(f"`{name}`" in readme() for name in (data, student, variant)), path


def test_the_page_on_recipes_quotes_no_accuracy():
    assert not re.search(ACCURACY, re.sub(r"```.*?```", "", readme(), flags=re.DOTALL))


def test_the_commands_on_the_page_are_recipes_with_settings_that_exist():
    commands = re.findall(r"^selfdistill (?:train|compare) (\S+) (.*)$", readme(), re.MULTILINE)
    assert len(commands) == 6
    for path, words in commands:
        read(path, [word for word in words.split() if not word.startswith(("methods=", "seeds="))])


def test_the_recipes_on_the_page_are_short_forms_of_real_ones(tmp_path):
    first, second = re.findall(r"```yaml\n(.*?)```", readme(), re.DOTALL)
    assert (ROOT / "recipes/cifar100/resnet18_cs_kd.yaml").read_text(encoding="utf-8").endswith(first)
    (tmp_path / "own.yaml").write_text(second, encoding="utf-8")
    own, base = read(tmp_path / "own.yaml"), read("cifar100/resnet18_frskd")
    assert own.method == base.method and (own.epochs, own.data.source, own.data.mean) == (50, "/my/images", None)


def run_snippet(title: str, folder: Path) -> None:
    """Runs the code below a heading of the page on recipes, in `folder`."""
    language, code = re.search(rf"### {title}\n.*?```(\w+)\n(.*?)```", readme(), re.DOTALL).groups()
    shell = shutil.which("sh")
    if language == "sh" and shell is None:
        pytest.skip("there is no shell")
    command = [shell, "-euc", code] if language == "sh" else [sys.executable, "-c", code]
    subprocess.run(command, cwd=folder, check=True)


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def found(folder: Path) -> dict[str, dict[str, str]]:
    """The class of each image file, by split."""
    splits = open_splits(DataPart(source=str(folder)), CLASSIFICATION)._asdict()
    rows = {name: each for name, each in splits.items() if name != "notes" and each is not None}
    return {
        name: {Path(each.name(i)).name: each.classes[each.labels[i]] for i in range(len(each))}
        for name, each in rows.items()
    }


def test_tiny_imagenet_is_sorted_as_its_recipes_want_it(tmp_path):
    draw(*(tmp_path / f"train/n0{k}/images/n0{k}_{i}.jpg" for k in (1, 2) for i in (0, 1)))
    draw(*(tmp_path / f"val/images/val_{i}.jpg" for i in range(2)), tmp_path / "test/images/test_0.jpg")
    (tmp_path / "val/val_annotations.txt").write_text("val_0.jpg\tn02\t0\t0\t9\t9\nval_1.jpg\tn01\t0\t0\t9\t9\n")
    run_snippet("TinyImageNet", tmp_path)
    assert found(tmp_path) == {
        "train": {"n01_0.jpg": "n01", "n01_1.jpg": "n01", "n02_0.jpg": "n02", "n02_1.jpg": "n02"},
        "val": {"val_0.jpg": "n02", "val_1.jpg": "n01"},
    }


SPLIT = {"train": {"a1.jpg": "a", "b 1.jpg": "b"}, "test": {"a2.jpg": "a", "b2.jpg": "b"}}
IMAGES = [f"{label}/{name}" for split in SPLIT.values() for name, label in split.items()]


def test_cub_is_split_as_its_recipes_want_it(tmp_path):
    here = tmp_path / "CUB_200_2011"
    images = [image.replace(" ", "_") for image in IMAGES]
    draw(*(here / "images" / image for image in images))
    (here / "images.txt").write_text("".join(f"{i} {image}\n" for i, image in enumerate(images, 1)))
    (here / "train_test_split.txt").write_text("1 1\n2 1\n3 0\n4 0\n")
    run_snippet("CUB-200", here)
    assert found(tmp_path / "cub-200") == {**SPLIT, "train": {"a1.jpg": "a", "b_1.jpg": "b"}}


def test_mit67_is_split_as_its_recipes_want_it(tmp_path):
    here = tmp_path / "download"
    draw(*(here / "Images" / image for image in IMAGES))
    (here / "TrainImages.txt").write_text("\n".join(IMAGES[:2]))
    (here / "TestImages.txt").write_bytes("\r\n".join(IMAGES[2:]).encode())
    run_snippet("MIT67", here)
    assert found(tmp_path / "mit67") == SPLIT


@pytest.mark.slow
def test_stanford_dogs_is_split_as_its_recipes_want_it(tmp_path):
    import numpy as np
    from scipy.io import savemat

    here = tmp_path / "download"
    draw(*(here / "Images" / image for image in IMAGES))
    for split, images in (("train", IMAGES[:2]), ("test", IMAGES[2:])):
        savemat(here / f"{split}_list.mat", {"file_list": np.array(images, dtype=object)[:, None]})
    run_snippet("Stanford Dogs", here)
    assert found(tmp_path / "stanford-dogs") == SPLIT


def test_stanford_40_is_split_as_its_recipes_want_it(tmp_path):
    here = tmp_path / "download"
    draw(*(here / "JPEGImages" / Path(image).name for image in IMAGES))
    (here / "ImageSplits").mkdir()
    for split, classes in SPLIT.items():
        for name, label in classes.items():
            (here / f"ImageSplits/{label}_{split}.txt").write_text(f"{name}\r\n")
    (here / "ImageSplits/train.txt").write_text("a1.jpg\n")
    run_snippet("Stanford 40", here)
    assert found(tmp_path / "stanford-40") == SPLIT
