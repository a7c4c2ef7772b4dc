"""Every loss term of every method against a slow reference, written from the paper's equations in another style."""

from typing import Any, NamedTuple

import pytest
import torch

from helpers.batches import double_batch, small_task
from helpers.expected_terms import EXPECTED, Outputs
from helpers.methods import agree, settled_in_double, small_method
from helpers.networks import small_student
from helpers.replay import SHAPES, replayed
from selfdistill import list_methods
from selfdistill.methods import find_method

OWN_FILES = {"dlb", "dsr", "dtskd", "manifold_mixup", "mixskd", "ofd", "ps_kd"}  # memories, draws, norms at rest


class Case(NamedTuple):
    """A method with some settings, the share of training done, and the terms that must not be there."""

    name: str
    settings: dict[str, Any] = {}
    progress: float = 0.0
    gone: str = ""
    side: int = 8  # of the images
    rows: int = 5
    padding: int = 1  # 0: stages that do not halve their maps' sizes

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.settings.items()), f"at {self.progress:g}"])


BIFPN = {"self_teacher_net": "BiFPN", "num_channels": 6}
OVERHAUL = {"feature_loss": "overhaul", "beta": 1e-3}
CURRENT = {"margin": "current"}
HEAD = {"voter": "head"}
SSKD = {"task_weight": 0.3, "kd_weight": 0.7, "transformation_weight": 1.5, "similarity_weight": 4.0}
SSKD |= {"temperature": 2.0, "similarity_temperature": 0.2}

