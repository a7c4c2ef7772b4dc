"""transformers' Trainer around a method: the same training as in a plain loop, and plain models after it."""

import os
import socket

import pytest
import torch
from torch.utils.data import Dataset

from helpers import programs
from helpers.averaged import Averaged
from selfdistill import Batch, Task, create_method
from selfdistill.features.scores import ScoresAlone

pytest.importorskip("selfdistill.adapters.transformers", exc_type=ImportError)

import transformers

from selfdistill.adapters.transformers import SelfDistillTrainer

CLASSES, SHAPE, IMAGES = 5, (3, 32, 32), 16
OPTIONS = transformers.TrainingArguments.__dataclass_fields__
CHECKPOINTING = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in OPTIONS)


class Images(Dataset):
    """Random images, with classes or masks, as transformers takes them."""

    def __init__(self, kind="class"):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(IMAGES, *SHAPE, generator=generator)
        shape = {"class": (IMAGES,), "mask": (IMAGES, *SHAPE[1:]), "several": (IMAGES, CLASSES)}[kind]
        self.labels = torch.randint(0, 2 if kind == "several" else CLASSES, shape, generator=generator)
        self.labels = self.labels.float() if kind == "several" else self.labels

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def create_resnet(**settings):
    transformers.set_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], layer_type="basic", num_labels=CLASSES, **settings
    )
    return transformers.ResNetForImageClassification(config)


def create_vit():
    transformers.set_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=CLASSES, **sizes)
    return transformers.ViTForImageClassification(config)


def create_trainer(folder, model=None, *, method="frskd", kind="class", arguments=None, **settings):
    arguments = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "max_grad_norm": 0,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **(arguments or {}),
    }
    if method == "frskd":
        settings = {"hyperparameters": {"ramp": 1.0}, "image_shape": SHAPE, **settings}
    return SelfDistillTrainer(
        model or create_resnet(),
        transformers.TrainingArguments(str(folder), **arguments),
        method=method,
        train_dataset=Images(kind),
        eval_dataset=Images(kind),
        **settings,
    )


@pytest.mark.parametrize("method", ["frskd", Averaged])
def test_a_trainer_trains_as_a_loop_of_ones_own_does(method, tmp_path):
    trainer = create_trainer(tmp_path, method=method, image_shape=SHAPE)
    shown = []
    trainer.method.register_forward_pre_hook(lambda module, inputs: shown.append(inputs))
    trainer.train()

    model = create_resnet()
    transformers.set_seed(trainer.args.seed)
    settings = {"ramp": 1.0} if method == "frskd" else {}
    task = Task("classification", CLASSES, SHAPE, IMAGES)
    expected = create_method(method, ScoresAlone(model), task, total_steps=4, **settings).train()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.01)
    for number, (batch, progress) in enumerate(shown):
        assert progress == number // 2 / 4
        (expected(Batch(*batch), progress).loss / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
            expected.after_step()
    assert len(shown) == 8
    for name, value in trainer.method.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    first = trainer.state.log_history[0]
    terms = [value for name, value in first.items() if name.endswith("_loss")]
    assert len(terms) > 1 and sum(terms) == pytest.approx(first["loss"], rel=1e-3)


RESUMED = [("frskd", create_resnet), (Averaged, create_resnet), ("frskd", create_vit)]


@pytest.mark.slow
@pytest.mark.skipif(
    "safe_globals" not in vars(transformers.trainer), reason="transformers cannot read its own random state"
)
@pytest.mark.parametrize(("method", "create"), RESUMED)
def test_a_resumed_trainer_goes_on_as_if_it_had_not_stopped(method, create, tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 2}
    whole, resumed = (
        create_trainer(tmp_path, create(), method=method, image_shape=SHAPE, arguments=arguments) for _ in range(2)
    )
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    weights = type(whole.plain_model).from_pretrained(tmp_path / "checkpoint-4").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.plain_model.state_dict().items())


def test_the_best_model_is_taken_at_the_end(tmp_path):
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    arguments |= {"load_best_model_at_end": True, "metric_for_best_model": "first", "learning_rate": 0.1}
    answers = iter([1.0, 0.0])
    trainer = create_trainer(
        tmp_path, create_vit(), arguments=arguments, compute_metrics=lambda given: {"first": next(answers)}
    )
    trainer.train()
    best = transformers.ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-1").state_dict()
    last = transformers.ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    for name, value in trainer.plain_model.state_dict().items():
        assert torch.equal(value, best[name]), name
    assert not torch.equal(best["classifier.bias"], last["classifier.bias"])


