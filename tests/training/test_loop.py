"""The training loop, on the built-in digits with a tiny network."""

from typing import ClassVar

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import selfdistill
from helpers.runs import QUICK, Heard, StopAt, recipe, stop_and_resume, train, untimed, weights
from selfdistill.build import build
from selfdistill.commands.train import resume_run
from selfdistill.data.datasets import scenes
from selfdistill.method import Method
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.task import Batch, Step
from selfdistill.training import checkpoint
from selfdistill.training.signals import Interrupted

END_SCORES = {"scores", "train_scores", "test_scores"}


def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path):
    stop_and_resume(tmp_path, {"method": "frskd"}, 3)


@pytest.mark.slow
def test_a_signal_in_the_last_step_lets_the_run_end(tmp_path):
    _, run, result = train(recipe(tmp_path / "run", epochs=1), StopAt(5))
    assert result.step == read_card(run.path).step == run.records()[-1].step == 5


@pytest.mark.slow
def test_a_run_that_ends_where_it_was_stopped_ships_the_student_of_that_step(tmp_path):
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run"), StopAt(7))
    stopped = Run.open(tmp_path / "run")
    assert read_card(stopped.path).step == 5
    method, run, result = train(stopped.recipe().model_copy(update={"max_steps": 7}), resume=True)
    assert read_card(run.path).scores == result.scores._asdict() and read_card(run.path).step == 7
    shipped, trained = load_student(run.path).state_dict(), method.student.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in shipped.items())


@pytest.mark.slow
@pytest.mark.parametrize("writes", ["save_student", "save_checkpoint"])
def test_a_run_that_was_killed_while_it_saved_its_end_ends_as_if_it_had_not(tmp_path, monkeypatch, whole, writes):
    class Killed(BaseException): ...

    home = checkpoint if writes == "save_student" else Run
    original = getattr(home, writes)

    def killed(*args, **kwargs):
        if run.records()[-1].step == 10:
            raise Killed
        original(*args, **kwargs)

    run = Run(tmp_path / "run")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(home, writes, killed)
        train(recipe(run.path))
    train(run.recipe(), resume=True)
    assert untimed(run) == untimed(whole[1])
    assert read_card(run.path).scores == read_card(whole[1].path).scores


def test_a_run_folder_holds_what_the_readme_says(tmp_path):
    method, run, result = train(recipe(tmp_path / "run"))
    files = {path.name for path in run.path.iterdir()}
    assert files >= {"recipe.yaml", "metrics.jsonl", "last.pt", "best", "student.safetensors", "student.json"}
    kinds = [record.kind for record in run.records()]
    assert kinds.count("epoch") == 2 and kinds[-1] == "end"
    card = read_card(run.path)
    assert card.scores == result.scores._asdict() and card.weights == "student" and card.epoch == 2
    assert card.classes == tuple(str(digit) for digit in range(10))


@pytest.mark.slow
def test_the_student_that_ships_is_the_plain_network_with_the_trained_weights(tmp_path):
    method, run, result = train(recipe(tmp_path / "run"))
    plain = selfdistill.build_student("cifar:resnet8", num_classes=10, image_shape=(1, 8, 8))
    shipped = load_student(run.path)
    plain.load_state_dict(shipped.state_dict(), strict=True)
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(shipped(images), method.student.eval()(images))


@pytest.mark.slow
def test_the_end_of_a_run_tells_what_it_cost_and_how_its_student_does_elsewhere(tmp_path):
    data = {**QUICK["data"], "test_fraction": 0.1}
    method, run, result = train(recipe(tmp_path / "run", data=data))
    end = run.records()[-1]
    assert end.model_dump(exclude={"kind", "split", "parameters", *END_SCORES}) == {
        name: value for name, value in result._asdict().items() if name not in END_SCORES
    }
    assert all(getattr(end, name) == getattr(result, name) for name in END_SCORES)
    assert end.train_scores.count == 80 and end.test_scores.count == 179 and end.split == "val"
    assert end.train_seconds > 0 and end.eval_seconds > 0 and end.device_seconds is None
    assert 10 * 0.5 * end.cost_per_step < end.processor_seconds  # ten steps, the first of which is slower
    val, test = run.outcomes("val"), run.outcomes("test")
    for rows, scores, tempered in [
        (val, end.scores, end.nll_at_temperature),
        (test, end.test_scores, end.test_nll_at_temperature),
    ]:
        assert scores.top1 == pytest.approx((rows.predicted == rows.label).double().mean().item())
        assert scores.nll == pytest.approx(rows.nll.mean().item(), rel=1e-5)
        at_temperature = nn.functional.cross_entropy(rows.logits.double() / end.temperature, rows.label)
        assert tempered == pytest.approx(at_temperature.item())
    assert end.nll_at_temperature <= end.scores.nll + 1e-6
    assert torch.equal(val.label, build(run.recipe()).held_out.args[0].dataset.labels)


