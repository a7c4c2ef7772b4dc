"""A comparison as a user runs it: planned first, resumed, shared by processes, and judged by the rule of its plan."""

import csv
import json
import shutil

import pytest
import scipy.stats

from selfdistill.build import build
from selfdistill.build.automatic import Choice
from selfdistill.commands import compare as compare_module
from selfdistill.commands import study as study_module
from selfdistill.commands import train as train_module
from selfdistill.config.read import read as read_recipe
from selfdistill.runs.folder import Run
from selfdistill.runs.lock import FolderTaken, lock_folder

TINY = ["data.limit=40", "student=cifar:resnet8", "batch_size=16", "epochs=1", "precision=fp32"]
WORDS = [*TINY, "methods=baseline,frskd", "seeds=3", "controls=equal_cost", "margin=0.7"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison with controls, whose pilot found FRSKD twice as slow as the baseline: for tests that
    only read it."""
    from selfdistill import cli

    folder, patch = tmp_path_factory.mktemp("compared") / "all", pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["selfdistill", "compare", *WORDS, f"out={folder}"])
    measure = study_module.measure_paces

    def measure_slow(*args, **options):
        return {arm: pace.model_copy(update={"slowdown": 2.0}) for arm, pace in measure(*args, **options).items()}

    patch.setattr(study_module, "measure_paces", measure_slow)
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code
    finally:
        patch.undo()
    return folder


@pytest.fixture
def copied(compared, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(compared, tmp_path / "all")


def read(folder, name="compare.json"):
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_the_plan_holds_the_rule_the_arms_and_the_measured_slowdown(compared):
    plan = read(compared, "plan.json")
    assert plan["arms"] == ["baseline", "frskd", "baseline+epochs=2"] and plan["seeds"] == [0, 1, 2]
    assert plan["equal_cost"] == {"frskd": "baseline+epochs=2"} and plan["margin"] == 0.7
    assert "0.7 points" in plan["rule"] and plan["test_fraction"] == 0.2
    pace = plan["pilot"]["frskd"]
    assert pace["turns"] >= 7 and pace["low"] <= pace["high"] and pace["seconds_per_step"] > 0
    assert plan["controls"] == ["baseline+epochs=2"]


@pytest.mark.slow
def test_every_run_and_every_verdict_is_written(compared):
    table = read(compared)
    lines = [*csv.DictReader((compared / "compare.csv").read_text().splitlines())]
    assert len(lines) == 9 and {(line["arm"], line["seed"]) for line in lines} >= {("frskd", "0"), ("baseline", "2")}
    assert [verdict["arm"] for verdict in table["verdicts"]] == ["frskd"]
    assert table["rule"]["margin"] == 0.7 and table["split"] == "test"
    markdown, latex = (compared / "compare.md").read_text(), (compared / "compare.tex").read_text()
    assert table["verdicts"][0]["sentence"] in markdown and r"\toprule" in latex and r"baseline+epochs=2" in latex


@pytest.mark.slow
def test_the_numbers_are_those_of_the_logs(compared):
    top1 = {}
    for name in ("baseline", "frskd"):
        ends = [Run.open(compared / f"{name}-s{seed}").records()[-1] for seed in range(3)]
        top1[name] = [end.test_scores.top1 for end in ends]
    row = next(row for row in read(compared)["rows"] if row["method"] == "frskd")
    differences = [100 * (one - other) for one, other in zip(top1["frskd"], top1["baseline"], strict=True)]
    assert row["statistics"]["differences"] == pytest.approx(differences)
    if len(set(differences)) > 1:
        paired = scipy.stats.ttest_rel(top1["frskd"], top1["baseline"])
        assert row["statistics"]["over_seeds"]["p"] == pytest.approx(float(paired.pvalue))
    assert row["statistics"]["basis"] == "seeds and test images" and row["statistics"]["images"] == 357
    assert [seed["top1"] for seed in row["per_seed"]] == pytest.approx(top1["frskd"])


@pytest.mark.slow
def test_the_same_line_again_trains_what_is_missing_and_nothing_else(run, copied, monkeypatch):
    shutil.rmtree(copied / "frskd-s1")
    (copied / "compare.json").unlink()
    plan = read(copied, "plan.json")
    before = {path: path.read_bytes() for path in copied.glob("*/metrics.jsonl")}
    monkeypatch.setattr(study_module, "measure_paces", None)  # it is written down already
    code, out, err = run("compare", *WORDS[:-1], f"out={copied}")  # without margin=, which the plan knows
    assert code == 0, err
    assert {path: path.read_bytes() for path in before} == before and (copied / "frskd-s1" / "metrics.jsonl").exists()
    assert {**read(copied, "plan.json"), "spent_seconds": 0} == {**plan, "spent_seconds": 0}
    assert "frskd: " in out and len(read(copied)["rows"]) == 3
    code, _, err = run("compare", *WORDS[:-1], "margin=0.1", f"out={copied}")
    assert code == 1 and "begun with margin=0.7" in err


def test_a_comparison_needs_images_to_score_on(run, tmp_path):
    out = tmp_path / "compared"
    code, _, err = run("compare", *TINY, "data.val_fraction=0", "data.test_fraction=none", f"out={out}")
    assert code == 1 and "a comparison needs images to score on" in err and not [*out.glob("*/recipe.yaml")]


def test_nobody_else_may_write_a_run_from_its_first_file_to_its_end(run, tmp_path, monkeypatch):
    """Another process that takes part in a comparison sees the run as soon as it has a recipe."""
    write_environment, folder = train_module.write_environment, tmp_path / "run"

    def look(experiment, new):
        with pytest.raises(FolderTaken), lock_folder(new.path):
            pass
        write_environment(experiment, new)

    monkeypatch.setattr(train_module, "write_environment", look)
    code, _, err = run("train", *TINY, "max_steps=1", f"out={folder}")
    assert code == 0 and Run.open(folder).environment() is not None, err


def test_a_run_that_another_process_has_ended_meanwhile_is_not_begun_again(tmp_path):
    experiment = build(read_recipe(None, [*TINY, "max_steps=1", f"out={tmp_path / 'run'}"]))
    study_module.train_arm(experiment, train_module.Manner("baseline, seed 0"))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    study_module.train_arm(experiment, train_module.Manner("baseline, seed 0"))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_left_to_it_and_named(run, copied):
    for name in ("frskd-s1", "baseline-s2"):
        log = copied / name / "metrics.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))  # it has not ended
    for path in (copied / "frskd-s1").iterdir():
        if path.name != "recipe.yaml":  # the other process has only just begun
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with lock_folder(copied / "frskd-s1"):
        code, out, err = run("compare", *WORDS, f"out={copied}")
    assert code == 0 and "other processes still train frskd-s1" in err, err
    rows = {row["method"]: row for row in read(copied)["rows"]}
    assert rows["frskd"]["seeds"] == 2 and rows["baseline"]["seeds"] == 3


@pytest.mark.slow
def test_a_budget_counts_what_is_spent_and_names_what_it_drops(run, copied):
    code, _, err = run("compare", *TINY, "methods=baseline,frskd", "seeds=5", "budget=0.001s", f"out={copied}")
    assert code == 0, err
    plan = read(copied, "plan.json")
    assert plan["spent_seconds"] > 0 and plan["budget_seconds"] == 0.001
    assert plan["dropped"] == ["baseline-s3", "frskd-s3", "baseline-s4", "frskd-s4"]
    assert "dropped for want of time: baseline-s3" in err and not (copied / "baseline-s3").exists()
    code, _, err = run("compare", *TINY, "seeds=1", "budget=0.001s", f"out={copied}-new")
    assert code == 1 and "too little" in err


@pytest.mark.slow
def test_test_images_are_held_out_unless_the_user_or_an_older_run_says_no(run, tmp_path):
    words = [*TINY, "methods=baseline", "seeds=[7]", f"out={tmp_path / 'all'}"]
    code, out, err = run("compare", *words, "data.test_fraction=none")
    assert code == 0 and (tmp_path / "all" / "baseline-s7").exists(), err
    assert read(tmp_path / "all")["split"] == "val" and "+0.00" not in out
    code, _, err = run("compare", *words)
    assert code == 0 and "is finished" in err, err
    (only,) = read(tmp_path / "all")["rows"]
    assert only["statistics"] is None and read(tmp_path / "all")["verdicts"] == []


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("margin=x", "margin=x is no number of points"),
        ("controls=cutmx", "did you mean 'cutmix'"),
        ("budget=2", "write 2h, 90m, 1h30m or 45s"),
        ("methods=baseline,auto+alpha=1", "auto+alpha=1: auto chooses the settings too"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_a_sentence(run, word, sentence):
    code, _, err = run("compare", word)
    assert code == 1 and sentence in err


@pytest.fixture
def choose(monkeypatch):
    """Has auto choose an arm, whatever was measured; gives what it looked at."""

    def choose(arm):
        looked_at = []
        choice = Choice(arm, f"auto takes {arm}, so")
        monkeypatch.setattr(
            "selfdistill.build.choose_method", lambda recipe, opened: looked_at.append(recipe) or choice
        )
        return looked_at

    return choose


def prepare(folder, methods, *words):
    words = [*TINY, f"methods={methods}", "seeds=[4]", *words, f"out={folder}"]
    return compare_module.prepare_study(compare_module.parse_words(words))


def test_auto_stands_for_the_arm_that_is_chosen_and_says_which(tmp_path, choose, capsys):
    looked_at = choose("label_smoothing")
    (tmp_path / "auto.yaml").write_text("method: auto")
    words = [str(tmp_path / "auto.yaml"), *TINY, "methods=baseline,auto", "seeds=[4]", f"out={tmp_path / 'a'}"]
    study = compare_module.prepare_study(compare_module.parse_words(words))
    assert study.plan.arms == ["baseline", "label_smoothing"]
    assert study.resolved["label_smoothing"].method.name == "label_smoothing"
    assert "note: auto takes label_smoothing, so\n" in capsys.readouterr().err
    assert looked_at[0].data.test_fraction == 0.2  # the images that it will learn from are counted


def test_a_comparison_that_was_begun_keeps_what_auto_chose(tmp_path, choose, capsys):
    choose("label_smoothing")
    assert prepare(tmp_path / "a", "baseline,auto").plan.auto == "label_smoothing"
    looked_at = choose("sad")
    assert prepare(tmp_path / "a", "baseline,auto").plan.arms == ["baseline", "label_smoothing"] and not looked_at
    assert "note: auto stays label_smoothing, with which this comparison was begun\n" in capsys.readouterr().err
    assert prepare(tmp_path / "a", "baseline,tfd").plan.auto == "label_smoothing"  # nor is it forgotten
    assert prepare(tmp_path / "b", "baseline,auto").plan.arms == ["baseline", "sad"]


def test_an_arm_that_trains_what_auto_chose_stands_for_both(tmp_path, choose, capsys):
    choose("frskd+levels=1")
    assert prepare(tmp_path / "a", "baseline,auto,frskd+levels=2,frskd").plan.arms == [
        *("baseline", "frskd", "frskd+levels=2"),
    ]
    sentence = "note: {} is the same as {} in these runs, which stands for both\n"
    assert sentence.format("frskd+levels=1", "frskd") in capsys.readouterr().err
    assert prepare(tmp_path / "b", "baseline,auto,frskd+levels=2").plan.arms[1] == "frskd+levels=1"
    assert prepare(tmp_path / "b", "baseline,frskd,auto").plan.arms == ["baseline", "frskd+levels=1"]  # as begun
    assert sentence.format("frskd", "frskd+levels=1") in capsys.readouterr().err


def test_where_auto_leaves_nothing_to_compare_that_is_said_before_training(tmp_path, choose):
    choose("baseline")
    with pytest.raises(ValueError, match="nothing is left to compare with baseline, as auto takes baseline, so; name"):
        prepare(tmp_path / "a", "baseline,auto")
    assert not (tmp_path / "a").exists()
    assert prepare(tmp_path / "b", "baseline,auto", "controls=label_smoothing").plan.arms == [
        *("baseline", "label_smoothing"),
    ]
    with pytest.raises(ValueError, match="nothing is left to compare"):
        prepare(tmp_path / "b", "baseline,auto", "controls=equal_cost")
    assert prepare(tmp_path / "c", "auto").plan.arms == ["baseline"]


def test_what_auto_chose_and_cannot_be_trained_is_plain_training(tmp_path, choose, capsys, monkeypatch):
    choose("sad")
    net = "def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))"
    (tmp_path / "flat_student.py").write_text(f"from torch import nn\n{net}\n")
    monkeypatch.syspath_prepend(tmp_path)
    study = prepare(tmp_path / "a", "label_smoothing,auto", "student=flat_student:net")
    assert study.plan.arms == ["label_smoothing", "baseline"]
    assert "sad, which did best in runs like this one, cannot be trained here: " in capsys.readouterr().err


def test_auto_is_refused_beside_settings_of_the_recipes_method():
    with pytest.raises(ValueError, match=r"the recipe sets method.beta, and auto among methods= chooses the settings"):
        compare_module.parse_words(["method.beta=1", "methods=baseline,auto"])
