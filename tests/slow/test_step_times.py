"""The benchmark of step times: what it measures, writes and leaves alone."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from selfdistill import list_methods
from selfdistill.methods import find_method

pytestmark = pytest.mark.slow


@pytest.fixture
def step_times():
    path = Path(__file__).parents[2] / "benchmarks/step_times.py"
    spec = importlib.util.spec_from_file_location("step_times", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measure(step_times, tmp_path):
    """Runs the command on tiny images with the threads there are; returns what it wrote."""

    def run(methods, *words, student="cifar:resnet8", out=tmp_path / "times.json"):
        tiny = ["--size", "8", "--batch", "4", "--turns", "3", "--threads", str(torch.get_num_threads())]
        report = step_times.main(["--student", student, "--methods", methods, "--out", str(out), *tiny, *words])
        assert report == json.loads(out.read_text())
        return report

    return run


def test_it_measures_what_plain_training_and_a_method_take(measure, capsys):
    report = measure("label_smoothing,sla")
    found = report["students"]["cifar:resnet8"]
    assert (report["batch"], report["classes"], found["ratios"].keys()) == (4, 100, {"label_smoothing", "sla"})
    assert report["machine"].endswith(f"torch {torch.__version__}, fp32, 8x8 images")
    assert f"{torch.get_num_threads()} thread" in report["machine"]
    assert 0 < found["baseline_seconds"] < 10
    for method, ratio in found["ratios"].items():
        low, high = found["spread"][method]
        assert 0 < low <= ratio <= high
    printed = capsys.readouterr().out
    assert "sla  " in printed and "baseline  " in printed


def test_views_partners_and_teachers_are_provided(measure):
    needy = {n for n in list_methods() for k in [find_method(n)] if k.views or k.partners or k.needs_teacher}
    chosen = {
        next((name for name in sorted(needy) if getattr(find_method(name), need)), None)
        for need in ("views", "partners", "teacher_method", "needs_teacher")
    } - {None}
    if not chosen:
        pytest.skip("no method needs more than images and labels")
    assert measure(",".join(sorted(chosen)))["students"]["cifar:resnet8"]["ratios"].keys() == chosen


def test_every_method_but_plain_training_is_measured(step_times):
    assert step_times.arguments([]).methods == [name for name in list_methods() if name != "baseline"]


def test_other_students_and_methods_in_the_file_stay(measure):
    first = measure("focal")["students"]["cifar:resnet8"]
    both = measure("focal", student="cifar:resnet14")["students"]
    assert both["cifar:resnet8"] == first and both.keys() == {"cifar:resnet8", "cifar:resnet14"}
    again = measure("label_smoothing")["students"]["cifar:resnet8"]
    assert again["ratios"] == first["ratios"] | {"label_smoothing": again["ratios"]["label_smoothing"]}


def test_a_method_that_refuses_the_student_is_left_out_with_its_reason(measure, monkeypatch, capsys):
    def refuse(self):
        raise ValueError("this student has no such thing")

    monkeypatch.setattr(find_method("sla"), "setup", refuse)
    assert measure("sla,focal")["students"]["cifar:resnet8"]["ratios"].keys() == {"focal"}
    assert "sla                left out: this student has no such thing" in capsys.readouterr().out


def test_numbers_of_another_machine_are_not_mixed_in(measure):
    measure("focal")
    with pytest.raises(SystemExit, match="was measured with batch 4, not 5; give another --out"):
        measure("focal", "--batch", "5")
    with pytest.raises(SystemExit, match="was measured with machine .*fp32, .*', not .*bf16, "):
        measure("focal", "--precision", "bf16")


def test_median_and_quartiles_are_over_turns(step_times, tmp_path, monkeypatch):
    steps = {"baseline": iter([9, 9, 1, 2, 4]), "focal": iter([9, 9, 3, 2, 8])}  # two to warm up; then 3, 1 and 2
    monkeypatch.setattr(step_times, "stepper", lambda name, given: lambda: next(steps[name]))
    report = step_times.main(["--turns", "3", "--methods", "focal", "--out", str(tmp_path / "times.json")])
    assert report["students"]["cifar:resnet18"] == {
        "baseline_seconds": 2,
        "ratios": {"focal": 2.0},
        "spread": {"focal": [1.5, 2.5]},
    }
