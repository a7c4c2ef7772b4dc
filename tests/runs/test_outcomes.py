"""The answers of a finished run on disk: what was written comes back, and a damaged file is named."""

import pytest
import torch

from selfdistill.config.recipe import Recipe
from selfdistill.metrics.outcomes import ClassOutcomes
from selfdistill.runs.folder import Run

ROWS = ClassOutcomes(
    torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor([0.9, 0.6]), torch.tensor([0.1, 0.9]), torch.randn(2, 3)
)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Recipe())


def test_outcomes_come_back_and_logits_may_be_left_out(run):
    assert run.outcomes("val") is None
    run.save_outcomes("val", ROWS)
    run.save_outcomes("test", ROWS._replace(logits=None))
    assert all(torch.equal(*pair) for pair in zip(run.outcomes("val"), ROWS, strict=True))
    assert run.outcomes("test").logits is None and torch.equal(run.outcomes("test").nll, ROWS.nll)


def test_a_run_that_goes_on_has_no_outcomes(run):
    run.save_outcomes("val", ROWS)
    run.rewind(0)
    assert run.outcomes("val") is None


@pytest.mark.parametrize("how", ["cut", "empty", "other"])
def test_a_damaged_file_is_named_in_one_sentence(run, how):
    run.save_outcomes("val", ROWS)
    path = run.path / "outcomes-val.safetensors"
    whole = path.read_bytes()
    contents = {"cut": whole[:-5], "empty": b"", "other": whole.replace(b"ClassOutcomes", b"OtherOutcomes")}
    path.write_bytes(contents[how])
    with pytest.raises(ValueError, match=r"outcomes-val.safetensors is damaged \(.*\); delete it") as error:
        run.outcomes("val")
    assert "\n" not in str(error.value)
