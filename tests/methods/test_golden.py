"""Numbers computed with the authors' modules, in float64; see tests/golden/README.md."""

import pytest
import torch

from helpers.golden import close, read, under
from helpers.replay import Replay
from reference.authors import self_teacher_state
from selfdistill import Batch, Task, create_method, losses, mixing
from selfdistill.modules.bifpn import BiFPN, BiFPNc

FRSKD = ["frskd_bifpnc_attached", "frskd_bifpnc_detached", "frskd_bifpn_attached"]


def replayed(values, **hyperparameters):
    maps = [values[f"feature.{i}"] for i in range(3)]
    student = Replay(maps, values["student_logits"]).double()
    task = Task("classification", values["student_logits"].shape[1], (3, 16, 16))
    names = [f"stages.{i}" for i in range(3)]
    method = create_method("frskd", student, task, taps=names, **hyperparameters).double().train()
    method.self_teacher.load_state_dict(self_teacher_state(under(values, "teacher.")))
    return method, Batch(torch.zeros(len(maps[0]), 3, 16, 16, dtype=torch.float64), values["target"])


def settings(name, values):
    net = {"self_teacher_net": "BiFPN", "num_channels": int(values["hyper.num_channels"])} if "bifpn_" in name else {}
    return {
        "alpha": float(values["hyper.alpha"]),
        "beta": float(values["hyper.beta"]),
        "temperature": float(values["hyper.temperature"]),
        "stop_gradient": "detached" in name,
        **net,
    }


@pytest.mark.parametrize("name", FRSKD)
def test_frskd_has_the_authors_losses_gradients_and_batch_statistics(name):
    values = read(name)
    method, batch = replayed(values, **settings(name, values))
    step = method(batch)
    for ours, theirs, weight in [
        ("task", "ce_student", 1),
        ("teacher", "ce_teacher", 1),
        ("kd", "kd", method.alpha),
        ("feature", "feature", method.beta),
    ]:
        close(step.losses[ours], weight * values[f"loss.{theirs}"].squeeze())
    close(step.loss, values["loss.total"].squeeze())
    step.loss.backward()
    close(method.student.scores.grad, values["grad.student_logits"])
    for i, stage in enumerate(method.student.stages):
        close(stage.value.grad, values[f"grad.feature.{i}"])
    gradients = self_teacher_state(under(values, "grad.teacher."))
    for own, parameter in method.self_teacher.named_parameters():
        close(parameter.grad, gradients.pop(own))
    assert not gradients
    after = self_teacher_state(under(values, "after.teacher."))
    for own, buffer in method.self_teacher.named_buffers():
        if own.endswith("num_batches_tracked"):
            assert buffer == 1
        else:
            close(buffer, after.pop(own))
    assert not after


@pytest.mark.parametrize("name", FRSKD)
def test_self_teacher_has_the_authors_outputs(name):
    values = read(name)
    method, _ = replayed(values, **settings(name, values))
    logits, refined = method.self_teacher([values[f"feature.{i}"] for i in range(3)])
    close(logits, values["teacher_logits"])
    for i, each in enumerate(refined):
        close(each, values[f"teacher_feature.{i}"])


def test_sla_aggregates_and_distils_as_published():
    values = read("sla_sd")
    joint_target = mixing.joint_labels(values["target"])
    assert torch.equal(joint_target, values["joint_target"])
    votes = mixing.aggregate(values["joint_logits"])
    close(votes, values["aggregated_logits"])
    task = Task("classification", values["logits"].shape[1], (3, 8, 8))
    ce, joint = task.loss(values["logits"], values["target"]), task.loss(values["joint_logits"], joint_target)
    kd = losses.kd(values["logits"], votes, float(values["hyper.temperature"]))
    close(ce, values["loss.ce"].squeeze())
    close(joint, values["loss.joint_ce"].squeeze())
    close(kd, values["loss.self_distillation"].squeeze())
    close(ce + joint + kd, values["loss.total"].squeeze())


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (BiFPNc([64, 128, 256, 512], 100), 6_375_794),
        (BiFPNc([32, 64, 128], 100), 411_885),
        (BiFPNc([32, 64, 128], 100, width=1), 134_317),
        (BiFPNc([64, 128, 256, 512], 100, width=1), 1_983_730),
        (BiFPNc([64, 128, 256, 512], 200), 6_478_294),
        (BiFPN([64, 128, 256, 512], 100), 1_324_658),
        (BiFPN([32, 64, 128], 100), 681_581),
    ],
)
def test_self_teachers_have_the_authors_parameter_counts(net, count):
    assert sum(parameter.numel() for parameter in net.parameters()) == count