def test_the_plain_model_is_evaluated_and_saved(tmp_path):
    trainer = create_trainer(tmp_path, compute_metrics=lambda given: {"shape": given.predictions.shape[1]})
    scores = trainer.evaluate()
    data = Images()
    with torch.no_grad():
        answers = trainer.plain_model.eval()(pixel_values=data.images, labels=data.labels)
    assert scores["eval_loss"] == pytest.approx(answers.loss.item(), rel=1e-4) and scores["eval_shape"] == CLASSES
    trainer.save_model(tmp_path / "saved")
    saved = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(saved(data.images).logits, answers.logits)


def test_labels_are_smoothed_as_the_arguments_say(tmp_path):
    arguments = {"label_smoothing_factor": 0.5, "max_steps": 1}
    trainer = create_trainer(tmp_path, method="baseline", image_shape=SHAPE, arguments=arguments)
    trainer.train()
    assert trainer.method.task.criterion.label_smoothing == 0.5 and trainer.evaluate()["eval_loss"] > 0


def test_segmenters_learn_from_masks(tmp_path):
    transformers.set_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=4,
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
        num_labels=CLASSES,
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    trainer = create_trainer(tmp_path, model, kind="mask", arguments={"max_steps": 1})
    trainer.train()
    assert trainer.method.task.output == "pixel" and trainer.method.task.ignore_index == 255
    assert trainer.evaluate()["eval_loss"] > 0


def test_images_of_several_classes_are_learned(tmp_path):
    model = create_resnet(problem_type="multi_label_classification")
    trainer = create_trainer(
        tmp_path, model, method="baseline", kind="several", image_shape=SHAPE, arguments={"max_steps": 1}
    )
    trainer.train()
    assert trainer.method.task.kind == "multilabel" and trainer.evaluate()["eval_loss"] > 0


def test_a_transformer_tells_its_image_size_and_a_teacher_may_be_one_too(tmp_path):
    trainer = create_trainer(tmp_path, create_vit(), method="kd", teacher=create_resnet(), arguments={"max_steps": 1})
    trainer.train()
    assert trainer.method.task.image_shape == SHAPE
    saved = trainer.save_model(tmp_path / "saved") or torch.load(tmp_path / "saved" / "selfdistill_method.pt")
    assert not [name for name in saved if name.startswith(("student", "teacher"))]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"image_shape": None}, "ResNetForImageClassification does not say its image_size; give image_shape="),
        ({"model": torch.nn.Linear(2, 2)}, "takes a model of transformers, not a Linear"),
        ({"compute_loss_func": print}, "takes no compute_loss_func: .* give loss="),
        ({"model_init": create_resnet}, "takes no model_init"),
        ({"arguments": {CHECKPOINTING: True}}, "call model.gradient_checkpointing_enable"),
        ({"method": "kd", "image_shape": SHAPE}, "KD needs a teacher"),
        ({"hyperparameters": {"ramps": 1}}, "FRSKD has no hyper-parameter 'ramps'; did you mean 'ramp'"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        create_trainer(tmp_path, **settings)


def test_a_method_that_needs_more_of_the_images_says_so(tmp_path):
    trainer = create_trainer(tmp_path, method="ps_kd", image_shape=SHAPE)
    with pytest.raises(ValueError, match="knows an image by its index in the training set, and batch.index=None"):
        trainer.train()


def train_in_a_process(rank, folder, world, port):
    """What one of the processes does that torchrun starts."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 1}
    trainer = create_trainer(folder, method=Averaged, image_shape=SHAPE, arguments=arguments)
    trainer.train()
    torch.save(trainer.method.state_dict(), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_one_saves_them(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs.call(train_in_a_process, str(tmp_path), 2, port, processes=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items() if "running" not in name)
    saved = torch.load(tmp_path / "checkpoint-2" / "selfdistill_method.pt")
    assert saved and all(torch.equal(value, first[name]) for name, value in saved.items() if "running" not in name)
