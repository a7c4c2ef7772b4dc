"""Several processes score together what one would score alone, however unevenly the rows are dealt."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from selfdistill.scores import evaluate

pytestmark = pytest.mark.slow

ROWS = (7, 1, 0)
RANK = """
import json, sys, torch
from slow.test_scores_processes import ROWS, batches
from selfdistill.scores import evaluate
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
for rows in ROWS:
    try:
        print(json.dumps(evaluate(torch.nn.Flatten(), batches(rows, rank, world), num_classes=6)))
    except ValueError as error:
        print(json.dumps(str(error)))
torch.distributed.destroy_process_group()
"""


class Labelled(NamedTuple):
    images: Tensor
    target: Tensor


def batches(rows: int, rank: int = 0, world: int = 1) -> list[Labelled]:
    """This process's share of the rows, in batches of two."""
    random = torch.Generator().manual_seed(0)
    images = 2 * torch.randn(rows, 6, 1, 1, generator=random)
    target = torch.randint(6, (rows,), generator=random)
    own = slice(rank, None, world)
    pairs = zip(images[own].split(2), target[own].split(2), strict=True)
    return [Labelled(*pair) for pair in pairs if len(pair[0])]


def test_two_processes_score_like_one(tmp_path: Path) -> None:
    words = [[sys.executable, "-c", RANK, str(tmp_path), str(rank), "2"] for rank in range(2)]
    folder = Path(__file__).parents[1]
    ranks = [subprocess.Popen(word, stdout=subprocess.PIPE, text=True, cwd=folder) for word in words]
    told = [[json.loads(line) for line in rank.communicate(timeout=120)[0].splitlines()] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0] and told[0] == told[1]
    for rows, scores in zip(ROWS[:2], told[0][:2], strict=True):
        assert scores == pytest.approx(list(evaluate(nn.Flatten(), batches(rows), num_classes=6)), abs=1e-6)
    assert "no image to evaluate on" in told[0][2]
