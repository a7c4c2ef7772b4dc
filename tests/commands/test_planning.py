"""A budget takes the most informative runs first, and says what it drops."""

import pytest

from selfdistill.commands.planning import Planned, fit_budget, order_runs, parse_budget

CORE = ["baseline", "frskd", "longer"]


@pytest.mark.parametrize("text", ["2", "h", "2 h", "2x", "-1h", "2h30", ""])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="write 2h, 90m, 1h30m or 45s"):
        parse_budget(text)


def test_three_seeds_of_the_core_come_first_then_the_other_arms_then_further_seeds():
    blocks = order_runs([*CORE, "byot"], CORE, [0, 1, 2, 3])
    assert blocks[:3] == [[Planned(arm, seed) for arm in CORE] for seed in (0, 1, 2)]
    assert blocks[3:] == [
        [Planned("byot", seed) for seed in (0, 1, 2)],
        [Planned(arm, 3) for arm in CORE],
        [Planned("byot", 3)],
    ]


def test_a_budget_takes_whole_blocks_until_one_does_not_fit():
    blocks = order_runs([*CORE, "byot"], CORE, [0, 1])
    planned, dropped = fit_budget(blocks, 7.0, lambda run: 1.0)
    assert planned == blocks[0] + blocks[1] and dropped == blocks[2]
    planned, dropped = fit_budget(blocks, 5.0, lambda run: 1.0)
    assert planned == blocks[0] and dropped == blocks[1] + blocks[2]
    assert fit_budget(blocks, 2.0, lambda run: 1.0)[0] == []


def test_runs_that_are_there_cost_nothing_and_are_never_dropped():
    blocks = order_runs(CORE, CORE, [0, 1])
    there = {Planned("baseline", 1), *blocks[0]}
    planned, dropped = fit_budget(blocks, 1.0, lambda run: 0.0 if run in there else 1.0)
    assert set(planned) == there and len(dropped) == 2