@pytest.mark.slow
def test_a_student_is_scored_every_so_many_epochs_and_at_the_end(tmp_path):
    changes = {"epochs": 5, "evaluate_every": 2}
    _, run, result = train(recipe(tmp_path / "run", **changes))
    assert [record.epoch for record in run.records() if record.kind == "epoch"] == [2, 4, 5]
    assert result.scores is not None and read_card(run.open_best().path).epoch in (2, 4, 5)
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "stopped", **changes), StopAt(18))
    stopped = Run.open(tmp_path / "stopped")
    train(stopped.recipe(), resume=True)
    assert untimed(stopped) == untimed(run)


@pytest.mark.slow
def test_every_term_of_the_loss_is_logged_at_every_window(tmp_path):
    _, run, _ = train(recipe(tmp_path / "run", method="frskd"))
    for record in run.records():
        if record.kind == "train":
            assert set(record.losses) == {"task", "teacher", "kd", "feature"}
            assert 0 <= record.accuracy <= 1 and 0 <= record.self_teacher_accuracy <= 1 and record.lr > 0


@pytest.mark.slow
def test_images_that_each_epoch_leaves_out_are_counted_in_a_note(tmp_path):
    def drop(batch_size, **data):
        job = build(recipe(tmp_path, batch_size=batch_size, data={**QUICK["data"], **data}))
        return job.recipe.data.drop_last, [note for note in job.notes if "left out" in note]

    sentence = "16 of 80 images are left out of each epoch, others each time; data.drop_last=false keeps them"
    assert drop(32) == drop(32, drop_last=True) == (True, [sentence])
    assert drop(32, drop_last=False) == (False, []) and drop(16) == (True, [])
    assert drop(128) == (False, [])  # there is no whole batch
    with pytest.raises(ValueError, match="data.drop_last=true leaves no batch of 128 of 80 training images"):
        drop(128, drop_last=True)


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_incomplete_batch_is_left_out_or_kept_before_and_after_a_stop(tmp_path, drop_last):
    changes = {"batch_size": 32, "data": {**QUICK["data"], "drop_last": drop_last}}
    stop_and_resume(tmp_path, changes, 3)
    assert Run.open(tmp_path / "stopped").records()[-1].step == (4 if drop_last else 6)


@pytest.mark.slow
def test_a_run_that_is_older_than_drop_last_goes_on_with_the_incomplete_batch(tmp_path):
    kept = {"batch_size": 32, "data": {**QUICK["data"], "drop_last": False}}
    whole, _, _ = train(recipe(tmp_path / "whole", **kept))
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "run", **kept), StopAt(3))
    path = tmp_path / "run/recipe.yaml"
    path.write_text(path.read_text().replace("  drop_last: false\n", ""))
    assert "drop_last" not in path.read_text() and Run.open(path.parent).recipe().data.drop_last is False
    resume_run(path.parent)
    trained = Run.open(path.parent).load_checkpoint()["method"]
    assert all(torch.equal(value, trained[name]) for name, value in weights(whole).items())


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "warned"), [(16, False), (4, True)])
def test_batch_norms_with_few_values_are_warned_of_once(tmp_path, batch_size, warned):
    heard = Heard()
    student = {"name": "timm:resnet10t", "options": {"stem_width": 8, "channels": [8, 8, 8, 8]}}
    train(recipe(tmp_path / "run", batch_size=batch_size, student=student, epochs=1), heard)
    told = [sentence for sentence in heard.sentences if "batch norms" in sentence]
    assert len(told) == warned
    assert all("of student and self_teacher average over 4 values per channel" in sentence for sentence in told)


