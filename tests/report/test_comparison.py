"""Run folders become one honest table: seeds averaged, the baseline beside, nothing missing unsaid."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from selfdistill.config.read import parse
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.report.comparison import Comparison, compare_runs
from selfdistill.runs.environment import Environment
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, Parameters, TrainRecord

PARAMETERS = Parameters(student=1000, training_only=0)
END = EndRecord(
    split="test", scores=None, epoch=2, step=10, seconds_per_step=0.5, peak_memory_mib=100.0, parameters=PARAMETERS
)


def classifier(top1: float, nll: float = 1.5) -> ClassificationScores:
    return ClassificationScores(top1=top1, top5=1.0, nll=nll, ece=0.05, count=10)


def shown(table: Comparison, row: int, *titles: str) -> list[str]:
    """What the whole table shows of a row under these titles."""
    cells = dict(zip(table.columns(), table.cells()[row], strict=True))
    return [cells[title] for title in titles]


def train_record(step: int) -> TrainRecord:
    return TrainRecord(epoch=1, step=step, lr=0.1, losses={"task": 1.0}, accuracy=0.5, seconds_per_step=0.5)


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Makes a run folder with a recipe and, unless top1 is None, an end."""

    def make(method: str | dict[str, Any], seed: int = 0, top1: float | None = 0.5, **rest: Any) -> Path:
        number = len(list(tmp_path.iterdir()))
        task = "segmentation" if isinstance(rest.get("scores"), SegmentationScores) else "classification"
        settings = {"method": method, "seed": seed, "task": task, **rest.pop("settings", {})}
        run = Run.create(tmp_path / f"run{number}", parse({**settings, "out": f"run{number}"}))
        run.append(train_record(step=5))
        run.append(EpochRecord(epoch=1, step=5, split="test", scores=classifier(0.99)))
        nll = rest.pop("nll", 1.5)
        if top1 is not None:
            run.append(END.model_copy(update={"scores": classifier(top1, nll), **rest}))
        return run.path

    return make


def test_seeds_are_averaged_and_set_beside_the_baseline(made: Any) -> None:
    extra = Parameters(student=1000, training_only=1234)
    runs = [
        made("baseline", 0, 0.50, seconds_per_step=0.1),
        made("frskd", 0, 0.60, seconds_per_step=0.2, nll=1.0, parameters=extra),
        made("baseline", 1, 0.54, seconds_per_step=0.1),
        made("frskd", 1, 0.62, seconds_per_step=0.9, nll=2.0, peak_memory_mib=300.0, parameters=extra),
        made("frskd", 2, 0.64, seconds_per_step=0.3, nll=3.0, peak_memory_mib=None, parameters=extra),
    ]
    baseline, frskd = compare_runs(runs).rows
    assert (baseline["method"], baseline["seeds"], frskd["method"], frskd["seeds"]) == ("baseline", 2, "frskd", 3)
    assert baseline["top1"] == pytest.approx(0.52) and baseline["top1_std"] == pytest.approx(0.02 * 2**0.5)
    assert frskd["top1"] == pytest.approx(0.62) and frskd["top1_std"] == pytest.approx(0.02)
    assert frskd["points"] == pytest.approx(10.0) and baseline["points"] is None
    assert frskd["nll"] == pytest.approx(2.0) and frskd["ece"] == pytest.approx(0.05)
    assert frskd["seconds_per_step"] == 0.3 and frskd["slowdown"] == pytest.approx(3.0) and baseline["slowdown"] == 1
    assert frskd["peak_memory_mib"] == 300 and frskd["training_only_parameters"] == 1234
    assert frskd["runs"] == [str(runs[1]), str(runs[3]), str(runs[4])]


def test_the_last_epoch_counts_not_the_best(made: Any) -> None:
    assert compare_runs([made("frskd", top1=0.3)]).rows[0]["top1"] == 0.3


def test_the_order_of_the_runs_does_not_change_the_numbers(made: Any) -> None:
    runs = [made("baseline", seed, 0.5 + seed / 10) for seed in range(3)] + [made("frskd", 0, 0.9)]
    forth, back = compare_runs(runs).rows, compare_runs(runs[::-1]).rows[::-1]
    for one, other in zip(forth, back, strict=True):
        assert {**one, "runs": sorted(one["runs"])} == {**other, "runs": sorted(other["runs"])}


def test_one_seed_has_no_spread(made: Any) -> None:
    table = compare_runs([made("baseline", top1=0.5)])
    assert table.rows[0]["top1_std"] is None
    assert "| 50.00 ± - |" in table.markdown() and "+0.00" not in table.markdown()
    assert table.verdicts == [] and table.rows[0]["statistics"] is None


