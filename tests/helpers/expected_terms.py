"""What each method's loss terms should be, from the slow references, for what its networks give for a batch."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reference import (
    at_sad,
    branches,
    consistency,
    frskd,
    hsakd,
    lightskd,
    nkd,
    ofd,
    penalties,
    sla,
    sskd,
    tf_kd,
    tfd,
    topdown,
    zipf,
)
from reference import fitnet as hints
from reference.dense import smoothed_cross_entropy
from reference.frskd import Weights, cross_entropy, growing_weight, soft_label_loss
from selfdistill import Batch
from selfdistill.features.extractor import Taps
from selfdistill.method import Method


def settings_of(method: Method, *left_out: str) -> dict[str, Any]:
    """The hyper-parameters' values."""
    return {name: getattr(method, name) for name in method.hyperparameters() if name not in left_out}


def weights(module: nn.Module) -> Weights:
    return Weights({name: value.numpy() for name, value in module.state_dict().items()})


class Outputs:
    """What a method's networks give for a batch, as float64 arrays; labels as a list."""

    def __init__(self, method: Any, batch: Batch, progress: float = 0.0) -> None:
        self.method, self.batch, self.images, self.progress = method, batch, batch.images, progress
        soft = batch.soft_target
        self.target = (batch.target if soft is None else soft).tolist()

    @functools.cached_property
    @torch.no_grad()
    def logits(self) -> np.ndarray:
        return self.method.student(self.images).numpy()

    @functools.cached_property
    def features(self) -> list[np.ndarray]:
        return self.taps(self.images)[1]

    @torch.no_grad()
    def taps(self, images: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
        """The student's scores and maps for other images than the batch's."""
        logits, features = self.method.taps(images)
        return logits.numpy(), [feature.numpy() for feature in features]

    @functools.cached_property
    @torch.no_grad()
    def teacher_logits(self) -> np.ndarray:
        return self.method.teacher.net.eval()(self.images).numpy()

    @functools.cached_property
    @torch.no_grad()
    def teacher_features(self) -> list[np.ndarray]:
        return [feature.numpy() for feature in self.method.ask_teacher(self.images)[1]]

    @functools.cached_property
    def task(self) -> float:
        return cross_entropy(self.logits, self.target)

    @functools.cached_property
    def rotated(self) -> Tensor:
        return torch.from_numpy(frskd.turned(self.images.numpy()))


@torch.no_grad()
def apply(modules: nn.ModuleList, features: list[np.ndarray]) -> list[Any]:
    """The modules' outputs for one map each, as arrays."""
    outputs = [module(torch.from_numpy(feature)) for module, feature in zip(modules, features, strict=False)]
    return [tuple(part.numpy() for part in out) if isinstance(out, tuple) else out.numpy() for out in outputs]


def at_terms(m: Any, o: Outputs) -> dict[str, float]:
    return {"task": o.task, "attention": m.beta * at_sad.at_loss(o.features, o.teacher_features)}


def bake_terms(m: Any, o: Outputs) -> dict[str, float]:
    images = torch.cat([o.images, *o.batch.positives])
    labels = o.target + [label for label, row in zip(o.target, o.batch.positives, strict=True) for _ in row]
    logits, features = o.taps(images)
    pooled = features[-1].mean(axis=(2, 3))
    targets = consistency.bake_targets(pooled, logits.tolist(), omega=m.omega, temperature=m.temperature)
    kd = m.weight * consistency.divergence(logits.tolist(), targets, m.temperature)
    return {"task": cross_entropy(logits, labels), "kd": kd}


def byot_terms(m: Any, o: Outputs) -> dict[str, float]:
    names = {"weight": m.feature_weight, "squared": m.squared_temperature}
    exits = apply(m.exits, o.features)
    scale = {"alpha": m.alpha, "temperature": m.temperature, **names}
    return branches.byot(o.logits, o.features[-1], exits, o.target, **scale)


def cs_kd_terms(m: Any, o: Outputs) -> dict[str, float]:
    with torch.no_grad():
        positives = m.student(o.batch.positives[:, 0]).numpy()
    return {"task": o.task, "kd": m.weight * soft_label_loss(o.logits, positives, m.temperature)}


def ddgsd_terms(m: Any, o: Outputs) -> dict[str, float]:
    logits, features = o.taps(torch.cat([o.images, o.batch.views[:, 0]]))
    first, second = np.split(logits, 2)
    there, back = (soft_label_loss(*pair, m.temperature) for pair in ((first, second), (second, first)))
    return {
        "task": cross_entropy(logits, o.target * 2),
        "kd": m.weight * (there + back),
        "mmd": m.mu * consistency.mean_embedding_distance(*np.split(features[-1], 2)),
    }


def dks_terms(m: Any, o: Outputs) -> dict[str, float]:
    scale = {"weight": m.weight, "temperature": m.temperature}
    return branches.dks(o.logits, apply(m.heads, o.features), o.target, **scale)


def drg_terms(m: Any, o: Outputs) -> dict[str, float]:
    ((early, _),) = apply([m.early_exit], o.features[m.level - 1 :])
    return lightskd.drg(o.logits, early, o.target, alpha=m.alpha, temperature=m.temperature)


def fitnet_terms(m: Any, o: Outputs) -> dict[str, float]:
    levels, regressor = len(o.features), weights(m.regressor)
    level = m.level or (levels + 1) // 2  # from 1 on
    hint = o.teacher_features[level - levels - 1]
    regressed = hints.regressed(o.features[level - 1], hint.shape[2:], regressor, m.rectified)
    assert regressor.all_read()
    return {"task": o.task, "hint": m.weight * hints.hint_loss(regressed, hint)}


def self_teacher(m: Any, features: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    read = weights(m.self_teacher)
    fixed = m.self_teacher_net == "BiFPN"
    shape = {"depth": m.depth, "fixed_width": fixed, "repeat": m.repeat}
    output = frskd.self_teacher(features, read, preactivation=m.feature_loss == "overhaul", **shape)
    assert read.all_read()
    return output


def feature_distance(m: Any) -> Callable[..., float]:
    """The reference's feature loss for the method's settings."""
    if m.feature_loss == "attention":
        return frskd.attention_loss
    connectors = weights(m.connectors)
    if m.feature_loss == "hint":
        return lambda features, refined: frskd.hint_loss(features, refined, connectors)
    last = m.self_teacher.passes[-1]
    first = last.node_down[0][-1] if len(last.node_down) else last.lateral_down[0][1]
    pairs = [
        list(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True))
        for norm in [first, *(node[-1] for node in last.node_up)]
    ]
    if m.margin == "initial":
        pairs = [[(1.0, 0.0)] * len(level) for level in pairs]
    margins = [[frskd.margin(scale, shift) for scale, shift in level] for level in pairs]
    return lambda features, refined: frskd.overhaul_loss(features, refined, connectors, margins)


def compared_maps(m: Any, images: Tensor, features: list[np.ndarray]) -> list[np.ndarray]:
    """The small student's maps as the feature loss reads them: for overhaul its sums before their ReLU."""
    if m.feature_loss != "overhaul":
        return features
    sums = ofd.sums_before_relu(images.numpy(), weights(m.student), frskd.batch_norm)[-len(features) :]
    for before, after in zip(sums, features, strict=True):
        np.testing.assert_allclose(frskd.rectified(before), after, atol=1e-9)
    return sums


def frskd_terms(m: Any, o: Outputs) -> dict[str, float]:
    features = o.features[-len(m.self_teacher.channels) :]
    teacher = self_teacher(m, features)
    scale = {"alpha": m.alpha, "beta": m.beta, "temperature": m.temperature}
    distance = feature_distance(m) if m.beta else lambda *_: 0.0
    compared = compared_maps(m, o.images, features)
    terms = frskd.objective(o.logits, compared, *teacher, o.target, feature_distance=distance, **scale)
    ramp = growing_weight(o.progress, m.warmup, m.ramp) if m.warmup or m.ramp else 1.0
    return terms | {term: ramp * terms[term] for term in ("kd", "feature")}


def deep_supervision_terms(m: Any, o: Outputs) -> dict[str, float]:
    terms = frskd_terms(m, o)
    return {term: terms[term] for term in ("task", "teacher")}


def frskd_sla_terms(m: Any, o: Outputs) -> dict[str, float]:
    turned_logits, turned = o.taps(o.rotated)
    turned_teacher_logits, turned_refined = self_teacher(m, turned)
    if m.reuse_upright:
        logits, teacher_logits = turned_logits[::4], turned_teacher_logits[::4]
        refined = turned_refined
    else:
        logits, upright = o.taps(o.images)
        teacher_logits, upright_refined = self_teacher(m, upright)
        refined = [np.concatenate(pair) for pair in zip(upright_refined, turned_refined, strict=True)]
    compared = [compared_maps(m, o.rotated, turned)]
    if not m.reuse_upright:
        compared.insert(0, compared_maps(m, o.images, upright))
    features = [np.concatenate(maps) for maps in zip(*compared, strict=True)]
    joint, teacher_joint = (
        frskd.rectified(deepest).mean(axis=(2, 3)) @ weights(head)["weight"].T + weights(head)["bias"]
        for deepest, head in ((turned[-1], m.joint), (turned_refined[-1], m.teacher_joint))
    )
    scale = {"alpha": m.alpha, "temperature": m.temperature}
    distance = {"beta": m.beta, "feature_distance": feature_distance(m)}
    plain = frskd.objective(logits, features, teacher_logits, refined, o.target, **distance, **scale)
    return plain | frskd.sla_terms(logits, joint, teacher_logits, teacher_joint, o.target, gamma=m.gamma, **scale)


def joint_scores(o: Outputs, taps: Any, heads: nn.ModuleList) -> tuple[list, list]:
    """Scores of the turned images, and those of a branch behind each map."""
    with torch.no_grad():
        logits, features = taps(o.rotated)
        return logits.tolist(), [head(feature).tolist() for head, feature in zip(heads, features, strict=True)]


def hsakd_teacher_terms(m: Any, o: Outputs) -> dict[str, float]:
    terms = hsakd.teacher_terms(*joint_scores(o, m.taps, m.branches), o.target)
    return terms if m.joint else {"joint": terms["joint"]}


def hsakd_terms(m: Any, o: Outputs) -> dict[str, float]:
    own, net = joint_scores(o, m.taps, m.branches), m.teacher.net
    return hsakd.student_terms(*own, *joint_scores(o, net.taps, net.branches), o.target, m.temperature)


def hsakd_online_terms(m: Any, o: Outputs) -> dict[str, float]:
    peer = Taps(m.peer, m.task.image_shape, [tap.name for tap in m.taps])
    own, others = joint_scores(o, m.taps, m.branches), joint_scores(o, peer, m.peer_branches)
    return hsakd.online_terms(*own, *others, o.target, m.temperature)


def kd_terms(m: Any, o: Outputs) -> dict[str, float]:
    kd = m.beta * soft_label_loss(o.logits, o.teacher_logits, m.temperature)
    return {"task": m.alpha * o.task, "kd": kd}


def kd_tf_fd_terms(m: Any, o: Outputs) -> dict[str, float]:
    terms, grown = tf_fd_terms(m, o), min(1.0, o.progress / m.warmup) if m.warmup else 1.0
    return terms | {"task": m.alpha * terms["task"], "kd": grown * kd_terms(m, o)["kd"]}


def label_smoothing_terms(m: Any, o: Outputs) -> dict[str, float]:
    maps, labels = o.logits[:, :, None, None], np.reshape(o.target, (-1, 1, 1))
    return {"task": smoothed_cross_entropy(maps, labels, **settings_of(m))}


def mean_teacher_terms(m: Any, o: Outputs) -> dict[str, float]:
    with torch.no_grad():
        teacher_logits = m.trailing.net.eval()(o.batch.views[:, 0]).tolist()
    gap = consistency.mean_squared_probability_gap(o.logits.tolist(), teacher_logits)
    return {"task": o.task, "consistency": growing_weight(o.progress, 0.0, m.ramp) * m.weight * gap}


def nkd_terms(m: Any, o: Outputs) -> dict[str, float]:
    others = nkd.nkd_other_classes(o.logits.tolist(), o.teacher_logits.tolist(), o.target, m.temperature)
    target = nkd.nkd_true_class(o.logits.tolist(), o.teacher_logits.tolist(), o.target)
    return {"task": o.task, "target": target, "others": m.gamma * others}


def one_terms(m: Any, o: Outputs) -> dict[str, float]:
    gate = weights(m.gate)
    shares = branches.gate_shares(o.features[-2], gate)
    assert gate.all_read()
    copies = apply(m.branches, [o.features[-2]] * len(m.branches))
    scale = {"weight": m.weight, "temperature": m.temperature, "ramp": growing_weight(o.progress, 0.0, m.ramp)}
    return branches.one(o.logits, copies, shares, o.target, **scale)


def sad_terms(m: Any, o: Outputs) -> dict[str, float]:
    awake = o.progress >= m.warmup
    return {"task": o.task, "attention": awake * m.weight * at_sad.sad_loss(o.features, m.reduction)}


def sla_terms(m: Any, o: Outputs) -> dict[str, float]:
    logits, features = o.taps(o.rotated)
    head = weights(m.joint)
    joint = (features[-1].mean(axis=(2, 3)) @ head["weight"].T + head["bias"]).tolist()
    terms = sla.objective(logits[::4].tolist(), joint, o.target, weight=m.weight)
    distils = "temperature" in m.hyperparameters()
    return terms | (sla.distilled(logits[::4].tolist(), joint, m.temperature) if distils else {})


def embedded(m: Any, o: Outputs) -> tuple[list, list]:
    """Scores and embeddings of the turned images."""
    with torch.no_grad():
        logits, features = m.taps(o.rotated)
        return logits.tolist(), m.head(features[-1].mean(dim=(2, 3))).tolist()


def sskd_terms(m: Any, o: Outputs) -> dict[str, float]:
    return sskd.student_terms(*embedded(m, o), *embedded(m.teacher.net, o), o.target, settings_of(m))


def sskd_teacher_terms(m: Any, o: Outputs) -> dict[str, float]:
    logits, embeddings = embedded(m, o)
    task = {"task": sskd.cross_entropy(sskd.upright(logits), o.target)} if m.joint else {}
    return task | {"contrast": sskd.contrast(embeddings, m.temperature)}


def teskd_terms(m: Any, o: Outputs) -> dict[str, float]:
    pyramid, exits = weights(m.pyramid), weights(m.branches)
    fused = topdown.top_down(o.features, pyramid, top_lateral=True)
    deepest = o.features[-1].shape[2:]
    patches = [tuple(side // small for side, small in zip(each.shape[2:], deepest, strict=True)) for each in fused]
    pairs = [topdown.branch(each, exits / str(i), patches[i]) for i, each in enumerate(fused)]
    assert pyramid.all_read() and exits.all_read()
    width = pairs[0][1].shape[1] == o.features[-1].shape[1]  # the feature loss compares equal widths alone
    example = o.features[-1] if width else np.zeros((*pairs[0][1].shape, 1, 1))
    return topdown.teskd(o.logits, example, pairs, o.target, **settings_of(m, "width"))


def tf_fd_terms(m: Any, o: Outputs) -> dict[str, float]:
    growth = min(1.0, o.progress / m.warmup) if m.warmup else 1.0
    scale = {name: getattr(m, name) for name in ("lambda_inter", "lambda_intra", "epsilon")}
    return tfd.tf_fd_terms(o.logits, o.features, o.target, growth=growth, **scale)


def tfd_terms(m: Any, o: Outputs) -> dict[str, float]:
    return tfd.tfd_terms(o.logits, o.features, o.target, **settings_of(m))


def uskd_terms(m: Any, o: Outputs) -> dict[str, float]:
    head = weights(m.weak)
    weak = (o.features[-2].mean(axis=(2, 3)) @ head["weight"].T + head["bias"]).tolist()
    scores = o.logits.tolist()
    return {
        "task": o.task,
        "target": m.alpha * nkd.uskd_true_class(scores, o.target),
        "others": m.beta * nkd.uskd_other_classes(scores, weak, o.target),
        "weak": m.mu * nkd.smoothed(weak, o.target),
    }


def zipf_ls_terms(m: Any, o: Outputs) -> dict[str, float]:
    if m.voter == "classifier":
        own = weights(m.student) / "fc"
        counts = zipf.vote([zipf.dense_scores(zipf.twice_as_large(o.features[-1]), own["weight"], own["bias"])])
        return {"task": o.task, "zipf": m.weight * zipf.zipf_loss(o.logits.tolist(), counts, o.target, m.ranked)}
    heads = [{name: value.numpy() for name, value in head.state_dict().items()} for head in m.heads]
    maps = o.features[-len(heads) :]
    dense = [zipf.dense_scores(each, head["weight"], head["bias"]) for each, head in zip(maps, heads, strict=True)]
    enlarged = [  # the map first, where the method enlarges the scores
        zipf.dense_scores(zipf.twice_as_large(maps[i]), heads[i]["weight"], heads[i]["bias"])
        for i in range(len(heads) - 1)
    ]
    counts = zipf.vote([*enlarged, dense[-1]])
    own = sum(cross_entropy(scores.mean(axis=(2, 3)), o.target) for scores in dense)
    soft = zipf.zipf_loss(o.logits.tolist(), counts, o.target, m.ranked)
    return {"task": o.task, "zipf": m.weight * soft, "heads": m.head_weight * own}


EXPECTED: dict[str, Callable[[Any, Outputs], dict[str, float]]] = {
    "at": at_terms,
    "bake": bake_terms,
    "baseline": lambda m, o: {"task": o.task},
    "byot": byot_terms,
    "cs_kd": cs_kd_terms,
    "ddgsd": ddgsd_terms,
    "deep_supervision": deep_supervision_terms,
    "dks": dks_terms,
    "drg": drg_terms,
    "fitnet": fitnet_terms,
    "focal": lambda m, o: {"task": penalties.focal(o.logits.tolist(), o.target, m.gamma)},
    "frskd": frskd_terms,
    "frskd_sla": frskd_sla_terms,
    "hsakd": hsakd_terms,
    "hsakd_online": hsakd_online_terms,
    "hsakd_teacher": hsakd_teacher_terms,
    "kd": kd_terms,
    "kd_tf_fd": kd_tf_fd_terms,
    "label_smoothing": label_smoothing_terms,
    "max_entropy": lambda m, o: {"task": o.task, "confidence": -m.weight * penalties.entropy(o.logits.tolist())},
    "mean_teacher": mean_teacher_terms,
    "nkd": nkd_terms,
    "one": one_terms,
    "sad": sad_terms,
    "sla": sla_terms,
    "sla_sd": sla_terms,
    "sskd": sskd_terms,
    "sskd_teacher": sskd_teacher_terms,
    "teskd": teskd_terms,
    "tf_fd": tf_fd_terms,
    "tf_kd_reg": lambda m, o: tf_kd.reg_terms(o.logits, o.target, **settings_of(m)),
    "tf_kd_self": lambda m, o: tf_kd.self_terms(o.logits, o.teacher_logits, o.target, **settings_of(m)),
    "tfd": tfd_terms,
    "uskd": uskd_terms,
    "zipf_ls": zipf_ls_terms,
}
