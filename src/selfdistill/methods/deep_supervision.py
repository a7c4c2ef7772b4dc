"""The control that shows what FRSKD's distillation adds: its self-teacher and its cross-entropy, and no distillation.

Ji et al. CVPR 2021, https://arxiv.org/abs/2103.08273; auxiliary supervision of hidden layers as such is
Lee, Xie, Gallagher, Zhang, Tu. AISTATS 2015. https://arxiv.org/abs/1409.5185
"""

from .frskd import FRSKD


class DeepSupervision(FRSKD):
    """FRSKD without its soft-label and feature losses: the self-teacher's cross-entropy trains the student's stages."""

    soft_label_terms = ()

    alpha = 0.0
    beta = 0.0
    temperature = 4.0
    feature_loss = "attention"
    margin = "initial"
    stop_gradient = False
    stop_gradient_before = 0.0
    stop_gradient_after = 1.0
    start = 0.0
    settle = 0.0
    teacher_average = 0.0
    start_from_classifier = False
    distil_void = False
    warmup = 0.0
    ramp = 0.0
