"""DRG's and DSR's objectives in numpy and float64, one row or class at a time."""

from .frskd import cross_entropy, soft_label_loss


def drg(logits, early_logits, target, *, alpha, temperature):
    """The terms of DRG; the early classifier teaches."""
    return {
        "task": cross_entropy(logits, target),
        "exit": cross_entropy(early_logits, target),
        "kd": alpha * soft_label_loss(logits, early_logits, temperature),
    }


def dsr(batches, targets, *, weight, temperature):
    """The terms of each of several steps of DSR, from the scores of each batch; the batches may differ in size."""
    steps, before = [], []
    for logits, target in zip(batches, targets, strict=True):
        ranked = [sorted(row) for row in logits.tolist()]
        pairs = list(zip(ranked, before, strict=False))
        summed = sum(soft_label_loss([own], [earlier], temperature) for own, earlier in pairs)
        steps.append({"task": cross_entropy(logits, target), "shape": weight * summed / len(ranked)})
        before = ranked
    return steps
