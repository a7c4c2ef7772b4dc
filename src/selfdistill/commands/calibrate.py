"""eval --calibrate: fits the temperature of a student's probabilities and stores it beside the weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..distributed import default_device
from ..errors import count_of
from ..runs.student import load_student, read_card, read_complete_card, store_temperature
from ..tasks import Scores, find_task
from .arguments import tell_other_run
from .console import say, tell
from .evaluate import AtTemperature, choose_calibrated, open_scored, score_student

FEW = 100  # images, below which the user is told
LOWEST = 0.01  # of the search for a temperature, which ends there where none is the best


class Calibration(NamedTuple):
    """A fitted temperature, and the scores of the images that it was fitted on."""

    temperature: float
    images: str  # in words
    before: Scores
    after: Scores


def print_calibrations(paths: Sequence[Path], source: str | None, *, as_json: bool, trust: bool = False) -> None:
    """Fits and stores the temperature of each run's student, and prints what it changes."""
    for path in paths:
        result = calibrate_run(path, source, trust=trust)
        before, after = (choose_calibrated(scores) for scores in (result.before, result.after))
        if as_json:
            values = {"run": str(path), "data": result.images, "temperature": result.temperature}
            say(json.dumps({**values, "count": result.before.count, "before": before, "after": after}))
            continue
        changes = ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before)
        count = count_of(result.before.count, "image")
        say(f"{path}: temperature {result.temperature:.4g}, fitted on {count}: {result.images}; on these {changes}")
        use = "predict divides by it, and " if find_task(read_card(path, trust=trust).task).output == "image" else ""
        say(f"stored in {path / 'student.json'}: {use}exported files name it")


def calibrate_run(path: Path, source: str | None, *, trust: bool = False) -> Calibration:
    """Fits a temperature on a run's validation images, or on those of `source`, and stores it in student.json.

    Raises `ValueError` for a run whose held-out images are its test images, and where no temperature is the best.
    """
    card = read_complete_card(path, trust=trust)
    tell_other_run(path, card)
    task, scored = find_task(card.task), open_scored(path, card, source, trust=trust)
    if scored.split == "test":
        raise ValueError(
            f"{card.data.source} held out no validation images, and a temperature fitted on its test images would "
            "flatter them; name other labeled images with --data"
        )
    collector = task.outcomes(len(card.classes), -100)
    if collector is None:
        raise ValueError(f"task={card.task} has no class probabilities that a temperature could calibrate")
    student = load_student(path, trust=trust).to(default_device())
    before = score_student(student, card, scored.dataset, collector=collector)
    sample = collector.sample()
    if not sample.is_finite:
        raise ValueError(f"the class scores of {path} on {scored.images} are NaN or infinite, and have no temperature")
    temperature = sample.fit_temperature()
    if temperature <= LOWEST * 1.01:
        raise ValueError(
            f"all labels of {scored.images} have the highest score, so that no temperature is the best one; name more "
            "or harder images with --data"
        )
    if before.count < FEW:
        tell(f"note: {count_of(before.count, 'image')} are few to fit a temperature on")
    store_temperature(path, temperature, trust=trust)
    after = score_student(AtTemperature(student, temperature), card, scored.dataset)
    return Calibration(temperature, scored.images, before, after)