def test_unfinished_runs_are_named_not_averaged(made: Any) -> None:
    done, cut = made("frskd", 0, 0.5), made("frskd", 1, None)
    longer = made("frskd", 2, 0.9)
    Run.open(longer).append(train_record(step=11))  # resumed for more steps, not ended again
    table = compare_runs([done, cut, longer])
    assert [row["runs"] for row in table.rows] == [[str(done)]]
    assert table.unfinished == [str(cut), str(longer)]
    assert f"Not finished, so not averaged in: {cut}, {longer}." in table.markdown()


def test_the_last_of_several_ends_counts(made: Any) -> None:
    path = made("frskd", 0, 0.5)
    run = Run.open(path)
    run.append(run.records()[-1].model_copy(update={"scores": classifier(0.7)}))
    assert compare_runs([path]).rows[0]["top1"] == 0.7


def test_methods_that_differ_in_a_setting_get_rows_of_their_own(made: Any) -> None:
    full = made({"name": "frskd", "alpha": 2.0, "beta": 100.0})
    without = made({"name": "frskd", "alpha": 2.0, "beta": 0.0}, top1=0.4)
    table = compare_runs([full, without, made("baseline")])
    assert [row["method"] for row in table.rows] == ["frskd+beta=100.0", "frskd+beta=0.0", "baseline"]
    assert table.rows[1]["points"] == pytest.approx(-10)
    assert table.notes == []


def test_named_rows_keep_their_names(made: Any) -> None:
    named = {"plain": [made("baseline", 0, 0.5)], "frskd+beta=0": [made({"name": "frskd", "beta": 0.0}, 0, 0.6)]}
    table = compare_runs(named, baseline="plain")
    assert [row["method"] for row in table.rows] == ["plain", "frskd+beta=0"]
    assert table.rows[1]["points"] == pytest.approx(10)


def test_without_a_baseline_there_is_no_difference(made: Any) -> None:
    row = compare_runs([made("frskd")]).rows[0]
    assert row["points"] is None and row["slowdown"] is None
    table = compare_runs({"plain": [made("baseline", 0, None)], "frskd": [made("frskd")]}, baseline="plain")
    assert [row["points"] for row in table.rows] == [None] and len(table.unfinished) == 1


@pytest.mark.parametrize(
    ("name", "sentence"), [("basline", "did you mean 'baseline'?"), ("xyz", "there are: baseline, frskd")]
)
def test_a_wrong_baseline_gets_the_nearest_row(made: Any, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"no row of the comparison is called '{name}'; {sentence}"):
        compare_runs([made("baseline"), made("frskd")], baseline=name)


def test_nothing_and_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_runs([])
    with pytest.raises(ValueError, match="is not a run folder"):
        compare_runs([tmp_path])


def test_runs_without_scores_or_times_still_tell_their_cost(made: Any) -> None:
    path = made("frskd", scores=None, split="val", seconds_per_step=float("nan"))
    table = compare_runs([made("baseline"), path])
    row = table.rows[1]
    assert row["top1"] is row["points"] is row["nll"] is row["seconds_per_step"] is row["slowdown"] is None
    assert row["peak_memory_mib"] == 100 and table.split == "test"


