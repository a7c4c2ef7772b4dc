"""Branches behind a student's feature maps."""

from helpers.networks import CLASSES
from selfdistill.features.extractor import Taps, stage_ends
from selfdistill.modules.branches import remaining_stages

SHAPE = (3, 16, 16)


def taps_of(student, shape=SHAPE):
    return Taps(student, shape, stage_ends(student))


def branches(student, outputs=4 * CLASSES, shape=SHAPE):
    taps = taps_of(student, shape)
    return taps, [remaining_stages(taps, level, outputs) for level in range(len(taps))]
