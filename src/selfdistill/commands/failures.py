"""What the command line says of an error: one sentence, and where in the user's own code it arose."""

from ..config.part import list_settings
from ..config.read import did_you_mean_setting
from ..config.recipe import Recipe
from ..errors import find_user_line, one_line

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def describe_failure(error: BaseException) -> tuple[str, int] | None:
    """The sentence about an error and the exit code; None for one that no user can mend."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if is_out_of_memory(error):
        return (
            f"error: there is too little memory ({one_line(error)}); a smaller batch_size, data.image_size or student, "
            "or a larger optim.accumulate, needs less",
            1,
        )
    if find_user_line(error):
        return f"error: {one_line(error)}; --traceback shows all of it", 1
    if isinstance(error, ValueError):
        comes_from_user = error.__cause__ is not None and find_user_line(error.__cause__)
        return f"error: {error}{'; --traceback shows all of it' if comes_from_user else ''}", 1
    if isinstance(error, ModuleNotFoundError):
        return f"error: {error.name or error} is not installed", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}", 1
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU; the error itself or what it was raised from says so.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own
        return True
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # on the CPU it has no type of its own
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def say_without_dashes(option: str, value: str) -> str:
    """The sentence about a setting that was written as an option, such as --epochs 3.

    >>> say_without_dashes("--epochs", "3"), say_without_dashes("--lr", "0.1")
    ('settings have no dashes: write epochs=3', 'settings have no dashes: write optim.lr=0.1')
    """
    name, known = option.lstrip("-").replace("-", "_"), list_settings(Recipe)
    namesakes = [setting for setting in known if setting == name or setting.rpartition(".")[2] == name]
    if not namesakes:
        return f"there is no option {option}; settings are written NAME=VALUE{did_you_mean_setting(name, known)}"
    value = value if value and not value.startswith("-") else "VALUE"
    return f"settings have no dashes: write {namesakes[0]}={value}"
