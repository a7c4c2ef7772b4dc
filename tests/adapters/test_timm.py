"""timm's tasks and training script around a method: the same training as in a plain loop, and plain models after it."""

import os
import socket
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from helpers import programs
from helpers.averaged import Averaged
from selfdistill import Batch, Task, create_method

pytest.importorskip("selfdistill.adapters.timm", exc_type=ImportError)

from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.task import resume_task_checkpoint
from timm.utils import CheckpointSaver

from selfdistill.adapters.timm import SelfDistillTask
from selfdistill.adapters.timm_script import main, read_words

CLASSES, SHAPE, UPDATES = 5, (3, 32, 32), 4
SCRIPT = str(Path(programs.__file__).with_name("timm_train.py"))


def create_model(name="test_resnet"):
    torch.manual_seed(3)
    return timm.create_model(name, num_classes=CLASSES)


def create_distill_task(method="frskd", model=None, criterion=None, **settings):
    settings = {"ramp": 1.0, **settings} if method == "frskd" else settings
    settings = {"total_updates": UPDATES, "image_shape": SHAPE, "verbose": False, **settings}
    return SelfDistillTask(model or create_model(), criterion, method=method, **settings)


def draw_batch(number, rows=4):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(rows, *SHAPE, generator=generator), torch.randint(0, CLASSES, (rows,), generator=generator)


def create_optimizer(module):
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def take_updates(task, optimizer, numbers, accumulate=1):
    """Losses by batch, and steps of the optimizer; nothing else is called."""
    losses = []
    task.train()
    for number in numbers:
        for part in range(accumulate):
            result = task(*draw_batch(10 * number + part))
            (result["loss"] / accumulate).backward()
            losses.append(result["loss"].item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


# the same training


@pytest.mark.parametrize(("name", "settings"), [("frskd", {"ramp": 1.0}), (Averaged, {}), ("dsr", {})])
def test_a_task_trains_as_a_loop_of_ones_own_does(name, settings):
    task = create_distill_task(name, **settings)
    losses = take_updates(task, create_optimizer(task.get_trainable_module()), range(UPDATES), accumulate=2)

    torch.manual_seed(3)
    method = create_method(
        name, create_model(), Task("classification", CLASSES, SHAPE), total_steps=UPDATES, **settings
    )
    optimizer, expected = create_optimizer(method.train()), []
    for number in range(UPDATES):
        for part in range(2):
            step = method(Batch(*draw_batch(10 * number + part)), number / UPDATES)
            (step.loss / 2).backward()
            expected.append(step.loss.item())
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
    assert losses == expected
    expected_state = method.state_dict()
    assert all(torch.equal(value, expected_state[key]) for key, value in task.method.state_dict().items())


PROBABILITIES = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0.5, 0, 0, 0.5], [0.1, 0.2, 0.3, 0.4, 0]])
CRITERIA = {
    "cross-entropy": (nn.CrossEntropyLoss(), False),
    "class weights": (nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3, 4, 5])), False),
    "smoothing": (LabelSmoothingCrossEntropy(0.2), False),
    "mixed labels": (SoftTargetCrossEntropy(), True),
    "binary": (BinaryCrossEntropy(), False),
    "binary of mixed labels": (BinaryCrossEntropy(target_threshold=0.25), True),
    "a function": (lambda scores, target: scores.sub(target[:, None]).abs().sum(), False),
}


@pytest.mark.parametrize(("criterion", "is_mixed"), CRITERIA.values(), ids=list(CRITERIA))
def test_the_users_criterion_is_the_supervised_loss(criterion, is_mixed):
    task = create_distill_task(criterion=criterion)
    images, target = draw_batch(0)
    target = PROBABILITIES if is_mixed else target
    with torch.no_grad():
        result = task(images, target)
    torch.testing.assert_close(result["task_loss"], criterion(result["output"], target))


