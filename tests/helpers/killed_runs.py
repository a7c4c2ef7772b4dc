"""Runs that are killed at chosen moments and resumed, in forks of one process that has imported everything.

A moment is a step, or an operation on a file of the run folder: a run that is killed just before it renames a
checkpoint, or in the middle of writing it, is as likely as one that is killed while it computes. The kills are real.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from helpers.images import write_classes
from helpers.runs import untimed
from helpers.states import same
from selfdistill.build import build
from selfdistill.commands import train
from selfdistill.config.read import read
from selfdistill.data.datasets import scenes
from selfdistill.distributed import is_first_process, leave_group
from selfdistill.modules import remembered
from selfdistill.runs.files import CheckedFile
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit
from selfdistill.training.optim import create_optimizer, create_schedule

EVERY_STEP = "machine.checkpoint_minutes=1e-9"
DIGITS = [
    *("data=digits", "data.limit=36", "student=cifar:resnet8", "batch_size=12", "epochs=2", "precision=fp32"),
    *("optim.lr=0.05", "machine.device=cpu", EVERY_STEP),
]
SCENES = [
    *("task=segmentation", "data=scenes", "data.limit=9", "data.image_size=16", "batch_size=3", "epochs=2"),
    *("student=helpers.plain_students:segmenter", "precision=fp32", "machine.device=cpu", EVERY_STEP),
]
FOLDER = ["data=IMAGES", *DIGITS[2:], "data.image_size=8"]
KINDS = {
    "plain": [*DIGITS, "method=baseline"],
    "FRSKD, and a checkpoint after epochs only": [*DIGITS, "method=frskd", "machine.checkpoint_minutes=10"],
    "segmentation": [*SCENES, "method=frskd"],
    "no validation images": [*FOLDER, "method=baseline"],
    "bfloat16": [*DIGITS, "method=baseline", "precision=bf16"],
    "a moving average ships": [*DIGITS, "method=baseline", "optim.ema=0.9"],
    "micro-batches and AdamW": [*DIGITS, "method=baseline", "optim.accumulate=2", "optim.name=adamw"],
    "mixup": [*DIGITS, "method=baseline", "mix=mixup"],
    "CS-KD": [*DIGITS, "method=cs_kd"],
    "DLB": [*DIGITS, "method=dlb"],
    "PS-KD": [*DIGITS, "method=ps_kd"],
    "mean teacher": [*DIGITS, "method=mean_teacher"],
    "loaders and a cache on the disk": [*FOLDER, "method=baseline", "machine.workers=2", "machine.cache=disk"],
    "two processes": [*DIGITS, "method=baseline", "epochs=6"],
}
PROCESSES = {"two processes": 2}
CHAINS = (3,)  # kills of one run, before it is let end; by default


class Moments(Callback):
    """Counts moments, and kills this process at one."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.prefix, self.kill_at, self.count = str(folder), kill_at, 0
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.truncate") and str(args[0]).startswith(self.prefix):
            self.pass_one()

    def write(self, file: CheckedFile, data: Any) -> int:
        """Writes to a checkpoint; the weights are one large piece of it, and the moment is in their middle."""
        if memoryview(data).nbytes < 1000:
            return write_checked(file, data)
        write_checked(file, memoryview(data)[:500])
        self.pass_one()
        write_checked(file, memoryview(data)[500:])
        return memoryview(data).nbytes

    def on_step(self, state: Any) -> None:
        self.pass_one()

    def pass_one(self) -> None:
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


write_checked = CheckedFile.write


def train_counted(words: list[str], folder: Path, kill_at: int | None) -> int:
    """Begins a run or goes on with it, as the commands do; gives how many moments it had."""
    moments = Moments(folder, kill_at if is_first_process() else None)
    CheckedFile.write = lambda file, data: moments.write(file, data)  # type: ignore[method-assign]
    train.fit = lambda *args, callbacks, **options: fit(*args, callbacks=[*callbacks, moments], **options)
    if (folder / "recipe.yaml").exists():
        train.resume_run(folder, trust=True)
    else:
        train.start_run(read(None, [*words, f"out={folder}"]), trust=True)
    leave_group()
    return moments.count


