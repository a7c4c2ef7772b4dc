"""Plain networks by name: timm's, torchvision's, smp's, the paper's, small ones, and the user's own."""

from ..features.scores import ScoresAlone
from .adapted import Adapted
from .identify import Origin, identify
from .registry import build_student, describe_weights, list_students

__all__ = ["Adapted", "Origin", "ScoresAlone", "build_student", "describe_weights", "identify", "list_students"]
