"""Seconds of one training step of every method, over those of one step of plain training.

    python benchmarks/step_times.py --student cifar:resnet18 --batch 32 --threads 2 --out docs/step-times.json

A step is forward, backward, SGD with momentum and `after_step`, on random images in memory: loading and augmenting are
not in it. Steps of a method take turns with steps of plain training, so that whatever else the machine does falls on
both. A ratio is the median over the turns, its spread the quartiles. Teachers are the same student, untrained. A method
that refuses the student is named with its reason and left out.

Writes {"machine", "batch", "classes", "students": {NAME: {"baseline_seconds", "ratios", "spread"}}}; what the file
holds of other students and methods stays, and must have been measured in the same way.
Cost: some 30 plain steps a method, 20 minutes where one takes a second; `--methods kd,frskd` measures these alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from selfdistill import Batch, Method, Task, create_method, list_methods
from selfdistill.environment import environment
from selfdistill.methods import find_method
from selfdistill.students import build_student

CLASSES = 100
WARM_UP = 2  # steps: the first one allocates, and finds no memory of an earlier batch
LATE = 0.9  # share of training done: every ramp is over


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Measures what the command line asks for, prints a table, and returns what was written."""
    given = arguments(words)
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else environment()["cpu"]
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    told = f"{threads}, torch {torch.__version__}, {given.precision}, {given.size}x{given.size} images"
    report = opened(given.out, {"machine": f"{chip}, {told}", "batch": given.batch, "classes": CLASSES})
    found = report["students"].setdefault(given.student, {"baseline_seconds": 0.0, "ratios": {}, "spread": {}})
    plain, plain_seconds = stepper("baseline", given), []
    for method in given.methods:
        try:
            turns = taken_in_turn(plain, stepper(method, given), given.turns)
        except ValueError as error:
            print(f"{method:18} left out: {error}")
            continue
        ratios = [own / other for other, own in turns]
        low, ratio, high = (round(each, 3) for each in statistics.quantiles(ratios, n=4, method="inclusive"))
        plain_seconds += [other for other, _ in turns]
        found["ratios"][method], found["spread"][method] = ratio, [low, high]
        print(f"{method:18} {ratio:6.2f}x   {low:.2f} to {high:.2f}", flush=True)
    if plain_seconds:
        found["baseline_seconds"] = round(statistics.median(plain_seconds), 5)
        print(f"{'baseline':18} {found['baseline_seconds']:.3f} s a step of {given.student}, {report['machine']}")
        given.out.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return report


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    everything = [name for name in list_methods() if name != "baseline"]
    parser.add_argument("--student", default="cifar:resnet18")
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), default=everything, help="kd,frskd: these alone"
    )
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7, help="steps of each method, at least 2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--out", type=Path, default=Path("docs/step-times.json"))
    return parser.parse_args(words)


def opened(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """What `path` holds, or an empty report; ends the program where it was measured in another way."""
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**setting, "students": {}}
    for key, value in setting.items():
        if report[key] != value:
            raise SystemExit(f"{path} was measured with {key} {report[key]!r}, not {value!r}; give another --out")
    return report


def made(name: str, student: str, task: Task) -> Method:
    """The method around a new student, with an untrained teacher where it needs one."""
    kind, net = find_method(name), build_student(student, num_classes=task.num_classes, image_shape=task.image_shape)
    other = made(kind.teacher_method or "baseline", student, task) if kind.needs_teacher else None
    return create_method(name, net, task, teacher=other if kind.teacher_method or other is None else other.student)


def stepper(name: str, given: argparse.Namespace) -> Callable[[], float]:
    """What takes one training step at every call, and returns its seconds."""
    shape, device, kind = (3, given.size, given.size), torch.device(given.device), find_method(name)
    method = made(name, given.student, Task("classification", CLASSES, shape, num_examples=given.batch)).to(device)
    further = [torch.randn(given.batch, count, *shape) if count else None for count in (kind.views, kind.partners)]
    labels, rows = torch.randint(CLASSES, (given.batch,)), torch.arange(given.batch)
    parts = (torch.randn(given.batch, *shape), labels, rows, *further)
    batch = Batch(*[None if part is None else part.to(device) for part in parts])
    trained = [parameter for parameter in method.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9)  # on noise, nothing is to be learned nor to diverge
    progress = torch.tensor(LATE, device=device)

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
            loss = method(batch, progress).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def taken_in_turn(plain: Callable[[], float], own: Callable[[], float], turns: int) -> list[tuple[float, float]]:
    """Seconds of a plain step and of a method's own, `turns` times, after a warm-up."""
    return [(plain(), own()) for _ in range(WARM_UP + turns)][WARM_UP:]


if __name__ == "__main__":
    main()
