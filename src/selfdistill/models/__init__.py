"""Plain networks by name: timm's, torchvision's, smp's, the paper's, small ones, and the user's own."""

from .registry import build_student, find_normalization, list_students

__all__ = ["build_student", "find_normalization", "list_students"]
