"""What stands beside the learning curves."""

from selfdistill.report.evidence import ArmRun
from selfdistill.report.sections.training import list_warnings
from selfdistill.runs.records import WarningRecord


def test_warnings_that_differ_in_numbers_alone_stand_once_with_their_number_of_runs():
    warn = [
        [WarningRecord(epoch=1, step=step, text=text) for step, text in enumerate(texts)]
        for texts in (["99.1% of 288", "99.5% of 300"], ["a kernel is slow"], ["98% of 2"])
    ]
    runs = [ArmRun(None, seed, {}, records) for seed, records in enumerate(warn)]
    assert list_warnings(runs) == ["2 of 3 runs: 99.5% of 300", "1 of 3 runs: a kernel is slow"]
    assert list_warnings(runs[1:2]) == ["a kernel is slow"]
