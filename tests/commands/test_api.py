"""The commands as functions of Python, called as a user calls them, with names and with objects."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import selfdistill as sd
from helpers.given import Digits, Labels, Masks, TinyNet, scans
from helpers.runs import small_state
from selfdistill.commands import progress
from selfdistill.commands.objects import take_settings
from selfdistill.training.signals import Interrupted

QUICK = {"epochs": 1, "batch_size": 16, "precision": "fp32", "progress": False}
DATA = Digits(64), Digits(20)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run by names, as on the command line."""
    out = tmp_path_factory.mktemp("api") / "stored"
    settings = {"data.limit": 40, "optim": {"lr": 0.05}, "out": out}
    return sd.train(data="digits", student="cifar:resnet8", method="frskd", **settings, **QUICK)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of objects alone: a data set, a network and a loss."""
    calls = []

    def loss(logits, target, soft_target, ignore_index):
        calls.append(len(logits))
        return nn.functional.cross_entropy(logits, target)

    network, out = TinyNet(), tmp_path_factory.mktemp("api") / "own"
    run = sd.train(data=DATA, student=network, method="ddgsd", task={"loss": loss}, out=out, **QUICK)
    return run, network, calls


def test_a_run_tells_what_it_is(stored):
    assert repr(stored).startswith("<TrainedRun ") and "frskd on cifar:resnet8, 10 classes, top1 0." in repr(stored)
    assert "\n" not in repr(stored) and "<td>frskd</td>" in stored._repr_html_()
    assert stored.classes == tuple("0123456789") and 0 <= stored.scores["top1"] <= 1
    assert stored.result.step == stored.end.step == 2 and stored.recipe.optim.lr == 0.05
    assert stored.best.classes == stored.classes


def test_predict_takes_files_pictures_arrays_and_tensors(stored, tmp_path):
    pixels = (scans()[0][3, 0] * 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    picture = Image.fromarray(pixels)
    finished = stored.transforms.eval(picture)
    forms = [tmp_path / "digit.png", str(tmp_path), picture, pixels, torch.tensor(pixels)[None], finished]
    said = stored.predict(forms, top=2)
    assert len({tuple(one.classes) for one in said}) == 1 and len(said[0].classes) == 2
    assert said[0].image == tmp_path / "digit.png" and said[2].image is None
    assert said[0].label == said[0].classes[0][0]
    assert len(stored.predict(torch.stack([finished, finished]))) == 2
    assert stored.transforms.train(picture).shape == finished.shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"float64 \(8, 8\) is no picture"):
        stored.predict(np.zeros((8, 8)))
    with pytest.raises(ValueError, match=r"an image is a tensor \(3, 8, 8\); give \(1, height, width\)"):
        stored.predict(torch.zeros(3, 8, 8))


def test_a_run_scores_its_own_images_and_data_sets(stored):
    assert stored.evaluate().top1 == pytest.approx(stored.scores["top1"])
    assert stored.evaluate(Digits(30, "pil")).count == 30


def test_objects_are_trained_in_place_and_the_loss_of_the_user_is_used(own):
    run, network, calls = own
    assert sum(calls) > 64  # of ddgsd's views too
    assert torch.equal(run.student.fc.weight, network.fc.weight)
    assert run.recipe.student.name == "object:TinyNet" and run.recipe.task.loss == "object:loss"
    with pytest.raises(ValueError, match="finished tensors of a data set of your own, and this is a picture"):
        run.predict(Image.new("L", (8, 8)))
    assert run.predict(Digits(1)[0][0])[0].label in run.classes


def test_load_takes_the_network_that_a_folder_cannot_rebuild(own):
    run, network, _ = own
    with pytest.raises(ValueError, match="object:TinyNet was an object of the Python program"):
        _ = sd.load(run.path).student
    assert torch.equal(sd.load(run.path, student=TinyNet()).student.fc.weight, network.fc.weight)


def test_a_run_of_objects_that_was_stopped_goes_on_bit_for_bit(tmp_path):
    class Stop(sd.Callback):
        def on_step(self, state):
            if state.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    whole, stopped, again = TinyNet(), TinyNet(), TinyNet()
    stopped.load_state_dict(whole.state_dict())
    sd.train(data=DATA, student=whole, method="ddgsd", out=tmp_path / "whole", **QUICK)
    with pytest.raises(Interrupted, match="SIGINT"):
        sd.train(data=DATA, student=stopped, method="ddgsd", out=tmp_path / "run", callbacks=[Stop()], **QUICK)
    with pytest.raises(ValueError, match="object:Digits was an object of the Python program"):
        sd.train(resume=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="seed=2 cannot change when a run goes on"):
        sd.train(resume=tmp_path / "run", data=DATA, student=again, seed=2, progress=False)
    run = sd.train(resume=tmp_path / "run", data=DATA, student=again, progress=False)
    assert run.result.step == 4 and torch.equal(again.fc.weight, whole.fc.weight)
    assert sd.train(resume=run, data=DATA, student=again, progress=False).result is None


@pytest.mark.parametrize("name", ["frskd", "sla", "cs_kd", "ps_kd"])
def test_fit_makes_views_positives_and_indices_for_the_methods_that_need_them(name):
    method = sd.wrap(TinyNet(), name, image_size=8, num_examples=64, total_steps=4)
    result = sd.fit(method, DATA, **QUICK)
    assert result.step == 4 and result.scores.count == 20


def test_fit_writes_a_run_and_says_what_has_no_effect(tmp_path, capsys):
    method = sd.wrap(TinyNet(), "baseline", image_size=8)
    sd.fit(method, Digits(60, "uint8"), run=tmp_path / "run", **QUICK)
    assert sd.load(tmp_path / "run", student=TinyNet()).scores["count"] == 11
    assert capsys.readouterr() == ("", "")
    for settings, sentence in [
        ({"student": "cifar:resnet8"}, "student has no effect in fit; the method is made"),
        ({"out": "runs/x"}, "out has no effect in fit; give run="),
        ({"epoch": 3}, "no setting is called 'epoch'; did you mean 'epochs'"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            sd.fit(method, Digits(60), progress=False, **settings)
    with pytest.raises(ValueError, match="the data give images of 1x8x8, and the task of the method has 1x9x9"):
        sd.fit(sd.wrap(TinyNet(), "baseline", image_size=9), DATA, **QUICK)
    with pytest.raises(ValueError, match="fit takes a method, from create_method or wrap, not a TinyNet"):
        sd.fit(TinyNet(), DATA)


def test_masks_and_several_labels_are_learned_from_data_sets(tmp_path):
    pixels = nn.Conv2d(1, 2, 3, padding=1)
    masks = sd.train(
        task="segmentation", data=Masks(24), student=pixels, method="baseline", out=tmp_path / "m", **QUICK
    )
    (said,) = masks.predict(Masks(1)[0][0], top=2)
    assert said.mask.shape == (8, 8) and sum(share for _, share in said.classes) == pytest.approx(1)
    labels = sd.train(
        task="multilabel", data=Labels(40, "pil"), student=TinyNet(2), method="baseline", out=tmp_path / "l", **QUICK
    )
    assert labels.classes == ("even", "large")
    assert [name for name, _ in labels.predict(Labels(1, "pil")[0][0], top=2)[0].classes] != []


@pytest.mark.slow
def test_compare_takes_classes_and_objects_and_shows_itself(tmp_path, capsys):
    class Mine(sd.Method):
        def forward(self, batch, progress=0.0):
            logits = self.student(batch.images)
            return sd.Step({"task": self.task.loss(logits, batch.target, batch.soft_target)}, logits)

    network = TinyNet()
    before = network.fc.weight.clone()
    table = sd.compare(data=DATA, student=network, methods=["baseline", Mine], seeds=[0, 5], out=tmp_path, **QUICK)
    assert repr(table) == f"<Comparison of baseline (2), object:Mine (2) in {tmp_path}>"
    assert table._repr_html_().count("<tr>") == 3 and "cannot tell" in table._repr_html_()
    assert torch.equal(network.fc.weight, before) and (tmp_path / "report.html").exists()
    assert capsys.readouterr() == ("", "")


def test_settings_are_nested_or_dotted_and_objects_get_names():
    def loss(): ...

    taken = take_settings({"optim.lr": 0.1, "optim": {"name": "adamw"}, "method.alpha": 3, "method": "frskd"})
    assert taken.values == {"optim": {"name": "adamw", "lr": 0.1}, "method": {"name": "frskd", "alpha": 3}}
    taken = take_settings({"task": {"loss": loss}, "data": (DATA[0], "digits"), "student": nn.Linear})
    assert taken.values["task"] == {"loss": "object:loss"} and taken.objects["object:loss"] is loss
    assert taken.values["data"] == {"source": "object:Digits", "val": "digits"}
    assert taken.values["student"] == {"name": "torch.nn.modules.linear:Linear"}
    pairs = [DATA[0][i] for i in range(3)]
    assert take_settings({"data": pairs}).objects["object:list"].dataset is pairs
    for settings, sentence in [
        ({"epochs": object()}, "epochs takes a plain value or a name, and is of the class object"),
        ({"data": torch.utils.data.DataLoader(DATA[0])}, "data.source is a DataLoader; give its data set"),
        ({"data": (1, 2, 3)}, r"data has 3 parts; give a data set, or a pair \(train, val\)"),
        ({"student": sd.wrap(TinyNet(), "baseline", image_size=8)}, "student is a method; give its network"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            take_settings(settings)


def test_wrap_tells_the_task_from_the_network():
    method = sd.wrap(TinyNet(7), "baseline", image_size=(8, 12))
    assert (method.task.kind, method.task.num_classes, method.task.image_shape) == ("classification", 7, (1, 8, 12))
    assert sd.wrap(nn.Conv2d(3, 4, 1), "baseline", image_size=8).task.kind == "segmentation"
    with pytest.raises(ValueError, match="TinyNet does not tell the size of its images; give image_size="):
        sd.wrap(TinyNet(), "baseline")


def test_a_notebook_has_one_block_that_is_replaced(monkeypatch):
    shown, updates = [], []

    class Handle:
        def update(self, bundle, raw):
            updates.append(bundle)

    module = type("display", (), {"display": lambda bundle, **options: shown.append(options) or Handle()})
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    block, state = progress.NotebookProgress("frskd on <net>", every_seconds=0), small_state()
    block.on_start(state)
    for _ in range(3):
        block.on_step(state)
    block.on_end(state)
    assert shown == [{"raw": True, "display_id": True}] and len(updates) == 4
    assert "<progress" in updates[-1]["text/html"] and "frskd on &lt;net&gt;" in updates[-1]["text/html"]


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs/python.md"
    code = page.read_text(encoding="utf-8").split("```")[1].removeprefix("python\n")
    smaller = {
        '"/my/images"': '"digits", **{"data.limit": 40}, **QUICK',
        '"timm:resnet18"': '"cifar:resnet8"',
        "epochs=30, ": "",
        "seeds=5": "seeds=1",
        '"cat.jpg"': "image",
        'run="runs/mine"': 'run="runs/mine", **QUICK',
        "image_size=64": "image_size=8",
    }
    for written, tried in smaller.items():
        assert written in code
        code = code.replace(written, tried)
    monkeypatch.chdir(tmp_path)
    names = {"QUICK": QUICK, "image": Image.new("L", (8, 8)), "model": TinyNet(), "train_set": DATA[0]}
    exec(code, {**names, "val_set": DATA[1]})
    assert sd.load("runs/mine", student=TinyNet()).scores["count"] == 20


def test_a_module_whose_weights_are_trained_is_fine_tuned(tmp_path):
    settings = {"student.pretrained": True, "max_steps": 1, "out": tmp_path / "run"}
    run = sd.train(data=DATA, student=TinyNet(), method="baseline", **settings, **QUICK)
    assert run.recipe.optim.lr == 0.01 and run.recipe.optim.warmup == 0.1


def test_batch_norms_that_have_seen_images_are_mentioned(capsys):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    network(torch.rand(4, 1, 8, 8))
    settings = {**QUICK, "max_steps": 1, "progress": True}
    sd.fit(sd.wrap(network, "baseline", image_size=8), DATA, **settings)
    assert "note: the batch norms of Sequential have seen images: if its weights" in capsys.readouterr().err
    sd.fit(sd.wrap(network, "baseline", image_size=8), DATA, **{**settings, "student.pretrained": True})
    err = capsys.readouterr().err
    assert "have seen images" not in err and "optim.lr=0.01 (not 0.1)" in err


def test_dir_lists_the_public_names():
    assert set(dir(sd)) == {*sd.__all__, "__version__"} and {*sd._HOME, "losses"} == set(sd.__all__)


@pytest.fixture(scope="module")
def teacher():
    """A method whose training-only parts teach too."""
    return sd.create_method("sskd_teacher", TinyNet(), sd.Task("classification", 10, (1, 8, 8), 64))


def test_a_trained_method_teaches_without_a_run_folder(teacher, tmp_path):
    out = tmp_path / "taught"
    given = {"data": Digits(64), "student": TinyNet(), "method.teacher": teacher}
    run = sd.train(**given, method="sskd", out=out, **{"data.val_fraction": 0}, **QUICK)
    assert run.recipe.method.teacher == "object:SSKDTeacher" and run.scores is None
    resumed = sd.train(resume=run, **given, epochs=2, progress=False)
    assert resumed.result.epoch == 2
    with pytest.raises(ValueError, match="SSKD must be one that method=sskd_teacher trained, and this is a TinyNet"):
        sd.train(**(given | {"method.teacher": TinyNet()}), method="sskd", out=tmp_path / "wrong", **QUICK)
    large = sd.create_method("sskd_teacher", TinyNet(), sd.Task("classification", 10, (1, 16, 16)))
    with pytest.raises(ValueError, match="the teacher of SSKD knows images of 1x16x16, and these are 1x8x8"):
        sd.train(**(given | {"method.teacher": large}), method="sskd", out=tmp_path / "wrong", **QUICK)


@pytest.mark.slow
def test_a_comparison_of_finished_tensors_is_reported_without_pictures(teacher, tmp_path):
    settings = {"method.teacher": teacher, "out": tmp_path / "compared", **QUICK}
    table = sd.compare(data=DATA, student=TinyNet(), methods=["baseline", "sskd"], seeds=[0], **settings)
    assert "they come as finished tensors" in (Path(table.folder) / "report.html").read_text(encoding="utf-8")
