"""Plain networks by name: timm's, torchvision's, smp's, the paper's, small ones, and the user's own."""

from .adapted import Adapted
from .registry import build_student, describe_weights, list_students

__all__ = ["Adapted", "build_student", "describe_weights", "list_students"]
