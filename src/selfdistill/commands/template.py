"""new-method: writes a method to start from, and its test."""

import keyword
from pathlib import Path

from ..errors import did_you_mean
from ..methods import list_methods
from .console import say

METHOD = '''"""{title}: say in one sentence what the method is, and cite the paper."""

from selfdistill import Batch, Method, Step, losses
from selfdistill.hyperparameters import Positive, Weight, hparam


class {title}(Method):
    """Say who teaches whom. As it stands: the student's scores of the mirrored image teach it, as a constant."""

    outputs = ("image",)  # ("image", "pixel") if it can train networks that score each pixel too
    cost = "a second forward pass, without gradients"

    alpha: Weight = hparam(1.0, "weighs the soft-label loss")
    temperature: Positive = hparam(4.0, "softens both sides before they are compared")

    def setup(self) -> None:
        """Build here what only training needs: modules, buffers. self.student, self.task and self.taps are there."""

    def forward(self, batch: Batch, progress: float = 0.0) -> Step:
        logits = self.student(batch.images)
        mirrored = self.student(batch.images.flip(-1)).detach()
        task = self.task.loss(logits, batch.target, batch.soft_target)
        kd = losses.kd(logits, mirrored, self.temperature)
        return Step({{"task": task, "kd": self.alpha * kd}}, logits)
'''
TEST = '''"""Whether {title} keeps what every method must, and computes what its paper says."""

import pytest
import torch

from selfdistill.commands.contract import build_trial, check_method
from {name} import {title}


@pytest.mark.parametrize("promise, problem", [*check_method({title}, "classification")])
def test_contract(promise, problem):
    assert problem is None, f"{{promise}}: it {{problem}}"


def test_the_loss_is_the_papers():
    """Compare with the paper's equation, written in another way; here: nothing is learned from an equal image."""
    method, batch = build_trial({title}, "classification")
    method.eval()  # else batch norm sees two batches
    symmetric = batch._replace(images=batch.images + batch.images.flip(-1))
    torch.testing.assert_close(method(symmetric).losses["kd"], torch.tensor(0.0), atol=1e-5, rtol=0)
'''


def write_method(name: str) -> None:
    """Writes NAME.py and test_NAME.py into the working directory; raises `ValueError` for names it cannot take."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name for a Python file; take letters, digits and _, as in my_method")
    if name in list_methods():
        raise ValueError(f"a method of the package is called {name}{did_you_mean(name, [f'my_{name}'])}")
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    files = {Path(f"{name}.py"): METHOD, Path(f"test_{name}.py"): TEST}
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists already; choose another name")
    for path, text in files.items():
        path.write_text(text.format(name=name, title=title), encoding="utf-8")
    say(f"{name}.py and test_{name}.py are written; next:")
    say(f"  selfdistill contract {name}:{title}")
    say(f"  selfdistill train data=digits student=cifar:resnet8 method={name}:{title} epochs=1")
    say(f"  python -m pytest test_{name}.py")
