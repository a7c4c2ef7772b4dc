"""The part of a method that a trainer keeps beside the model's weights: what only training needs."""

from typing import Any

from ..method import Method


def get_training_state(method: Method) -> dict[str, Any]:
    """The method's state without the student, whose place is the trainer's, and without a teacher that was given."""
    return {name: value for name, value in method.state_dict().items() if not _is_elsewhere(name)}


def load_training_state(method: Method, state: dict[str, Any], *, strict: bool = True) -> None:
    """Takes up what `get_training_state` gave; student and teacher stay as they are."""
    elsewhere = {name: value for name, value in method.state_dict().items() if _is_elsewhere(name)}
    method.load_state_dict({**elsewhere, **state}, strict=strict)


def _is_elsewhere(name: str) -> bool:
    return name.startswith(("student.", "teacher."))
