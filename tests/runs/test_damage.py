"""Records that are torn, garbled or built to hurt are one sentence that names the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from selfdistill.config.files import MOST_VALUES
from selfdistill.config.recipe import Recipe
from selfdistill.models import build_student
from selfdistill.report.comparison import compare_runs
from selfdistill.runs.environment import Environment
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, Parameters, WarningRecord
from selfdistill.runs.student import NetworkCard, StudentCard, read_card, save_student

READERS: dict[str, Callable[[Run], object]] = {
    "recipe.yaml": lambda run: run.recipe(),
    "environment.json": lambda run: run.environment(),
    "metrics.jsonl": lambda run: run.records(),
    "student.json": lambda run: read_card(run.path),
}
HARMS: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda content: bytes(range(128, 256)) + b"\n",
    "another type": lambda content: b"[1]\n",
    "deep": lambda content: b"[" * 50_000 + b"]" * 50_000 + b"\n",
    "many digits": lambda content: content.replace(b"1", b"1" * 5000, 1),
    "null": lambda content: content.replace(b": ", b": null, ", 1) if content.startswith(b"{") else b"epochs: []\n",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", Recipe(batch_size=16))
    network = NetworkCard(name="cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))
    card = StudentCard(task="classification", classes=("a", "b", "c"), student=network, data={}, method="kd", step=1)
    save_student(run, build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16)).state_dict(), card)
    run.write_environment(Environment(cores=1))
    run.append(WarningRecord(epoch=1, step=1, text="a"))
    parameters = Parameters(student=1, training_only=0)
    run.append(EndRecord(split="val", scores=None, epoch=1, step=1, seconds_per_step=1.0, parameters=parameters))
    return run


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_record_is_one_short_sentence(run: Run, name: str, harm: str) -> None:
    file = run.path / name
    READERS[name](run)
    file.write_bytes(HARMS[harm](file.read_bytes()))
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        READERS[name](run)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(file)) + 800


@pytest.mark.parametrize("name", READERS)
def test_a_record_that_is_cut_is_refused_or_reads_as_before(run: Run, name: str) -> None:
    """A recipe that was cut at the end of a line reads as another one; its checkpoint knows what it was."""
    file = run.path / name
    whole, expected = file.read_bytes(), READERS[name](run)
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        try:
            read = READERS[name](run)
        except ValueError as error:
            assert str(file) in str(error)
        else:
            assert name in ("metrics.jsonl", "recipe.yaml") or read == expected


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl"])
def test_comparisons_name_the_damaged_record(run: Run, name: str) -> None:
    assert compare_runs([run.path]).rows
    (run.path / name).write_bytes(b"{\n")
    with pytest.raises(ValueError, match=name):
        compare_runs([run.path])


def test_aliases_that_would_fill_the_memory_are_refused(run: Run) -> None:
    lines = ["a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (run.path / "recipe.yaml").write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=f"recipe.yaml cannot be read as YAML: it holds more than {MOST_VALUES:,} values"
    ):
        run.recipe()


def test_a_runs_recipe_stands_alone(run: Run) -> None:
    (run.path / "recipe.yaml").write_text("base: /dev/zero\n")
    with pytest.raises(ValueError, match="recipe.yaml builds on another file, and a run's recipe stands alone"):
        run.recipe()


@pytest.mark.parametrize("text", ["", "\n", "# signed\n"])
def test_an_empty_recipe_is_named_and_leaves_the_student_readable(run: Run, text: str) -> None:
    (run.path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match="recipe.yaml is empty or cut"):
        run.recipe(trust=True)
    assert read_card(run.path).method == "kd"


@pytest.mark.parametrize("name", ["environment.json", "metrics.jsonl", "student.json", "last.pt", "recipe.yaml"])
def test_a_pipe_or_a_device_is_not_waited_for(run: Run, name: str) -> None:
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    for read in (Run.environment, Run.records, Run.recipe, lambda run: read_card(run.path), Run.load_whole_checkpoint):
        try:
            read(Run.open(run.path))
        except ValueError as error:
            assert str(run.path) in str(error)