def test_what_makes_rows_less_comparable_is_said(made: Any) -> None:
    runs = [
        made("baseline", 0),
        made("baseline", 0),
        made("frskd", 0, settings={"optim": {"lr": 0.2}, "epochs": 5}),
        made("frskd", 1, settings={"optim": {"lr": 0.2}, "epochs": 5}, split="val"),
    ]
    for number, path in enumerate(runs):
        Run.open(path).write_environment(Environment(cpu=f"cpu {number // 2}", data={"train": str(number // 2)}))
    notes = " ".join(compare_runs(runs).notes)
    assert "baseline has several runs of one seed" in notes
    assert "beside the method they differ in optim.lr, epochs." in notes
    assert "Not all scores were taken on the same split." in notes
    assert "fingerprints differ" in notes and "different machines" in notes
    mixed = compare_runs({"both": [runs[0], runs[2]]}).notes
    assert any("The runs of both do not share one recipe" in note and "method.name" in note for note in mixed)


def test_runs_that_differ_in_nothing_but_the_seed_and_machine_need_no_note(made: Any) -> None:
    assert compare_runs([made("frskd", 0), made("frskd", 1, settings={"machine": {"workers": 2}})]).notes == []


def test_a_run_given_twice_counts_once(made: Any) -> None:
    path = made("frskd")
    assert compare_runs([path, path]).rows[0]["seeds"] == 1 and compare_runs([path, path]).notes == []


def dense(miou: float, boundary_f: float = 0.25) -> SegmentationScores:
    return SegmentationScores(
        miou, pixel_accuracy=0.9, boundary_f=boundary_f, nll=1.0, ece=0.1, iou=(miou, miou), count=3
    )


def test_segmenters_are_compared_by_their_own_scores(made: Any) -> None:
    runs = [
        made("baseline", scores=dense(0.5)),
        *(made("frskd", seed, scores=dense(miou, 0.75)) for seed, miou in enumerate((0.61, 0.63))),
    ]
    table = compare_runs(runs)
    baseline, frskd = table.rows
    assert frskd["miou"] == pytest.approx(0.62) and frskd["miou_std"] == pytest.approx(0.02 / 2**0.5)
    assert frskd["points"] == pytest.approx(12) and (frskd["boundary_f"], frskd["ece"]) == (0.75, 0.1)
    assert not {"top1", "top1_std"} & baseline.keys()
    assert shown(table, 0, "mIoU, %", "points", "boundary F, %", "ECE, %") == ["50.00 ± -", "", "25.00", "10.00"]
    assert shown(table, 1, "mIoU, %", "NLL, nats", "ECE, %") == ["62.00 ± 1.41", "1.000", "10.00"]


def test_rows_of_both_kinds_show_what_they_have_and_no_difference(made: Any) -> None:
    table = compare_runs([made("baseline", top1=0.5), made("frskd", scores=dense(0.6))])
    titles = ("top-1, %", "mIoU, %", "points", "NLL, nats", "ECE, %", "boundary F, %")
    assert shown(table, 0, *titles) == ["50.00 ± -", "- ± -", "", "1.500", "5.00", "-"]
    assert shown(table, 1, *titles) == ["- ± -", "60.00 ± -", "-", "1.000", "10.00", "25.00"]
    assert table.verdicts == []


def test_a_table_without_a_finished_run_keeps_its_titles(made: Any) -> None:
    table = compare_runs([made("frskd", top1=None)])
    assert {"top-1, %", "points", "NLL, nats", "ECE, %"} <= table.columns().keys() and "top-1" in table.markdown()


@pytest.fixture
def table(made: Any) -> Comparison:
    extra = Parameters(student=1000, training_only=411885)
    runs = [
        made("baseline", 0, 0.5),
        made("frskd", 0, 0.61, parameters=extra),
        made("frskd", 1, 0.63, parameters=extra),
    ]
    return compare_runs([*runs, made("frskd", 2, None)])


def test_markdown_shows_the_numbers_and_their_units(table: Comparison) -> None:
    verdict, _, head, rule, *rest = table.markdown().splitlines()
    assert verdict.startswith("frskd: +11.0 points, 1 of 1 seeds, 1.0x the training time, 0 at inference: cannot tell;")
    titles = ("seeds", "top-1, %", "points", "NLL, nats", "s / step", "slowdown", "peak MiB", "extra parameters")
    assert shown(table, 0, *titles) == ["1", "50.00 ± -", "", "1.500", "0.5", "1.00", "100", "0"]
    assert shown(table, 1, *titles) == ["2", "62.00 ± 1.41", "+11.00", "1.500", "0.5", "1.00", "100", "411,885"]
    assert head == f"| {' | '.join(table.columns())} |" and rule.count("|") == head.count("|")
    assert rest[3] == "Scores of the last epoch on the test images." and "no interval is possible" in table.markdown()


def test_json_holds_the_rows(table: Comparison) -> None:
    values = json.loads(table.json())
    assert values["rows"] == table.rows and values["split"] == "test" and len(values["unfinished"]) == 1


def test_the_console_table_fits_100_columns(made: Any) -> None:
    named = {"baseline": [], "frskd+alpha=2.0+stop_gradient=true": []}
    for seed in range(3):
        named["baseline"].append(made("baseline", seed, 0.50 + seed / 100))
        named["frskd+alpha=2.0+stop_gradient=true"].append(made("frskd", seed, 0.61 + seed**2 / 50))
    shown_at_once = io.StringIO()
    Console(file=shown_at_once, width=100).print(compare_runs(named).rich())
    for text in ("64.33 ± 4.16", "+13.3 [5.3, 21.3]", "3/3", "1.500", "1.00"):
        assert text in shown_at_once.getvalue()
    assert "…" not in shown_at_once.getvalue() and max(map(len, shown_at_once.getvalue().splitlines())) <= 100


def test_names_in_the_markdown_table_are_no_tags_and_no_links():
    row = {"method": "<img src=x>[a](b)|\n\x1b[31m`x`", "seeds": 1, "points": None, "seconds_per_step": None}
    row |= {"slowdown": None, "is_baseline": False, "peak_memory_mib": None, "training_only_parameters": 0}
    table = Comparison(rows=[row], split="<b>", unfinished=["a\nb"], notes=[], tasks=()).markdown()
    assert "&lt;img src=x>&#91;a](b)\\|\\n\\x1b&#91;31m&#96;x&#96;" in table and "&lt;b>" in table and "a\\nb" in table