def fork(words: list[str], folder: Path, kill_at: int | None, environment: dict[str, str]) -> tuple[int, int]:
    """The process of one `train_counted`, and the end of a pipe that tells its number of moments."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return child, told
    status = 1
    try:
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.write(tell, str(train_counted(words, folder, kill_at)).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def run_processes(words: list[str], folder: Path, kill_at: int | None, world: int) -> int | None:
    """Trains in `world` processes, of which the first is killed; None where it was."""
    environments: list[dict[str, str]] = [{}]
    if world > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        environments = [
            {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)} for rank in range(world)
        ]
    (first, told), *others = [fork(words, folder, kill_at, environment) for environment in environments]
    _, status = os.waitpid(first, 0)
    killed = os.WIFSIGNALED(status)
    for other, pipe in others:
        if status:  # they would wait for it
            os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(pipe)
    moments = "" if killed else os.read(told, 100).decode()  # loaders of a killed run hold the pipe for a while
    os.close(told)
    if not killed and status:
        raise RuntimeError(f"a run failed with status {status}")
    return None if killed else int(moments)


def compare(whole: Path, killed: Path) -> list[str]:
    """What differs between the folders of two runs that should have ended alike."""
    first, second = Run.open(whole), Run.open(killed)
    states = [run.load_checkpoint() for run in (first, second)]
    names = ("method", "optimizer", "ema", "step", "epoch", "best")
    different = [name for name in names if not same(states[0][name], states[1][name])]
    different += ["log"] if untimed(first) != untimed(second) else []
    for student in [Path(), *([Path("best")] if (whole / "best").exists() else [])]:
        networks = [load_student(run.path / student, trust=True).state_dict() for run in (first, second)]
        cards = [read_card(run.path / student, trust=True) for run in (first, second)]
        different += ["student"] if not same(*map(dict, networks)) else []
        different += ["card"] if cards[0] != cards[1] else []
    files = [sorted(path.name for path in run.path.iterdir()) for run in (first, second)]
    return different + ([f"files {files}"] if files[0] != files[1] else [])


def try_kind(name: str, folder: Path, rounds: int, randomly: random.Random) -> dict[str, Any]:
    """A whole run, and killed ones; what differed after which kills."""
    words = [word.replace("IMAGES", str(folder.parent / "images")) for word in KINDS[name]]
    world = PROCESSES.get(name, 1)
    moments = run_processes(words, folder / "whole", None, world)
    assert moments is not None
    chains = [kills for _ in range(rounds) for kills in CHAINS]
    found = []
    for number, kills in enumerate(chains):
        run, killed_at = folder / str(number), []
        for _ in range(kills):
            moment = randomly.randrange(2 * moments // (kills + 1))
            if run_processes(words, run, moment, world) is not None:
                break  # the rest of the run was shorter
            killed_at.append(moment)
        run_processes(words, run, None, world)
        found.append({"killed_at": killed_at, "differs": compare(folder / "whole", run)})
    return {"moments": moments, "runs": found}


def import_all(words: list[str]) -> None:
    """Imports what a run needs, for all forks. It creates no accelerator, which would know one process only."""
    import accelerate.tracking  # noqa: F401
    import timm.scheduler
    import timm.utils  # noqa: F401

    experiment = build(read(None, [*words, "machine.cache=none"]), trust=True)
    create_schedule(create_optimizer(experiment.method, experiment.recipe.optim), experiment.recipe.optim, 1)


def main(folder: Path, rounds: int, names: list[str]) -> None:
    """Tries the kinds of runs and writes what was found to results.json."""
    torch.set_num_threads(1)
    remembered.LARGE = 1  # so that what PS-KD remembers is in half precision, and in one checkpoint
    os.environ["SELFDISTILL_CACHE"] = str(folder / "cache")
    for split in ("train", "test"):
        write_classes(folder / "images" / split, {"a": 20, "b": 20}, size=(8, 8))
    scenes.SCENES |= {"val": 3, "test": 3}
    for name in names:
        import_all([word.replace("IMAGES", str(folder / "images")) for word in KINDS[name]])
    randomly = random.Random(0)
    results = {name: try_kind(name, folder / str(number), rounds, randomly) for number, name in enumerate(names)}
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or [*KINDS])
