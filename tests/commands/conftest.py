"""The program, called as a user calls it."""

import sys

import numpy as np
import pytest

from helpers.mask_files import write_mask, write_photo
from selfdistill import cli
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.training.loop import fit


def train_briefly(folder, *words):
    """A run of two steps; the run's folder."""
    experiment = build(read(None, [*words, "batch_size=16", "max_steps=2", "precision=fp32", f"out={folder}"]))
    fit(experiment, Run.create(folder, experiment.recipe))
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of FRSKD with all maps on digits, for tests that only read it or write below a folder of their own."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return train_briefly(folder, "data.limit=40", "student=cifar:resnet8", "method=frskd", "method.levels=null")


@pytest.fixture(scope="session")
def masks_run(tmp_path_factory):
    """The same on images with masks of two classes; their folder is beside the run's."""
    folder = tmp_path_factory.mktemp("masks")
    for number in range(10):
        write_photo(folder / "data" / "images" / f"{number}.png", number, (32, 24))
        mask = np.arange(32)[None].repeat(24, axis=0) > 3 * number
        write_mask(folder / "data" / "masks" / f"{number}.png", mask)
    student, size = "helpers.plain_students:segmenter", "data.image_size=24,32"
    return train_briefly(
        folder / "run",
        *("task=segmentation", f"data={folder / 'data'}", size, f"student={student}"),
        *("method=frskd", "method.levels=null"),
    )


@pytest.fixture
def run(capsys):
    """Calls the program with words -> (exit code, standard output, standard error)."""

    def call(*words):
        capsys.readouterr()
        code, argv = 0, sys.argv
        sys.argv = ["selfdistill", *map(str, words)]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = argv
        out, err = capsys.readouterr()
        return code, out, err

    return call
