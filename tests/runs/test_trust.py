"""This machine's key signs what it writes, and a folder without its signature is data."""

import json
import os
import re
from pathlib import Path

import pytest

from selfdistill.config.read import parse
from selfdistill.config.recipe import Recipe
from selfdistill.models import build_student
from selfdistill.runs import trust
from selfdistill.runs.folder import Run
from selfdistill.runs.student import NetworkCard, StudentCard, load_student, read_card, save_student

TINY = "helpers.networks:SmallResNet"


def make_run(path: Path, **settings) -> Run:
    """A run of these settings, with a student that is not theirs."""
    run = Run.create(path, parse({"student": "cifar:resnet8", **settings}))
    network = NetworkCard(name="cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))
    card = StudentCard(
        task="classification", classes=("a", "b", "c"), student=network, data=settings.get("data", {}), method="kd"
    )
    save_student(run, build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16)).state_dict(), card)
    return run


def rename_student(run: Run, name: str) -> None:
    """As a stranger would: the card names other code, and its checksum is right."""
    path = run.path / "student.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    values["student"]["name"] = name
    path.write_text(json.dumps(values))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """From now on this is another machine."""
    return lambda: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))


def test_the_key_is_random_private_and_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))
        assert trust.find_key(make=False) is None and not (tmp_path / name).exists()
        assert trust.find_key(make=True) == trust.find_key(make=True)
        path = tmp_path / name / "selfdistill" / "key"
        assert path.stat().st_mode & 0o777 == 0o600 and os.listdir(path.parent) == ["key"]
        keys.add(path.read_bytes())
    assert len(keys) == 2 and all(len(key) == 32 for key in keys)


def test_a_damaged_key_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "selfdistill" / "key"
    path.parent.mkdir()
    path.write_bytes(b"short")
    assert trust.find_key(make=False) is None
    assert trust.find_key(make=True) == path.read_bytes() != b"short"


def test_without_a_place_for_the_key_runs_are_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))  # below a file there is no folder, not even for root
    run = make_run(tmp_path / "run")
    load_student(run.path)
    assert run.recipe().student.name == "cifar:resnet8" and not run.is_own


def test_what_this_machine_wrote_may_name_code(tmp_path: Path, elsewhere) -> None:
    run = make_run(tmp_path / "run", student=TINY, method="mine:Method")
    assert run.is_own and run.recipe().method.name == "mine:Method"
    elsewhere()
    with pytest.raises(ValueError, match=rf"would import and run student={TINY}, method=mine:Method; .* say --trust"):
        run.recipe()
    assert run.recipe(trust=True).method.name == "mine:Method"


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "a:B"},
        {"task": {"kind": "classification", "criterion": "a:b"}},
        {"student": "torch.hub:load"},
        {"method": "a:B"},
        {"data": {"augment": ["flip", "a:b"]}},
    ],
)
def test_every_setting_that_names_code_is_found(tmp_path: Path, elsewhere, settings) -> None:
    run = Run.create(tmp_path / "run", parse(settings))
    elsewhere()
    with pytest.raises(ValueError, match=r"this machine and would import and run .*:"):
        run.recipe()


def test_names_of_the_package_need_no_trust(tmp_path: Path, elsewhere) -> None:
    names = ("timm:resnet18", "torchvision:resnet18", "smp:Unet/resnet18", "efficientdet:d0", "cifar:vgg8")
    runs = [Run.create(tmp_path / str(i), parse({"student": name})) for i, name in enumerate(names)]
    elsewhere()
    assert [run.recipe().student.name for run in runs] == [*names]


def test_a_changed_recipe_loses_its_signature(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", parse({"method": "a:B"}))
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("a:B", "a:C"))
    with pytest.raises(ValueError, match="method=a:C"):
        run.recipe()


def test_a_card_is_signed_beside_its_recipe(tmp_path: Path) -> None:
    first, other = (make_run(tmp_path / name, epochs=epochs) for name, epochs in (("a", 1), ("b", 2)))
    values = json.loads((first.path / "student.json").read_text())
    values["student"]["name"] = TINY
    save_student(
        first,
        build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16)).state_dict(),
        read_card(first.path).model_copy(update={"student": NetworkCard(**values["student"])}),
    )
    assert read_card(first.path).student.name == TINY
    for name in ("student.json", "student.safetensors"):
        (other.path / name).write_bytes((first.path / name).read_bytes())
    with pytest.raises(ValueError, match=f"would import and run student={TINY}"):
        read_card(other.path)
    rename_student(first, "other.module:Net")
    with pytest.raises(ValueError, match="would import and run student=other.module:Net"):
        load_student(first.path)


def test_a_strangers_settings_do_not_reach_beyond_the_folder(tmp_path: Path, elsewhere) -> None:
    data = {"source": "torchvision:CIFAR10", "download": True, "root": "/etc"}
    machine = {"track": ["wandb"], "cache": "disk", "workers": 2}
    student = {"name": "timm:resnet18", "pretrained": True, "options": {"cache_dir": "/etc", "drop_rate": 0.1}}
    run = make_run(tmp_path / "run", data=data, machine=machine, student=student)
    stored = run.recipe()
    assert stored.data.download and stored.machine.track and stored.student.pretrained
    elsewhere()
    recipe, usual = run.recipe(["machine.workers=3"]), Recipe()
    for data in (recipe.data, read_card(run.path).data):
        assert (data.download, data.root) == (False, usual.data.root)
    assert recipe.machine == usual.machine.model_copy(update={"workers": 3})  # which the user asks for
    assert not recipe.student.pretrained and recipe.student.options == {"drop_rate": 0.1}
    assert recipe.data.source == "torchvision:CIFAR10" and run.recipe(trust=True) == stored


@pytest.mark.parametrize("option", ["num_classes", "output", "name"])
def test_an_option_that_is_none_is_named(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"options=.* holds {option}, which is no option"):
        values = json.loads((make_run(tmp_path / "run").path / "student.json").read_text())
        del values["checksum"]
        values["student"]["options"] = {option: 1}
        (tmp_path / "run" / "student.json").write_text(json.dumps(values))
        read_card(tmp_path / "run")


@pytest.mark.parametrize(
    ("teacher", "reason"),
    [
        ({"teacher": TINY}, f"would import and run method.teacher={TINY}"),
        ({"teacher": "a.pt", "teacher_network": TINY}, f"would import and run method.teacher_network={TINY}"),
        ({"teacher": "timm:resnet18"}, "the weights of its method.teacher=timm:resnet18 would be fetched; say --trust"),
    ],
)
def test_a_stranger_s_teacher_is_neither_run_nor_fetched(tmp_path, elsewhere, teacher, reason):
    run = make_run(tmp_path / "run", method={"name": "kd", **teacher})
    elsewhere()
    with pytest.raises(ValueError, match=re.escape(reason)):
        run.recipe()
    assert run.recipe(trust=True).method.teacher == teacher["teacher"]
