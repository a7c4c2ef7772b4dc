"""Lightning's Trainer around a method: the same training as in a plain loop, and checkpoints that go on."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers.averaged import Averaged
from helpers.networks import CLASSES, SmallResNet
from selfdistill import Task, create_method
from selfdistill.adapters.lightning import SelfDistillMixin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    lightning = pytest.importorskip("lightning", reason='pip install "selfdistill[lightning]"')

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
SETTINGS = {"frskd": {"ramp": 1.0}, Averaged: {}}
STEPS = 4


def create(method):
    torch.manual_seed(0)
    task = Task("classification", CLASSES, (3, 16, 16))
    return create_method(method, SmallResNet(), task, total_steps=STEPS, **SETTINGS[method])


class Classifier(SelfDistillMixin, lightning.LightningModule):
    """What a user writes."""

    def __init__(self, method):
        super().__init__()
        self.use_method(create(method))
        self.losses = []

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses.append(self.trainer.callback_metrics["task_loss"].item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.method.parameters(), lr=0.01, momentum=0.9)


def load_images():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 3, 16, 16, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(0, CLASSES, (16,), generator=generator)), batch_size=4)


def create_trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_epochs": 2, "accumulate_grad_batches": 2, **settings}
    return lightning.Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **settings)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_module_trains_as_a_loop_of_ones_own_does(method, tmp_path):
    module = Classifier(method)
    create_trainer(tmp_path, enable_checkpointing=False).fit(module, load_images())
    expected = create(method).train()
    optimizer, losses = torch.optim.SGD(expected.parameters(), lr=0.01, momentum=0.9), []
    for number, batch in enumerate([*load_images()] * 2):
        step = expected(batch, number // 2 / STEPS)
        (step.loss / 2).backward()
        losses.append(step.losses["task"].item())
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
            expected.after_step()
    assert module.losses == losses
    for name, value in module.method.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


@pytest.mark.parametrize("method", SETTINGS)
def test_a_checkpoint_goes_on_as_if_nothing_had_been_stopped(method, tmp_path):
    save = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    whole, resumed = Classifier(method), Classifier(method)
    create_trainer(tmp_path, callbacks=[save]).fit(whole, load_images())
    last = create_trainer(tmp_path, enable_checkpointing=False)
    last.fit(resumed, load_images(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert resumed.losses == whole.losses[4:]
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name


def test_a_class_that_is_no_module_of_lightning_is_refused():
    class Alone(SelfDistillMixin):
        pass

    with pytest.raises(ValueError, match=r"Alone is no LightningModule; write class Alone\(SelfDistillMixin, Light"):
        Alone().use_method(create(Averaged))


def test_training_without_an_end_is_refused(tmp_path):
    module = Classifier(Averaged)
    module.trainer = create_trainer(tmp_path, max_epochs=-1, enable_checkpointing=False)
    with pytest.raises(ValueError, match="give the Trainer max_epochs or max_steps"):
        module.distill(next(iter(load_images())))