class Probe(Method):
    """Terms with chosen values."""

    zero: float = 0.0
    large: float = 0.0

    def forward(self, batch: Batch, progress=0.0) -> Step:
        logits = self.student(batch.images)
        task = self.task.loss(logits, batch.target)
        return Step({"task": task, "idle": task * self.zero, "huge": task * self.large}, logits)


@pytest.mark.slow
def test_a_term_that_is_zero_or_dwarfs_the_rest_is_warned_of_once(tmp_path):
    heard = Heard()
    method = {"name": f"{__name__}:Probe", "large": 1e4}
    train(recipe(tmp_path / "run", method=method, optim={"lr": 1e-6}), heard)
    assert sum("'idle' is exactly zero" in sentence for sentence in heard.sentences) == 1
    assert sum("'huge'" in sentence and "dwarfs" in sentence for sentence in heard.sentences) == 1


class Sleeper(Probe):
    """A term that is zero during the warm-up."""

    warmup: float = 0.6

    def forward(self, batch: Batch, progress=0.0) -> Step:
        step = super().forward(batch, progress)
        return step._replace(losses={"task": step.losses["task"], "idle": step.losses["idle"]})


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "warned"), [(2, False), (4, True)])  # the last begins after 1/2, or after 3/4
def test_a_term_that_still_slept_in_the_last_step_is_not_warned_of(tmp_path, steps, warned):
    heard = Heard()
    train(recipe(tmp_path / "run", method=f"{__name__}:Sleeper", epochs=None, max_steps=steps), heard)
    assert any("'idle' is exactly zero" in sentence for sentence in heard.sentences) == warned


@pytest.mark.slow
def test_weights_that_become_nan_end_the_run_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"NaN or infinite before step \d+; lower optim.lr"):
        train(recipe(tmp_path / "run", method={"name": f"{__name__}:Probe", "large": float("1e30")}))


@pytest.mark.slow
def test_a_student_that_broke_in_the_last_step_does_not_ship(tmp_path):
    method = {"name": f"{__name__}:Probe", "large": float("1e30")}
    with pytest.raises(ValueError, match="NaN or infinite before step 1;"):
        train(recipe(tmp_path / "run", method=method, max_steps=1))
    assert not (tmp_path / "run" / "student.safetensors").exists()


class Drawing(Probe):
    """Notes a random number of each step."""

    draws: ClassVar[list[float]] = []

    def forward(self, batch: Batch, progress=0.0) -> Step:
        self.draws.append(torch.rand(()).item())
        return super().forward(batch, progress)


@pytest.mark.slow
def test_each_step_draws_its_own_numbers_and_a_run_of_another_seed_others(tmp_path):
    for seed in (0, 0, 1):
        train(recipe(tmp_path / str(len(Drawing.draws)), method=f"{__name__}:Drawing", seed=seed, max_steps=4))
    first, again, other = (Drawing.draws[start : start + 4] for start in (0, 4, 8))
    assert first == again and len({*first, *other}) == 8


class Linear(nn.Module):
    """A student without batch norm."""

    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images):
        return self.fc(images.flatten(1))


class Recording(Method):
    """Plain training that keeps the batches of its steps."""

    batches: ClassVar[list[Batch]] = []

    def forward(self, batch, progress=0.0):
        self.batches.append(batch)
        logits = self.student(batch.images)
        return Step({"task": self.task.loss(logits, batch.target)}, logits)