@pytest.mark.slow
def test_a_compiled_task_computes_the_same():
    plain, compiled = create_distill_task("frskd"), create_distill_task("frskd")
    evaluated = compiled.compile(backend="eager", fullgraph=True)
    assert compiled.get_eval_model() is evaluated
    expected = take_updates(plain, create_optimizer(plain.method), range(2))
    assert take_updates(compiled, create_optimizer(compiled.method), range(2)) == pytest.approx(expected, rel=1e-5)
    images = draw_batch(9)[0]
    with torch.no_grad():
        scores = compiled.eval().get_eval_model()(images)
        torch.testing.assert_close(scores, plain.eval().get_eval_model()(images), rtol=1e-4, atol=1e-4)


# what timm does with the parameters


def test_layer_decay_and_weight_decay_of_the_model_are_those_without_a_method():
    def describe(module):
        groups = create_optimizer_v2(module, "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5).param_groups
        names = {id(value): name for name, value in module.named_parameters()}
        return {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}

    model = timm.create_model("test_vit", num_classes=CLASSES, img_size=32)
    task = create_distill_task("frskd", model=model)
    plain, groups = describe(model), describe(task.get_trainable_module())
    assert {name: groups.pop(f"method.student.{name}") for name in plain} == plain
    assert plain["pos_embed"][1] == 0 and len({scale for scale, _ in plain.values()}) > 3
    assert {*groups.values()} == {(1.0, 0.05), (1.0, 0.0)}


def test_adaptive_clipping_leaves_out_the_models_classifier():
    task = create_distill_task("frskd")
    everything, clipped = ({*map(id, task.get_clip_parameters(exclude_head=head))} for head in (False, True))
    assert everything == {*map(id, task.method.parameters())}
    assert everything - clipped == {*map(id, task.method.student.fc.parameters())}


# checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frskd", Averaged, "dsr"])
def test_a_resumed_task_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    task = create_distill_task(name)
    optimizer = create_optimizer(task.get_trainable_module())
    task.setup_ema(decay=0.5)
    take_updates(task, optimizer, range(2))
    task.update_ema(step=2)
    saver = CheckpointSaver(task.get_trainable_module(), optimizer, task=task, checkpoint_dir=str(tmp_path))
    saver._save(str(tmp_path / "last.pth.tar"), epoch=0)

    resumed = create_distill_task(name)
    resumed_optimizer = create_optimizer(resumed.get_trainable_module())
    assert resume_task_checkpoint(resumed, str(tmp_path / "last.pth.tar"), resumed_optimizer, log_info=False) == 1
    assert take_updates(resumed, resumed_optimizer, range(2, 4)) == take_updates(task, optimizer, range(2, 4))

    checkpoint = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    for key in ("state_dict", "state_dict_ema"):
        create_model().load_state_dict(checkpoint[key], strict=True)
    assert not torch.equal(checkpoint["state_dict"]["fc.weight"], checkpoint["state_dict_ema"]["fc.weight"])
    assert "task_state_ema" not in checkpoint


def test_a_checkpoint_of_the_model_alone_starts_from_its_weights():
    task = create_distill_task("frskd")
    weights = {name: value + 1 for name, value in create_model().state_dict().items()}
    task.load_checkpoint_state(weights)
    assert torch.equal(task.method.student.fc.bias, weights["fc.bias"]) and task.num_updates == 0


# what does not go together


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        (
            "mean_teacher",
            {},
            "MeanTeacher needs the further views of each image, and timm's loaders give",
        ),
        ("cs_kd", {}, "needs the other images of its class of each image"),
        ("ps_kd", {}, "needs the index of each image"),
        ("kd", {}, "KD needs a teacher: .* or pass teacher=, a trained network"),
        ("frksd", {}, "no method is called 'frksd'; did you mean 'frskd'"),
        ("frskd", {"alpha": -1}, "alpha=-1"),
    ],
)
def test_methods_and_settings_that_cannot_be_are_refused(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_distill_task(name, **settings)


def test_a_task_must_know_how_long_training_takes_and_what_the_images_are():
    with pytest.warns(UserWarning, match="give create_method"):
        task = SelfDistillTask(create_model(), method="frskd", image_shape=SHAPE, verbose=False)
    with pytest.raises(ValueError, match="give total_updates=n, the number of optimizer steps"):
        task(*draw_batch(0))
    task = create_distill_task("baseline", image_shape=None)
    assert task.image_shape == timm.create_model("test_resnet").pretrained_cfg["input_size"]
    with pytest.raises(ValueError, match=r"images are \(3, 32, 32\), and the task was made for \(3, 160, 160\)"):
        task(*draw_batch(0))
    with pytest.raises(ValueError, match="Linear does not say its num_classes"):
        create_distill_task("baseline", model=nn.Linear(2, 2))


def test_a_teacher_is_kept_out_of_checkpoints():
    task = create_distill_task("kd", teacher=create_model("test_resnet"))
    assert not [name for name in task.get_task_state()["method"] if name.startswith("teacher")]
    task.load_checkpoint_state(**{"state_dict": create_model().state_dict(), "task_state": task.get_task_state()})


# the script


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "write METHOD"),
        (["frskd", "--", SCRIPT, "--epochs"], None),
        (["frskd"], "write METHOD"),
        (["frskd", "ramp", "--", SCRIPT], "'ramp' is no setting of frskd; write name=value"),
        (["frskd", "--", "missing.py"], "missing.py is no file; give the path of timm's train.py"),
        (["hsakd", "--", SCRIPT], "hsakd learns from a whole method, not from a network"),
        (["ddgsd", "--", SCRIPT], "needs the further views"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_sentence(words, sentence):
    if sentence is None:
        assert read_words(words)[3:] == (SCRIPT, ["--epochs"])
        return
    with pytest.raises(ValueError, match=sentence):
        read_words(words)


def run_script(rank, folder, world, port, words):
    """What a process of the script does, as torchrun starts it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own, script = words[: words.index("--")], words[words.index("--") + 1 :]
    common = ["--model", "test_resnet", "--img-size", "32", "--batch-size", "4", "--device", "cpu", "--out", folder]
    main([*own, "--", SCRIPT, *common, *script])


def train_by_script(folder, *words, processes=1):
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs.call(run_script, str(folder), processes, port, [*words], processes=processes)
    return torch.load(folder / "0.pth.tar", weights_only=True), torch.load(folder / "losses-0.pt")


@pytest.mark.slow
def test_the_script_trains_with_a_method_and_goes_on_from_its_checkpoint(tmp_path):
    words = ["frskd", "ramp=1", "--", "--epochs", "2", "--model-ema", "--layer-decay", "0.7", "--grad-accum-steps", "2"]
    whole, losses = train_by_script(tmp_path / "whole", *words)
    train_by_script(tmp_path / "half", *words, "--stop-after", "1")
    resumed, rest = train_by_script(tmp_path / "rest", *words, "--resume", str(tmp_path / "half" / "0.pth.tar"))
    assert rest == losses[4:]
    for key in ("state_dict", "state_dict_ema"):
        timm.create_model("test_resnet", num_classes=CLASSES).load_state_dict(whole[key], strict=True)
        assert all(torch.equal(value, resumed[key][name]) for name, value in whole[key].items())
    assert whole["task_state"]["num_updates"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["frskd", "byot"])
def test_two_processes_of_the_script_end_with_the_same_weights(method, tmp_path):
    ramp = ["ramp=1"] if method == "frskd" else []
    words = [method, *ramp, "--", "--epochs", "1", "--mixup", "0.2", "--model-ema"]
    first, losses = train_by_script(tmp_path / "two", *words, processes=2)
    second = torch.load(tmp_path / "two" / "1.pth.tar", weights_only=True)
    assert losses != torch.load(tmp_path / "two" / "losses-1.pt")
    for name, value in first["state_dict"].items():
        if "running" not in name:  # which each process has of its own images
            assert torch.equal(value, second["state_dict"][name]), name
