"""Several processes score together what one would score alone, however unevenly the rows are dealt."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.dealt_rows import CASES, DENSE, ROWS, batches, dense_batches, kept
from helpers.programs import start
from selfdistill import evaluate

pytestmark = pytest.mark.slow

RANK = """
import json, os, sys, torch
from helpers.dealt_rows import CASES, DENSE, ROWS, batches, dense_batches, kept
from selfdistill import evaluate
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
for rows in ROWS:
    try:
        print(json.dumps(evaluate(torch.nn.Flatten(), batches(rows, rank, world), num_classes=6)))
    except ValueError as error:
        print(json.dumps(str(error)))
for images in ROWS[:2]:
    print(json.dumps(evaluate(torch.nn.Identity(), dense_batches(images, rank, world), **DENSE)))
torch.save([kept(*case, rank, world) for case in CASES], f"{folder}/{rank}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort a process whose interpreter is being torn down
"""


def test_two_processes_score_like_one(tmp_path: Path) -> None:
    words = [[sys.executable, "-c", RANK, str(tmp_path), str(rank), "2"] for rank in range(2)]
    folder = Path(__file__).parents[1]
    ranks = [start(word, stdout=subprocess.PIPE, text=True, cwd=folder) for word in words]
    lines = [rank.communicate()[0].splitlines() for rank in ranks]
    told = [[json.loads(line) for line in group if not line.startswith("[Gloo]")] for group in lines]  # of torch 2.10
    assert [rank.returncode for rank in ranks] == [0, 0] and told[0] == told[1]
    for images, scores in zip(ROWS, told[0][3:], strict=False):
        alone = evaluate(nn.Identity(), dense_batches(images), **DENSE)
        *numbers, iou, count = scores
        assert numbers == pytest.approx(list(alone[:-2]), abs=1e-12) and (tuple(iou), count) == alone[-2:]
    for rows, scores in zip(ROWS[:2], told[0][:2], strict=True):
        assert scores == pytest.approx(list(evaluate(nn.Flatten(), batches(rows), num_classes=6)), abs=1e-6)
    assert "no image to evaluate on" in told[0][2]
    for rank in range(2):
        for case, ours in zip(CASES, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert all(torch.equal(*pair) for pair in zip(kept(*case), ours, strict=True)), case