def test_weights_move_against_the_gradient_of_the_loss_and_by_nothing_else(tmp_path):
    optim = {"lr": 0.5, "momentum": 0, "weight_decay": 0, "schedule": "constant"}
    changes = {"student": f"{__name__}:Linear", "method": f"{__name__}:Recording", "optim": optim, "max_steps": 3}
    student = build(recipe(tmp_path, **changes)).method.student
    Recording.batches.clear()
    trained = train(recipe(tmp_path / "run", **changes))[0].student
    assert len(Recording.batches) >= 3
    for batch in Recording.batches[:3]:
        loss = nn.functional.cross_entropy(student(batch.images), batch.target)
        for parameter, slope in zip(student.parameters(), torch.autograd.grad(loss, student.parameters()), strict=True):
            parameter.data -= 0.5 * slope
    for parameter, expected in zip(trained.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


@pytest.mark.slow
def test_micro_batches_add_up_to_the_gradient_of_the_batch(tmp_path):
    ends = []
    for accumulate in (1, 4):
        changes = {"student": f"{__name__}:Linear", "method": "baseline", "optim": {"accumulate": accumulate}}
        method, _, _ = train(recipe(tmp_path / str(accumulate), **changes))
        ends.append(method.student.fc.weight)
    torch.testing.assert_close(*ends)


@pytest.mark.slow
def test_a_gradient_that_is_clipped_twice_is_unscaled_once(tmp_path, monkeypatch):
    unscaled = []
    monkeypatch.setattr(Accelerator, "unscale_gradients", lambda self, optimizer=None: unscaled.append(1))
    optim = {"lr": 1.0, "momentum": 0, "weight_decay": 0, "schedule": "constant", "clip_value": 0.01, "clip": 0.02}
    changes = {"student": f"{__name__}:Linear", "method": "baseline", "optim": optim, "max_steps": 1}
    before = build(recipe(tmp_path, **changes)).method.state_dict()
    after = train(recipe(tmp_path / "run", **changes))[0].state_dict()
    change = torch.cat([(after[name] - value).flatten() for name, value in before.items()])
    assert len(unscaled) == 1 and change.abs().max() <= 0.01 and change.norm() == pytest.approx(0.02, rel=1e-3)


def test_fp16_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        train(recipe(tmp_path / "run", precision="fp16", machine="cpu"))


def test_a_method_that_is_trained_twice_has_its_precision_both_times_and_no_trace_of_it(tmp_path):
    experiment, seen = build(recipe(tmp_path / "run", max_steps=1, precision="bf16")), set()
    experiment.method.student.conv1.register_forward_hook(
        lambda module, inputs, output: seen.add(output.dtype) if module.training else None
    )
    before = {*vars(experiment.method)}
    for _ in range(2):
        seen.clear()
        selfdistill.fit(experiment)
        assert seen == {torch.bfloat16} and {*vars(experiment.method)} == before


@pytest.mark.slow
def test_compile_is_an_option(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append(options))
    train(recipe(tmp_path / "run", max_steps=1, machine={"compile": True}))
    assert compiled == [{"fullgraph": True, "dynamic": False, "mode": "default"}]


@pytest.mark.slow
def test_an_average_of_the_student_ships_where_it_is_asked_for(tmp_path):
    method, run, _ = train(recipe(tmp_path / "run", optim={"lr": 0.05, "ema": 0.5}))
    assert read_card(run.path).weights == "ema"
    shipped = load_student(run.path).state_dict()
    assert not torch.equal(shipped["fc.weight"], method.student.fc.weight)


class Pixels(nn.Module):
    """A segmenter that looks at 3x3 pixels, and remembers what sizes of images it was scored on."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(1, num_classes, 3, padding=1)
        self.scored = set()

    def forward(self, images):
        if not self.training:
            self.scored.add(tuple(images.shape[2:]))
        return self.conv(images)


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.slow
def test_a_segmenter_is_scored_by_its_masks_whole_or_window_by_window(tmp_path, window, monkeypatch):
    for split in ("val", "test"):
        monkeypatch.setitem(scenes.SCENES, split, 8)
    data = {"source": "scenes", "limit": 6, "image_size": [24, 32], "channels": 1, "window": window}
    changes = {"task": "segmentation", "student": f"{__name__}:Pixels", "method": "baseline", "batch_size": 3}
    method, run, result = train(recipe(tmp_path / "run", **changes, data=data, epochs=2))
    assert (method.student.scored == {(24, 32)}) == window
    records = run.records()
    assert all(0 <= record.accuracy <= 1 for record in records if record.kind == "train")
    scores = [record.scores for record in records if record.kind == "epoch"]
    assert scores[-1].iou == pytest.approx(result.scores.iou, nan_ok=True)
    assert run.load_checkpoint()["best"] == max(each.miou for each in scores)
    assert read_card(run.path).scores["miou"] == result.scores.main


@pytest.mark.slow
def test_an_image_that_is_too_few_for_a_batch_is_warned_of(tmp_path):
    heard = Heard()
    train(recipe(tmp_path, data={**QUICK["data"], "limit": 81, "drop_last": False}, epochs=1), heard)
    assert "1 of 81 images is left out of each epoch, others each time" in heard.sentences
