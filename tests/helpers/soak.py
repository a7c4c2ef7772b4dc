"""A run of some two thousand steps, in a process of its own: one that has done other work gives memory back late."""

import gc
import json
import os
from pathlib import Path

from helpers.killed_runs import DIGITS
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit

WORDS = ["method=tfd", "student=helpers.plain_students:classifier", "batch_size=4", "data.limit=360", "epochs=23"]
EVERY = 500  # steps


class UseMeter(Callback):
    """Notes the open files, the objects and the memory (MiB) of this process, every so many steps."""

    def __init__(self):
        self.seen = []

    def on_step(self, state):
        if state.step % EVERY == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files = len(os.listdir("/proc/self/fd"))
            self.seen.append((files, len(gc.get_objects()), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))


def soak(_, folder):
    """Trains, and writes what the meter noted to folder/seen.json."""
    words = [*DIGITS, *WORDS, "machine.checkpoint_minutes=0.02", f"out={folder}/run"]
    experiment, meter = build(read(None, words)), UseMeter()
    fit(experiment, Run.create(Path(folder, "run"), experiment.recipe), callbacks=[meter])
    Path(folder, "seen.json").write_text(json.dumps(meter.seen))
