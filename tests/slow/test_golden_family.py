"""Every method's numbers on one small problem, in float64 from the first draw, so that every processor gives them.

They may change only with a reason in the commit.

`PYTHONPATH=tests python tests/slow/test_golden_family.py` writes them anew.
"""

import json
from pathlib import Path

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import float64_by_default, small_method
from helpers.networks import small_student
from selfdistill import list_methods
from selfdistill.commands.cards import list_tasks_of
from selfdistill.methods import find_method

pytestmark = pytest.mark.slow
FILE = Path(__file__).parents[1] / "golden" / "family.json"
STEPS = 3


@float64_by_default()
def numbers(name):
    """The loss terms of a few steps, the sum of the scores and the size of the last gradient, as plain numbers."""
    torch.manual_seed(0)
    kind, task = find_method(name), small_task(list_tasks_of(find_method(name))[0])
    method, batch = small_method(kind, task, student=small_student(task)), small_batch(kind, task)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    terms = []
    for number in range(STEPS):
        torch.manual_seed(number)
        step = method(batch, torch.tensor((number + 1) / 4, dtype=torch.float64))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
        terms.append({term: value.item() for term, value in step.losses.items()})
    slope = sum(p.grad.square().sum() for p in method.student.parameters() if p.grad is not None)
    return {"losses": terms, "logits": step.logits.abs().sum().item(), "gradient": slope.item()}


@pytest.mark.parametrize("name", list_methods())
def test_the_numbers_are_what_they_were(name):
    told, found = json.loads(FILE.read_text(encoding="utf-8"))[name], numbers(name)
    for old, new in zip(told["losses"], found["losses"], strict=True):
        assert new == pytest.approx(old, rel=1e-9, abs=1e-12)
    assert found["logits"] == pytest.approx(told["logits"], rel=1e-9)
    assert found["gradient"] == pytest.approx(told["gradient"], rel=1e-8)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: numbers(name) for name in list_methods()}, indent=1) + "\n", encoding="utf-8")
