"""report, as a user calls it."""

import json
import shutil

import pytest

from helpers.finished_runs import make_run
from selfdistill.commands.report import list_arms, write_report
from selfdistill.report.comparison import compare_runs
from selfdistill.runs.folder import Run


def copy_twice(run, folder):
    """Two arms: a run as it is, and one whose students answer other things."""
    one, other = (shutil.copytree(run, folder / name) for name in ("one", "other"))
    (split,) = (path.stem.removeprefix("outcomes-") for path in other.glob("outcomes-*"))
    outcomes = Run(other).outcomes(split)
    if hasattr(outcomes, "label"):
        changed = outcomes._replace(predicted=outcomes.label.flip(0), logits=None)
    else:
        changed = outcomes._replace(intersection=outcomes.intersection // 2)
    Run(other).save_outcomes(split, changed)
    return compare_runs({"one": [one], "other": [other]}, "one")


@pytest.fixture(scope="module")
def masks_compared(masks_run, tmp_path_factory):
    return copy_twice(masks_run, tmp_path_factory.mktemp("masks"))


@pytest.mark.slow
def test_a_run_gets_its_page_and_its_figures(run, digits_run, tmp_path):
    code, out, err = run("report", digits_run, "--out", tmp_path / "out")
    assert code == 0, err
    assert out == f"written: {tmp_path / 'out' / 'report.html'}\n"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "frskd reaches top-1" in page
    assert "Feature Refinement via Self-Knowledge Distillation" in page  # the paper to cite
    assert page.count("attention of the student") == page.count("attention of the self-teacher") >= 4 * 3
    assert (tmp_path / "out" / "figures" / "loss-task.svg").is_file()


@pytest.mark.slow
def test_changed_images_are_shown(digits_run, tmp_path):
    page = write_report(copy_twice(digits_run, tmp_path), tmp_path, command="x").read_text()
    assert "image: row " in page and "attention of the baseline" in page


@pytest.mark.slow
def test_masks_are_drawn_with_label_predictions_and_errors(masks_compared, tmp_path):
    page = write_report(masks_compared, tmp_path, command="x").read_text()
    for title in ("image", "label", "one", "other", "errors of one", "errors of other"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "image of " in page


@pytest.mark.slow
def test_images_that_are_others_now_are_not_shown(masks_compared, tmp_path, monkeypatch):
    monkeypatch.setattr("selfdistill.commands.report.has_changed", lambda *images: True)
    page = write_report(masks_compared, tmp_path, command="x").read_text()
    assert "they are not those that the runs were scored on" in page and "errors of" not in page


@pytest.mark.slow
def test_images_that_a_strangers_run_names_are_not_put_into_the_page(masks_compared, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
    page = write_report(masks_compared, tmp_path, command="x").read_text()
    assert "<img" not in page and "is not signed by this machine. With --trust they are." in page
    assert "<img" in write_report(masks_compared, tmp_path, command="x", trust=True).read_text()


def test_nothing_is_written_through_a_link(digits_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "figures").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "report.html").symlink_to(tmp_path / "elsewhere" / "x.html")
    with pytest.raises(ValueError, match="figures"):
        write_report(compare_runs([digits_run]), tmp_path / "out", command="x")
    assert not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.slow
def test_images_that_are_gone_are_missing_with_a_reason(masks_run, masks_compared, tmp_path):
    data = masks_run.parent / "data"
    data.rename(data.with_name("elsewhere"))
    try:
        page = write_report(masks_compared, tmp_path, command="x").read_text()
    finally:
        data.with_name("elsewhere").rename(data)
    assert "The images are not shown: " in page and str(data) in page


def test_the_folder_of_a_comparison_keeps_its_arms(tmp_path):
    paths = [make_run(tmp_path / f"{arm}-s{seed}", arm, seed) for arm in ("byot", "baseline") for seed in (0, 1)]
    unfinished = make_run(tmp_path / "byot-s2", "byot", 2, state="unfinished")
    arms = {"byot": paths[:2], "baseline": paths[2:]}
    (tmp_path / "compare.json").write_text(compare_runs(arms, baseline="byot").json())
    assert list_arms([tmp_path]) == {**arms, "byot-s2": [unfinished]}
    (tmp_path / "compare.json").write_text(json.dumps({"rows": []}))
    assert list_arms([tmp_path]) == sorted([*paths, unfinished])


@pytest.mark.parametrize(("name", "words"), [("", "neither a run folder nor a folder of runs"), ("x", "no run folder")])
def test_a_folder_without_runs_is_refused_in_one_sentence(run, tmp_path, name, words):
    code, _, err = run("report", tmp_path / name)
    assert code == 1 and words in err and err.count("\n") == 1
