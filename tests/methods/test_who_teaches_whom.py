"""Which parameters each loss term of each method moves: all of the parts that the table names, and no others."""

import pytest
import torch

from helpers.methods import method_and_batch, names_reached
from selfdistill import list_methods
from selfdistill.method import Method
from selfdistill.methods import find_method

SHALLOW = "stem stage1 stage2 "
STAGES = SHALLOW + "stage3 "
STUDENT = STAGES + "fc "
SELF_TEACHER = "self_teacher fusion self_teacher.fc"
PEER = "peer peer.fc"

TAUGHT = {  # beside "task", the labels' loss, which moves the whole student
    "at": {"attention": STAGES},
    "bake": {"kd": STUDENT},
    "baseline": {},
    "byot": {"exits": SHALLOW + "exits exits.fc", "kd": SHALLOW + "exits exits.fc", "feature": SHALLOW + "exits"},
    "cs_kd": {"kd": STUDENT},
    "ddgsd": {"kd": STUDENT, "mmd": STAGES},
    "deep_supervision": {"teacher": STAGES + SELF_TEACHER},
    "dks": {"heads": SHALLOW + "heads heads.fc", "synergy": STUDENT + "heads heads.fc"},
    "dlb": {"kd": STUDENT},
    "drg": {"exit": SHALLOW + "early_exit early_exit.fc", "kd": STUDENT},
    "dsr": {"shape": STUDENT},
    "dtskd": {"branches": STAGES + "top_down classifiers", "kd": STUDENT + "top_down classifiers"},
    "fitnet": {"hint": SHALLOW + "regressor"},
    "focal": {},
    "frskd": {"teacher": STAGES + SELF_TEACHER, "kd": STUDENT, "feature": STAGES},
    "frskd_sla": {
        "teacher": STAGES + SELF_TEACHER,
        "joint": STAGES + "joint",
        "teacher_joint": STAGES + "self_teacher fusion teacher_joint",
        "votes": STUDENT,
        "teacher_votes": STAGES + SELF_TEACHER,
        "kd": STUDENT + "joint",
        "feature": STAGES,
    },
    "hsakd": {"kd": STUDENT, "joint": STAGES + "branches branches.fc"},
    "hsakd_online": {
        "kd": STUDENT,
        **{term: STAGES + "branches branches.fc" for term in ("joint", "joint_kd")},
        **{term: PEER for term in ("peer_task", "peer_kd")},
        **{term: "peer peer_branches peer_branches.fc" for term in ("peer_joint", "peer_joint_kd")},
    },
    "hsakd_teacher": {"joint": STAGES + "branches branches.fc"},
    "kd": {"kd": STUDENT},
    "kd_tf_fd": {"inter": SHALLOW, "intra": STAGES, "kd": STUDENT},
    "label_smoothing": {},
    "manifold_mixup": {},
    "max_entropy": {"confidence": STUDENT},
    "mean_teacher": {"consistency": STUDENT},
    "mixskd": {
        "branches": SHALLOW + "branches branches.fc",
        "kd": STUDENT + "branches branches.fc",
        "feature": STAGES + "branches",
        "discriminators": STAGES + "branches discriminators",
        "mixed_task": STUDENT + "branches branches.fc self_teacher",
    },
    "nkd": {"target": STUDENT, "others": STUDENT},
    "ofd": {"feature": STAGES + "connectors"},
    "one": {
        "branches": SHALLOW + "branches branches.fc",
        "ensemble": STUDENT + "branches branches.fc gate",
        "kd": STUDENT + "branches branches.fc",
    },
    "ps_kd": {},
    "sad": {"attention": SHALLOW},
    "sla": {"joint": STAGES + "joint"},
    "sla_sd": {"joint": STAGES + "joint", "kd": STUDENT},
    "sskd": {"similarity": STAGES + "head", "kd": STUDENT, "transformation": STUDENT},
    "sskd_teacher": {"contrast": "head"},
    "teskd": {
        "branches": STAGES + "pyramid branches branches.fc",
        "kd": STAGES + "pyramid branches branches.fc",
        "feature": STAGES + "pyramid branches",
    },
    "tf_fd": {"inter": SHALLOW, "intra": STAGES},
    "tf_kd_reg": {"reg": STUDENT},
    "tf_kd_self": {"kd": STUDENT},
    "tfd": {"inter": SHALLOW},
    "uskd": {"target": STUDENT, "others": STUDENT, "weak": SHALLOW + "weak"},
    "zipf_ls": {"zipf": STUDENT},
}
CONNECTED = {"feature": STAGES + "connectors"}
CUT = {"teacher": SELF_TEACHER}
CUT_SLA = CUT | {"teacher_joint": "self_teacher fusion teacher_joint", "teacher_votes": SELF_TEACHER}
BIFPN = {"self_teacher_net": "BiFPN", "num_channels": 8}
CASES = [
    *((name, {}, {}) for name in TAUGHT),
    ("dtskd", {"stop_gradient": True}, {"kd": STAGES + "top_down classifiers"}),
    ("frskd", {"stop_gradient": True}, CUT),
    ("frskd", BIFPN, {}),
    ("frskd", BIFPN | {"stop_gradient": True}, CUT),
    ("frskd", {"feature_loss": "hint"}, CONNECTED),
    ("frskd", {"feature_loss": "overhaul", "margin": "current"}, CONNECTED),
    ("frskd", {"feature_loss": "overhaul", "margin": "current", "stop_gradient": True}, CONNECTED | CUT),
    ("frskd_sla", {"reuse_upright": False}, {}),
    ("frskd_sla", {"stop_gradient": True}, CUT_SLA),
    ("frskd_sla", {"reuse_upright": False, "stop_gradient": True}, CUT_SLA),
]


def part(name):
    """The part of a method to which a parameter belongs: of the student its stage, elsewhere classifiers apart."""
    owner, *inner = name.split(".")
    if owner == "student":
        return inner[0]
    if "fuse_" in name:
        return "fusion"
    return f"{owner}.fc" if "fc" in inner else owner


def parts_reached(method, term):
    reached = set(names_reached(method, term))
    trained = [name for name, parameter in method.named_parameters() if parameter.requires_grad]
    parts = {part(name) for name in reached}
    assert reached == {name for name in trained if part(name) in parts}, "a part is moved in part"
    return parts


def test_the_table_has_every_method():
    assert TAUGHT.keys() == set(list_methods())


@pytest.mark.parametrize(("name", "settings", "changes"), CASES)
def test_each_term_teaches_whom_it_should(name, settings, changes):
    method, batch = method_and_batch(name, **settings)
    method(batch)  # some learn from the batch before
    losses = method(batch, torch.tensor(0.9)).losses
    expected = {"task": STUDENT} | TAUGHT[name] | changes
    assert losses.keys() == expected.keys()
    for term, parts in expected.items():
        assert parts_reached(method, losses[term]) == set(parts.split()), term


@pytest.mark.parametrize("name", [name for name in list_methods() if find_method(name).needs_teacher])
def test_a_frozen_teacher_is_asked_before_the_student_keeps_its_maps(name):
    """Its own maps would come on top of those that wait for the backward pass."""
    method, batch = method_and_batch(name)
    first = {"student": next(iter(method.student.children())), "teacher": next(iter(method.teacher.net.children()))}
    if isinstance(method.teacher.net, Method):
        first["teacher"] = next(iter(method.teacher.net.student.children()))
    asked = []
    for who, module in first.items():
        module.register_forward_hook(lambda *_, who=who: asked.append(who))
    method(batch)
    assert asked == ["teacher", "student"]
