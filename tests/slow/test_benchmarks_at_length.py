"""Every script of the benchmarks, run at the smallest size: what it measures, prints, writes and leaves alone."""

import contextlib
import io
import json
import runpy
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.programs import run, start
from selfdistill import list_methods
from selfdistill.commands.cards import list_tasks_of
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = ["--size", "8", "--batch", "4", "--turns", "2", "--device", "cpu"]
OWN = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy

class Trained(nn.Module):
    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(image_shape[0], 8, 3), nn.Flatten(), nn.LazyLinear(num_classes))
        self.net(torch.zeros(1, *image_shape))

    def forward(self, images, labels):
        return cross_entropy(self.net(images), labels)

def build(student, num_classes, image_shape):
    assert student == "cifar:resnet8"
    return Trained(num_classes, image_shape)
"""


@pytest.fixture
def overhead(load):
    main = load("overhead").main

    def run(methods, *words, student="cifar:resnet8"):
        threads = ["--threads", str(torch.get_num_threads())]
        return main(["--students", student, "--methods", methods, *TINY, *threads, *words])

    return run


def program(*words):
    """Runs a script as a user does -> (exit code, standard output, standard error)."""
    script, *words = map(str, words)
    done = run([sys.executable, str(ROOT / "benchmarks" / script), *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def run_here(command, **_):
    """`subprocess.run` for a script, in this process: starting one takes longer than what it measures."""
    _, script, *words = command
    printed, code, threads = io.StringIO(), 0, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [script, *words])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(command, code, printed.getvalue())


def tables(printed):
    """The rows of each Markdown table, cells without their spaces."""
    blocks = [block for block in printed.split("\n\n") if block.startswith("| ")]
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks]


def test_plain_training_costs_itself_and_methods_more(overhead, capsys):
    found = overhead("frskd,sla")["cifar:resnet8"]
    assert [*found] == ["baseline", "frskd", "sla"]
    assert (found["baseline"].memory, found["baseline"].flops) == (1, 1)
    assert found["frskd"].flops > 1 and found["sla"].flops > 3.9 and found["sla"].counts.rows == 4
    for cost in found.values():
        assert 0 < cost.seconds.low <= cost.seconds.median <= cost.seconds.high
        assert 0 < cost.slowdown.low <= cost.slowdown.median <= cost.slowdown.high
    ((head, _, *rows),) = tables(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["baseline", "frskd", "sla"] and {len(row) for row in rows} == {len(head)}


def test_every_method_of_the_task_is_measured_unless_some_are_named(load):
    overhead = load("overhead")
    for kind in ("classification", "segmentation"):
        names = overhead.choose_methods(overhead.parse_arguments(["--task", kind]))
        assert names[0] == "baseline" and len(set(names)) == len(names)
        assert set(names) == {name for name in list_methods() if kind in list_tasks_of(find_method(name))}


def test_views_positives_and_teachers_are_provided(overhead):
    names = ["ddgsd", "bake", "hsakd", "kd", "ps_kd"]
    assert [*overhead(",".join(names))["cifar:resnet8"]] == ["baseline", *names]


def test_masks_are_measured_too(overhead):
    found = overhead("frskd", "--task", "segmentation", "--size", "32", student="smp:Unet/resnet18")
    assert found["smp:Unet/resnet18"]["frskd"].flops > 1


def test_precision_and_compilation_reach_the_step(overhead, load, capsys):
    overhead("baseline", "--precision", "bf16", "--no-channels-last")
    assert "bf16, 8x8 images, batches of 4" in capsys.readouterr().out
    harness = load("harness")
    setting = harness.Setting("classification", 4, 8, 5, torch.device("cpu"), "bf16", "false", True, 1)
    stepper, seen = harness.create_stepper("baseline", "cifar:resnet8", setting), []
    stepper.module.student.conv1.register_forward_hook(lambda layer, images, out: seen.append(out.dtype))
    before = stepper.module.student.fc.weight.clone()
    stepper.step()
    assert seen == [torch.bfloat16] and not torch.equal(before, stepper.module.student.fc.weight)


def test_another_implementation_takes_its_turns(overhead, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    found = overhead("frskd", "--against", str(tmp_path / "own.py"))["cifar:resnet8"]
    own = found[str(tmp_path / "own.py")]
    assert own.counts.rows == 1 and own.counts.student == 8 * 28 + 100 * (8 * 36 + 1) and own.flops < 1


def test_what_cards_are_written_from_keeps_other_students_and_methods(overhead, tmp_path):
    def report(methods, *words, student="cifar:resnet8"):
        overhead(methods, "--out", str(tmp_path / "times.json"), *words, student=student)
        return json.loads((tmp_path / "times.json").read_text())

    first = report("focal")
    assert (first["batch"], first["classes"]) == (4, 100) and "fp32, 8x8 images" in first["machine"]
    found = first["students"]["cifar:resnet8"]
    assert found["memory"]["focal"] > 0 and found["flops"]["focal"] == 1 and found["rows"] == {"focal": 1}
    low, high = found["spread"]["focal"]
    assert 0 < low <= found["ratios"]["focal"] <= high and found["baseline_seconds"] > 0
    both = report("focal", student="cifar:resnet14")["students"]
    assert both["cifar:resnet8"] == found and both.keys() == {"cifar:resnet8", "cifar:resnet14"}
    again = report("label_smoothing")["students"]["cifar:resnet8"]["ratios"]
    assert again == found["ratios"] | {"label_smoothing": again["label_smoothing"]}
    with pytest.raises(SystemExit, match="was measured with batch 4, not 5; give another --out"):
        report("focal", "--batch", "5")
    with pytest.raises(SystemExit, match="was measured with machine .*fp32, .*', not .*bf16, "):
        report("focal", "--precision", "bf16")


def test_a_method_that_refuses_the_student_is_left_out_with_its_reason(overhead, monkeypatch, capsys):
    def refuse(self):
        raise ValueError("this student has no such thing")

    monkeypatch.setattr(find_method("sla"), "setup", refuse)
    assert [*overhead("sla,focal")["cifar:resnet8"]] == ["baseline", "focal"]
    assert "sla                left out: this student has no such thing" in capsys.readouterr().err


def test_epochs_go_through_the_loop_with_and_without_scores(load, capsys):
    words = ["data=digits", "data.limit=40", "student=cifar:resnet8", "batch_size=16", "--epochs", "2"]
    load("throughput").main(words)
    ((_, _, *rows),) = tables(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["baseline", "frskd"]
    assert all(float(row[1].replace(",", "")) > 0 and float(row[5]) > 0 for row in rows)


def test_input_alone_is_measured_for_every_number_of_workers(load, capsys):
    words = ["--loading", "data=digits", "data.limit=64", "--workers", "0,1", "--epochs", "3", "--caches", "none"]
    load("throughput").main(words)
    out = capsys.readouterr().out
    ((_, _, *rows),) = tables(out)
    assert [row[:2] for row in rows] == [["none", "0"], ["none", "1"]] and "refused" not in out


def test_memory_grows_with_the_batch_and_a_memory_of_images_with_their_number(load):
    sizes = ["--along-batch", "4,8,16", "--along-examples", "1000,100000"]
    words = ["--student", "cifar:resnet8", "--methods", "baseline,ps_kd", *sizes, *TINY]
    found = load("scaling").main([*words, "--axes", "batch,examples"])
    assert [*found["batch"]["baseline"]] == [4, 8, 16]
    for points in found["batch"].values():
        memory = [point.memory for point in points.values()]
        assert memory == sorted(memory) and memory[0] < memory[-1] < 4 * memory[0]
    plain, remembering = (found["examples"][name] for name in ("baseline", "ps_kd"))
    assert plain[1000].memory == plain[100000].memory
    assert remembering[100000].memory - remembering[1000].memory == 99_000 * 100 * 4  # scores in float32


def test_two_processes_share_a_batch():
    words = ["--student", "cifar:resnet8", "--methods", "frskd", "--axes", "processes", *TINY, "--batch", "8"]
    code, out, err = program("scaling.py", *words)
    assert code == 0, err
    seconds, memory = tables(out)
    assert seconds[0][1:] == ["1", "2", "ratio"] and 0 < float(memory[2][3]) < 1


def test_the_page_of_all_benchmarks_is_continued_where_it_stopped(load, tmp_path, monkeypatch, capfd):
    bench, page = load("bench"), tmp_path / "page.md"
    monkeypatch.setattr(bench, "subprocess", SimpleNamespace(run=run_here, PIPE=subprocess.PIPE))
    page.write_text("# Some machine\n\n## Epochs\n\nof another command\n")
    words = ["--quick", "--page", str(page), "--device", "cpu"]
    bench.main(words)
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Some machine",
        "## Epochs",
        "## Where the time goes",
        "## Every method",
        "## Growth",
    ]
    assert "of another command" not in text and len(tables(text)) == 5
    capfd.readouterr()
    bench.main(words)
    assert page.read_text() == text and "Growth" not in capfd.readouterr().err


def test_all_that_a_gpu_is_wanted_for_runs_without_one_in_slices(load, tmp_path, monkeypatch, capfd):
    on_gpu = load("on_gpu")
    monkeypatch.delitem(on_gpu.checks.WHOLE, "golden")  # which the suite has anyway
    monkeypatch.delitem(on_gpu.checks.CHECKS, "one graph")  # compilers do not see through the tests' type checks
    monkeypatch.setattr(on_gpu, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run_here}))
    monkeypatch.setattr(load("processes"), "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))
    words = ["--device", "cpu", "--quick", "--data", "digits", "--out", str(tmp_path), "--epochs", "2", "--seeds", "1"]
    words += ["data.image_size=8", "data.channels=1", "data.mean=[0.3]", "data.std=[0.4]"]
    assert not on_gpu.main([*words, "--minutes", "0.01"])
    assert "not all done; the same command continues" in capfd.readouterr().err
    assert on_gpu.main(words)
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert checks["agrees: frskd, segmentation"].startswith("float64: losses within 0, gradients within 0; float32: ")
    assert checks["resume"] == "equal, bit for bit"
    assert not [found for found in checks.values() if "WRONG" in found]
    text = (tmp_path / "page.md").read_text()
    assert "failed" not in text and len(tables(text)) == 3
    baseline, frskd, longer = (row[0] for row in tables(text)[-1][2:])
    assert [baseline, frskd] == ["baseline", "frskd"] and longer.startswith("baseline+epochs=")
    capfd.readouterr()
    assert on_gpu.main(words) and capfd.readouterr().err.strip() == "all done"


def test_checks_run_in_several_processes_and_compilers_beside_them(load, tmp_path, monkeypatch, capfd):
    on_gpu, started = load("on_gpu"), []
    steps = {"Steps": on_gpu.TINY, "Compiled": f"{on_gpu.TINY} --compile true"}
    monkeypatch.setattr(on_gpu, "QUICK", on_gpu.QUICK._replace(steps=steps))
    monkeypatch.setattr(on_gpu, "ProcessPoolExecutor", lambda jobs, *_, **__: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(on_gpu.checks, "list_checks", lambda methods: methods)
    monkeypatch.setattr(on_gpu.checks, "report_check", lambda name, device: f"{name} on {device}")
    run = SimpleNamespace(wait=lambda timeout: None)
    popen = {"Popen": lambda words, **_: started.append(words) or run}
    monkeypatch.setattr(on_gpu, "subprocess", SimpleNamespace(**{**vars(subprocess), **popen}))
    words = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--jobs", "2", "--stages", "check"]
    assert on_gpu.main(words)
    assert json.loads((tmp_path / "checks.json").read_text()) == {"frskd": "frskd on cpu", "dlb": "dlb on cpu"}
    assert [Path(words[1]).name for words in started] == ["overhead.py"] and "--compile" in started[0]


def test_a_training_that_ran_out_of_time_goes_on(load, tmp_path, monkeypatch):
    on_gpu, processes = load("on_gpu"), load("processes")
    run, seen = tmp_path / "resnet-8/baseline-s0", []

    def epochs():
        records = Run.open(run).records() if (run / "metrics.jsonl").exists() else []
        return [record.step for record in records if record.kind == "epoch"]

    def start_until_more_epochs(command, **options):
        """Time is up after some more epochs, so that a slow machine is as good as a fast one."""
        process = start(command, **options)
        wait_for_end = process.wait

        def wait(timeout=None):
            if timeout is None:
                return wait_for_end()
            while process.poll() is None and len(epochs()) <= len(seen[-1] if seen else []) + 2:
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(command, timeout)

        process.wait = wait
        return process

    popen = {"Popen": start_until_more_epochs}
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(**{**vars(subprocess), **popen}))
    words = ["--device", "cpu", "--quick", "--data", "digits", "--out", str(tmp_path), "--epochs", "2000"]
    words += ["data.image_size=8", "data.channels=1", "data.mean=[0.3]", "data.std=[0.4]", "data.limit=100"]
    work = on_gpu.Work(on_gpu.parse_arguments(words))
    command = work.format_comparison("ResNet-8", tmp_path / "resnet-8")
    command = [word for word in command if not word.startswith(("controls=", "evaluate_every="))]
    for _ in range(2):
        assert not work.train_slice(command)
        seen.append(epochs())
    first, both = seen
    assert 0 < len(first) < len(both) and both[: len(first) - 1] == first[:-1]
    assert both == list(range(both[0], both[-1] + 1, both[0]))