CASES = [
    *(Case(name, progress=0.9) for name in EXPECTED),  # as a user has them, every term awake
    Case("bake", {"omega": 0.2, "temperature": 1.5, "weight": 0.3}, rows=3),
    Case("bake", {"weight": 0.0}, gone="kd"),
    Case("byot", {"attention": False, "temperature": 4.0, "feature_weight": 2.0}, side=16),
    Case("byot", {"squared_temperature": True, "alpha": 0.1}),
    Case("byot", {"alpha": 0.0}, gone="kd"),
    Case("byot", {"alpha": 1.0}, gone="exits"),
    Case("byot", {"feature_weight": 0.0}, gone="feature"),
    Case("byot", {"taps": ["stage2", "stage3"]}),
    Case("cs_kd", {"weight": 3.0, "temperature": 2.0}),
    Case("cs_kd", {"weight": 0.0}, gone="kd"),
    Case("ddgsd", {"weight": 0.5, "mu": 2.0, "temperature": 1.5}),
    Case("ddgsd", {"weight": 0.0}, gone="kd"),
    Case("ddgsd", {"mu": 0.0}, gone="mmd"),
    Case("dks", {"weight": 0.5, "temperature": 2.0}),
    Case("dks", {"weight": 0.0}, gone="synergy"),
    Case("dks", {"taps": ["stage2", "stage3"]}),
    Case("drg", {"alpha": 1.5, "temperature": 2.0}),
    Case("drg", {"level": 1}),
    Case("drg", {"alpha": 0.0}, gone="kd"),
    Case("fitnet", {"level": 1, "weight": 3.0, "rectified": False}),
    Case("fitnet", {"level": 3}),
    Case("fitnet", {"taps": ["stage1", "stage3"]}),  # the student's map is twice as large as the teacher's
    Case("fitnet", {"taps": ["stage3.conv1", "stage3"]}),  # half as large
    Case("fitnet", {"taps": ["stage1"]}),  # a kernel of 7x7 takes 8x8 to 2x2
    Case("focal", {"gamma": 0.0}),
    Case("focal", {"gamma": 0.5}),
    Case("frskd", {"alpha": 3.0, "beta": 200.0, "temperature": 3.0}),
    Case("frskd", {"width": 1, "depth": 1}),
    Case("frskd", BIFPN | {"repeat": 2}),
    Case("frskd", {"levels": 2}),
    Case("frskd", {"levels": 1}),
    Case("frskd", {"feature_loss": "hint", "beta": 1.5}),
    Case("frskd", {"feature_loss": "hint"} | BIFPN),
    Case("frskd", OVERHAUL),
    Case("frskd", OVERHAUL | CURRENT),
    Case("frskd", OVERHAUL | CURRENT | {"levels": 1}),
    Case("frskd", OVERHAUL | CURRENT | BIFPN | {"repeat": 2}),
    Case("frskd", {"alpha": 0.0}, gone="kd"),
    Case("frskd", {"beta": 0.0}, gone="feature"),
    Case("frskd", {"alpha": 0.0, "beta": 0.0}, gone="kd feature"),
    Case("frskd", {"stop_gradient": True}),
    Case("frskd_sla", {"stop_gradient": True}),
    *(Case("frskd", {"warmup": 0.2, "ramp": 0.6}, progress) for progress in (0.0, 0.2, 0.5, 0.79, 0.9)),
    *(Case("frskd_sla", {"feature_loss": loss, "gamma": 0.7}) for loss in ("attention", "hint", "overhaul")),
    *(Case("frskd_sla", {"feature_loss": loss, "reuse_upright": False}) for loss in ("attention", "hint", "overhaul")),
    Case("frskd_sla", {"gamma": 0.0}, gone="votes teacher_votes"),
    Case("hsakd", {"temperature": 1.5, "taps": ["stage2", "stage3"]}, rows=3),
    Case("hsakd", {"taps": ["stage1", "stage3"]}, rows=3),
    Case("hsakd_online", {"temperature": 1.5}, rows=3),
    Case("hsakd_teacher", {"joint": False}, rows=3),
    Case("kd", {"alpha": 1.0, "beta": 0.4, "temperature": 2.0}),
    Case("kd", {"alpha": 0.0}),
    Case("kd_tf_fd", {"alpha": 0.3, "beta": 0.6, "temperature": 3.0, "epsilon": 0.1}, 0.5),
    *(Case("kd_tf_fd", {"warmup": 0.2}, progress) for progress in (0.0, 0.05, 0.2)),
    Case("kd_tf_fd", {"warmup": 0.0}),
    Case("label_smoothing", {"epsilon": 0.3, "share": "others"}),
    Case("max_entropy", {"weight": 2.0}),
    *(Case("mean_teacher", settings, 0.27) for settings in ({}, {"weight": 100.0, "ramp": 0.5}, {"ramp": 0.0})),
    Case("mean_teacher", {}, 0.0),
    Case("mean_teacher", {"weight": 0.0}, gone="consistency"),
    Case("nkd", {"gamma": 0.7, "temperature": 3.0}),
    Case("nkd", {"gamma": 0.0}, gone="others"),
    Case("one", {}, 0.0),
    Case("one", {}, 0.1),
    Case("one", {"weight": 0.5, "temperature": 2.0, "copies": 1, "ramp": 0.0}),
    Case("one", {"weight": 0.0, "copies": 3}, gone="kd"),
    Case("sad", {"warmup": 0.4}, 0.39),
    Case("sad", {"warmup": 0.4, "weight": 0.3, "reduction": "mean"}, 0.4),
    Case("sla", {"weight": 4.0}),
    Case("sla_sd", {"temperature": 3.0, "weight": 0.5}),
    *(
        Case("sskd", SSKD | {"transformation_share": first, "similarity_share": second}, rows=6)
        for first, second in [(1.0, 0.75), (0.5, 1.0), (0.25, 0.5), (0.0, 0.0)]
    ),
    Case("sskd", {"kd_weight": 0.0}, gone="kd"),
    Case("sskd", {"transformation_weight": 0.0}, gone="transformation"),
    Case("sskd_teacher", {"joint": False, "temperature": 0.2}),
    Case("teskd", {"ce_weight": 1.0, "kd_weight": 0.3, "feature_weight": 0.1, "temperature": 2.0}),
    Case("teskd", side=11, padding=0),  # maps of 11, 5 and 2
    Case("teskd", {"kd_weight": 0.0}, gone="kd"),
    Case("teskd", {"width": 6, "feature_weight": 0.0}, gone="feature"),
    *(Case("tf_fd", {"warmup": 0.2, "epsilon": 0.1}, progress) for progress in (0.0, 0.05, 0.2)),
    Case("tf_fd", {"warmup": 0.0}),
    Case("tf_fd", {"lambda_inter": 0.0}, gone="inter"),
    Case("tf_fd", {"lambda_intra": 0.0}, gone="intra"),
    Case("tf_kd_reg", {"softens": "logits"}),
    Case("tf_kd_reg", {"alpha": 0.4, "temperature": 3.0, "multiplier": 7.0, "correct": 0.8}),
    Case("tf_kd_reg", {"temperature": 0.5, "correct": 0.7, "softens": "logits"}),
    Case("tf_kd_self", {"alpha": 0.3, "temperature": 2.0, "multiplier": 1.0}),
    Case("tf_kd_self", {"alpha": 1.0}),
    Case("tfd", {"alpha": 0.7, "epsilon": 0.2}),
    Case("uskd", {"alpha": 1.0, "beta": 0.3, "mu": 0.005}, rows=7),
    Case("uskd", rows=2),
    Case("uskd", {"alpha": 0.0, "beta": 0.0}, gone="target others"),
    Case("zipf_ls", {"ranked": "others", "weight": 1.0}, side=16, rows=7),
    Case("zipf_ls", HEAD, side=16),
    Case("zipf_ls", HEAD | {"previous_stage": True}, side=16, rows=7),
    Case("zipf_ls", HEAD | {"ranked": "others", "weight": 1.0, "head_weight": 0.5}, side=16),
    Case("zipf_ls", {"weight": 0.0}, gone="zipf"),
]


