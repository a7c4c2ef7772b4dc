"""Two processes that are given the same comparison share its runs."""

import json
import subprocess
import sys

import pytest

from helpers.programs import start
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord

pytestmark = pytest.mark.slow
WORDS = ["data.limit=40", "student=cifar:resnet8", "batch_size=16", "epochs=1", "precision=fp32"]
WORDS += ["methods=baseline,frskd", "seeds=3", "controls=equal_cost"]


def test_two_processes_train_each_run_once_and_plan_once(tmp_path):
    folder = tmp_path / "all"
    command = [sys.executable, "-m", "selfdistill", "compare", *WORDS, f"out={folder}"]
    both = [start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(told)
    assert sum(text.count("measuring a few steps") for text in told) == 1  # the other process waited for the plan
    names = [path.parent.name for path in folder.glob("*/recipe.yaml")]
    assert {f"{arm}-s{seed}" for arm in ("baseline", "frskd") for seed in range(3)} <= {*names}
    for name in names:
        ends = [record for record in Run.open(folder / name).records() if isinstance(record, EndRecord)]
        assert len(ends) == 1, name
    rows = json.loads((folder / "compare.json").read_text())["rows"]
    assert {row["seeds"] for row in rows} == {3}  # written by whoever ended last
