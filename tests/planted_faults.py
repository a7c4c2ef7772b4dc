"""Plants faults in a copy of the package, one at a time, and says whether the tests named beside each notice it.

    python tests/planted_faults.py             all of them, about ten minutes
    python tests/planted_faults.py kd          those whose names contain "kd"

Use it after tests were rearranged: what was caught must stay caught. The named tests must pass without a fault, which
is tried first. The faults stand in planted_faults.txt: a line "name | file of the package | tests", the text that is
replaced behind "- ", and what replaces it behind "+ ". The old text must occur exactly once, which a fast test checks:
so the list follows the code.
"""

import functools
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "selfdistill"
PASSED, FAILED = 20, 21  # no process ends so by itself


class Fault(NamedTuple):
    """A mistake somebody could make in `file`: the text `old` becomes `new`, and one of `tests` must fail."""

    name: str
    file: str
    tests: list[str]  # paths below tests/, and pytest's options
    old: str
    new: str


def read_faults() -> list[Fault]:
    text = (TESTS / "planted_faults.txt").read_text(encoding="utf-8")
    return [parse(block) for block in text.strip().split("\n\n") if not block.startswith("#")]


def parse(block: str) -> Fault:
    head, *lines = block.split("\n")
    name, file, tests = (part.strip() for part in head.split("|"))
    old, new = ("\n".join(line[2:] for line in lines if line.startswith(sign)) for sign in "-+")
    return Fault(name, file, tests.split(), old, new)


def count_old(fault: Fault) -> int:
    """How often the fault's old text occurs in its file."""
    file = PACKAGE / fault.file
    return file.read_text(encoding="utf-8").count(fault.old) if file.exists() else 0


def tests_fail(words: list[str], folder: Path) -> bool:
    """Whether a test fails on the copy of the package in `folder`, up to the first."""
    words = [str(TESTS / word) if (TESTS / word).exists() else word for word in words]
    process = multiprocessing.get_context("fork").Process(target=run_pytest, args=(words, folder))
    process.start()
    process.join()
    if process.exitcode not in (PASSED, FAILED):
        raise SystemExit(f"pytest {' '.join(words)} ended with {process.exitcode}: no test ran, or one cannot be read")
    return process.exitcode == FAILED


def run_pytest(words: list[str], folder: Path) -> None:
    """Ends this process with `PASSED`, `FAILED` or another number where pytest itself did not get that far."""
    sys.path.insert(0, str(folder))
    # Plugins that the libraries have imported already cannot be rewritten, which pytest warns of.
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        code = int(pytest.main([*quiet, "-x", *words]))
    os._exit({0: PASSED, 1: FAILED}.get(code, 30 + code))


@functools.cache
def pass_when_sound(words: tuple[str, ...], folder: Path) -> bool:
    return not tests_fail(list(words), folder)


def is_caught(fault: Fault, folder: Path) -> bool:
    file = folder / "selfdistill" / fault.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(sound.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return tests_fail(fault.tests, folder)
    finally:
        file.write_text(sound, encoding="utf-8")


def import_libraries() -> None:
    """Imports what takes long, once: every process of tests is a fork of this one."""
    for name in ("torch", "torchvision", "timm", "segmentation_models_pytorch", "sklearn.datasets"):
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    sys.dont_write_bytecode = True


def main(words: list[str]) -> int:
    faults = [fault for fault in read_faults() if not words or any(word in fault.name for word in words)]
    stale = [fault.name for fault in faults if count_old(fault) != 1]
    if stale:
        raise SystemExit("the old text of these does not occur exactly once any more: " + "; ".join(stale))
    import_libraries()
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PACKAGE, folder / "selfdistill", ignore=shutil.ignore_patterns("__pycache__"))
        for fault in faults:
            if not pass_when_sound(tuple(fault.tests), folder):
                verdict = "TESTS FAIL"  # without any fault
            else:
                verdict = "caught" if is_caught(fault, folder) else "NOT CAUGHT"
            missed += verdict != "caught"
            print(f"{verdict:12}{fault.name}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults are caught")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