def check(method, batch, progress=0.0, gone=""):
    expected = EXPECTED[method_name(method)](method, Outputs(method, batch, progress))
    step = method(batch, torch.tensor(progress, dtype=torch.float64))
    agree(step.losses, {term: value for term, value in expected.items() if term not in gone.split()})
    return step


def method_name(method):
    return type(method).__module__.rpartition(".")[2]


def test_every_method_has_a_reference():
    assert EXPECTED.keys() | OWN_FILES == set(list_methods())


FIRST = {case.name: case for case in reversed(CASES)}  # the fast set sees one case of each method


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=[] if FIRST[case.name] is case else [pytest.mark.slow]) for case in CASES],
)
def test_every_term_agrees_with_the_reference(case):
    kind, task = find_method(case.name), small_task(side=case.side)
    method = settled_in_double(
        small_method(kind, task, student=small_student(task, padding=case.padding), **case.settings)
    )
    check(method, double_batch(kind, task, case.rows), case.progress, case.gone)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tfd", {"alpha": 0.7, "epsilon": 0.2}),
        ("tf_fd", {"lambda_inter": 0.3, "lambda_intra": 0.7, "epsilon": 0.1}),
        ("tf_fd", {"detach_salient": True}),
        ("sad", {"weight": 0.3}),
        ("sad", {"weight": 0.3, "reduction": "mean"}),
    ],
    ids=str,
)
def test_maps_of_any_sizes_and_channels_agree_with_the_reference(name, settings, shapes):
    check(*replayed(name, shapes, **settings), progress=0.9)


SOFT = [name for name in EXPECTED if find_method(name).soft_targets]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOFT)
def test_mixed_labels_mix_the_terms_that_read_them(name):
    """Every term is linear in the labels, or does not read them; the entropy of tf_kd_reg's soft label is neither."""
    kind, task = find_method(name), small_task(side=8)
    method, batch = settled_in_double(small_method(kind, task)), double_batch(kind, task)
    first = torch.nn.functional.one_hot(batch.target, task.num_classes).double()
    labels = [first, first.flip(0), 0.3 * first + 0.7 * first.flip(0)]
    one, other, mixed = (method(batch._replace(soft_target=soft), 0.9).losses for soft in labels)
    for term in one.keys() - {"reg"}:
        torch.testing.assert_close(mixed[term], 0.3 * one[term] + 0.7 * other[term])
