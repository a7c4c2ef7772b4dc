"""What the benchmarks count and how they write it; nothing that a clock enters."""

import json
import math
import re
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from selfdistill import Batch, Task, build_student, create_method
from selfdistill.commands.compare import parse_words

FOLDER = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


class Countable(nn.Module):
    """A linear layer that the same images pass 64 times: what it costs can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(48, 1000, bias=False)

    def forward(self, batch, progress):
        images = batch.images.flatten(1)
        scores = self.student(images.repeat(64, 1))
        return SimpleNamespace(loss=scores.sum())

    def after_step(self): ...


@pytest.fixture
def stepper(load):
    harness = load("harness")

    def make(module=None, name="frskd", **changes):
        setting = harness.Setting("classification", 4, 8, 5, CPU, "fp32", "false", True, 1)._replace(**changes)
        if module is None:
            return harness.create_stepper(name, "cifar:resnet8", setting)
        batch = Batch(torch.randn(4, 3, 4, 4), torch.randint(5, (4,)))
        return harness.Stepper(module, batch, setting)

    return make


def test_operations_rows_and_memory_are_those_counted_by_hand(load, stepper):
    counts = load("flops_memory").count_costs(stepper(Countable()))
    rows, weight = 64 * 4, 4 * 48 * 1000  # bytes: of the weight, its gradient, its momentum
    assert counts.flops == 2 * (rows * 48 * 1000) * 2  # forward, and the gradient of the weight; none of the images
    assert (counts.rows, counts.student, counts.training_only) == (64, 48_000, 0)
    lasting = 2 * weight + 4 * (4 * 48) + 4 * 8  # and the batch's images and labels
    backward = 4 * rows * 48 + 4 * rows * 1000 + weight  # the repeated images and the gradients of scores and weight
    assert 0 <= counts.memory - (lasting + backward) <= 16  # the loss, and where its gradient begins


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolutions_gradients_cost_what_it_costs(load, groups, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer, images = kind(8, 16, 3, stride=2, groups=groups, bias=False), torch.randn(2, 8, 9, 9, requires_grad=True)
    with load("flops_memory").create_flop_counter() as flops:
        scores = layer(images)
        forward = flops.get_total_flops()
        scores.sum().backward()
    positions = 9 * 9 if transposed else 4 * 4
    assert forward == 2 * 2 * positions * 9 * 8 * 16 // groups
    assert flops.get_total_flops() == 3 * forward


@pytest.mark.slow
def test_counts_are_the_same_at_every_run_and_frskd_costs_more_than_plain_training(load, stepper):
    count_costs = load("flops_memory").count_costs
    plain, again, frskd = (count_costs(stepper(name=name)) for name in ("baseline", "baseline", "frskd"))
    assert plain == again == count_costs(stepper(name="baseline"))
    assert 1.2 < frskd.flops / plain.flops < 4 and frskd.memory > plain.memory
    assert frskd.student == plain.student and frskd.training_only > 0 == plain.training_only
    assert (plain.rows, frskd.rows, count_costs(stepper(name="sla")).rows) == (1, 1, 4)


def test_a_batch_twice_as_large_costs_twice_the_operations(load, stepper):
    one, two = (load("flops_memory").count_costs(stepper(name="baseline", batch=rows)) for rows in (4, 8))
    assert two.flops == 2 * one.flops and one.memory < two.memory < 2 * one.memory


def test_growth_is_the_slope_between_logarithms(load):
    exponent = load("scaling").fit_exponent
    assert exponent([10, 20, 40], [7, 7, 7]) == pytest.approx(0)
    assert exponent([10, 20, 40], [3, 12, 48]) == pytest.approx(2)


def test_medians_and_quartiles_are_over_turns_behind_the_warm_up(load):
    harness = load("harness")
    times = [iter([9, 9, 1, 2, 4]), iter([9, 9, 3, 2, 8])]  # two turns to warm up
    steppers = [
        SimpleNamespace(time_steps=lambda _, t=t: next(t), setting=SimpleNamespace(steps_per_turn=1)) for t in times
    ]
    plain, own = harness.time_in_turns(steppers, 3)
    assert (plain, own) == ([1, 2, 4], [3, 2, 8])
    assert harness.compute_spread([one / other for one, other in zip(own, plain, strict=True)]) == (1.5, 2.0, 2.5)


def test_the_pace_of_epochs_leaves_out_the_first(load):
    throughput = load("throughput")
    clock = throughput.Clock(scored=True)
    clock.epoch_starts, clock.training_ends, clock.cpu = [0, 11, 17, 23], [10, 15, 21], [0, 30, 38, 46]
    clock.first_step = 6
    assert clock.compute_times(100) == (100, 4, 2, 6, 8)


def test_processor_time_counts_also_what_takes_less_than_a_tick_of_the_system(load):
    cpu_seconds = load("throughput").read_cpu_seconds
    assert 0 < cpu_seconds() < cpu_seconds() < cpu_seconds()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("overhead", "--turns 1", "argument --turns: 1 is less than 2"),
        ("overhead", "--batch many", "argument --batch: invalid number value: 'many'"),
        ("overhead", "--device gpu", "argument --device: gpu is no device; take cpu or cuda"),
        ("overhead", "--against no_such.py", "--against: there is no file no_such.py"),
        ("scaling", "--along-batch 4", "argument --along-batch: 4 is one size, and growth takes two"),
        ("scaling", "--axes depth", "no axis is called 'depth'; there are batch, size, classes, examples, processes"),
        ("scaling", "--axes batch --compile true", "--compile has no effect: growth is measured uncompiled"),
        ("scaling", "--axes processes --batch 5", "--batch 5 cannot be dealt to 2 processes; take a multiple of 2"),
        ("operations", "--compile graphs", "--compile has no effect: operations are those of the uncompiled step"),
        ("throughput", "--epochs 1", "argument --epochs: 1 is less than 2"),
        ("bench", "--only Nothing", "argument --only: invalid choice: 'Nothing'"),
    ],
)
def test_a_command_line_that_cannot_work_ends_with_one_sentence(load, capsys, script, words, message):
    with pytest.raises(SystemExit):
        load(script).main(words.split())
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{Path(sys.argv[0]).name}: error: {message}")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("overhead", "--methods frksd", "error: .*frksd.*did you mean 'frskd'"),
        ("scaling", "--methods frskd --student cifar:resnet9 --axes batch", "error: .*resnet9.*did you mean"),
        ("throughput", "data=digits student=cifar:resnet9", "error: .*resnet9.*did you mean"),
        ("checks", "--methods frksd", "error: .*frksd.*did you mean 'frskd'"),
    ],
)
def test_a_name_that_is_not_known_ends_a_script_with_the_packages_sentence(load, script, words, message):
    with pytest.raises(SystemExit, match=message):
        load("report").run_main(lambda: load(script).main(words.split()))


def test_a_page_is_named_by_hardware_and_month(load):
    named, day = load("report").choose_file_name, date(2026, 11, 22)
    assert named("AMD EPYC, 2 threads", day) == "amd-epyc-2-threads-2026-11.md"
    assert named("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 1 thread", day) == (
        "intel-xeon-platinum-8481c-cpu-1-thread-2026-11.md"
    )
    assert named("NVIDIA H100 80GB HBM3", day) == "nvidia-h100-80gb-hbm3-2026-11.md"


def test_a_page_keeps_its_other_tables_and_their_order(load, tmp_path):
    path = tmp_path / "results/page.md"
    for heading, command, printed in [("A", "run a", "| 1 |"), ("B", "run b", "| 2 |"), ("A", "run a -x", "| 3 |")]:
        page = load("report").Page(path, "A machine")
        assert not page.holds(heading, command)
        page.put(heading, command, printed)
    page = load("report").Page(path, "another title")
    assert page.holds("A", "run a -x") and page.holds("B", "run b") and not page.holds("A", "run a")
    text = path.read_text()
    assert text == "# A machine\n\n## A\n\n```\nrun a -x\n```\n\n| 3 |\n\n## B\n\n```\nrun b\n```\n\n| 2 |\n"


@pytest.mark.slow
def test_operations_are_those_of_one_step_of_each(load, capsys):
    words = "--method frskd --student cifar:resnet8 --size 8 --batch 4 --rows 2 --device cpu --threads 1"
    both = load("operations").main(words.split())
    calls = [each.calls for each in both["aten::native_batch_norm_backward"]]
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in made.modules()) for made in networks()]
    assert calls == norms
    table = capsys.readouterr().out.splitlines()[-5:]
    assert table[0].startswith("| operation, ms per step | baseline | frskd") and table[-1].startswith("| all |")


def networks():
    """What plain training and FRSKD hold around a cifar:resnet8."""
    task = Task("classification", 100, (3, 8, 8))
    for name in ("baseline", "frskd"):
        yield create_method(name, build_student("cifar:resnet8", num_classes=100, image_shape=(3, 8, 8)), task)


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(FOLDER / "accuracy")
    import measure

    return measure


def test_the_page_of_accuracies_is_written_from_the_results_that_are_there(accuracy):
    text = accuracy.PAGE.read_text(encoding="utf-8")
    assert text == accuracy.write_page()
    names = {path.stem for path in accuracy.RESULTS.glob("*.json") if not path.stem.startswith(("worth-", "prices-"))}
    assert names <= accuracy.TABLES.keys() and text.count("\n## ") == len(names) > 0
    assert str(Path.home()) not in text


def test_the_page_and_the_table_of_the_study_are_written_from_its_results(accuracy, monkeypatch):
    import table
    import when

    monkeypatch.setattr(when, "draw_frontier", lambda *arguments: None)  # its pictures are beside the page
    written = "python benchmarks/accuracy/when.py writes it from the results"
    assert (when.DOCS / "when-it-helps.md").read_text(encoding="utf-8") == when.write_page(), written
    assert table.TABLE.read_text(encoding="utf-8") == table.write_table(when.RESULTS), written
    drawn = {path.name for path in when.DOCS.glob("when-*.png")}
    assert drawn == set(re.findall(r"\((when-[\w-]+\.png)\)", when.write_page()))


def test_of_several_forms_the_page_is_about_the_one_that_runs_take_and_else_the_one_that_gained_most(accuracy):
    import when
    from evidence import Arm, Finding
    from families import FAMILIES

    def tried(family, name, steps, gain=0.0):
        times = [gain - 0.1, gain, gain + 0.1]
        return when.Tried(FAMILIES[family], Finding(Arm(name, 20), 1.0, [1, 2, 3], 0, 0, [], times, 20), None, steps)

    for family, name, steps in (
        ("part", "frskd+levels=1", 620),
        ("part", "frskd+levels=2", 1240),
        ("part", "frskd+levels=null", 20_000),
        ("fine-photos", "frskd+levels=2", 620),
        ("scenes", "frskd+levels=1+alpha=0", 620),
        ("scenes", "frskd+levels=null", 2500),
    ):
        default, better = tried(family, name, steps, -1), tried(family, f"{name}+beta=0", steps, 2)
        assert default.is_default and not better.is_default and not tried(family, "frskd+levels=3", steps).is_default
        assert min([better, default, tried(family, "frskd+alpha=0.5", steps, 1)], key=lambda each: each.rank) is default
        assert min([tried(family, "frskd+alpha=0.5", steps, 1), better], key=lambda each: each.rank) is better


def test_a_seed_whose_longer_plain_run_is_missing_is_not_compared_with_a_shorter_one(accuracy):
    from evidence import Arm, Study

    def runs(**scores):
        return [{"seed": int(seed.removeprefix("s")), "top1": score} for seed, score in scores.items()]

    plain = {"baseline+epochs=10": runs(s1=0.5, s2=0.5, s3=0.5), "baseline+epochs=20": runs(s1=0.7, s2=0.7)}
    study = Study({**plain, "frskd+epochs=10": runs(s1=0.6, s2=0.8, s3=0.9)}, {"frskd": 2.1})
    found = study.judge(Arm("frskd", 10), "top1")
    assert found.in_epochs == pytest.approx([10.0, 30.0, 40.0])
    assert found.in_time == pytest.approx([-10.0, 10.0]) and found.longest == 20 and found.is_dearer


def test_the_tried_forms_of_frskd_do_what_they_say(accuracy):
    import levers

    batch = small_batch(levers.Shares, small_task())
    shares = small_method(levers.Shares, small_task(), share=0.5, ramp=0.5)
    for progress, share in ((1.0, 0.5), (0.25, 0.5 * math.exp(-5 * 0.5**2))):  # by FRSKD's own ramp
        pulls = {name: shares.measure_pull(loss) for name, loss in shares(batch, torch.tensor(progress)).losses.items()}
        assert float(pulls["kd"] / pulls["task"]) == pytest.approx(share, rel=1e-3)
        assert float(pulls["feature"] / pulls["task"]) == pytest.approx(share, rel=1e-3)
    kth = small_method(levers.EveryKth, small_task(), every=3)
    works = []
    for _ in range(6):
        kth.begin_step(0.5)
        works.append("teacher" in kth(batch, 0.5).losses)
    assert works.index(True) < 3 and works[:3] == works[3:] and sum(works) == 2


def test_the_frontier_has_what_nothing_as_cheap_beats_with_the_same_seeds(accuracy):
    from evidence import Arm, Study, find_frontier

    def runs(*scores):
        return [{"seed": seed, "top1": score, "nll": 1 - score} for seed, score in enumerate(scores)]

    plain = {"baseline+epochs=10": runs(0.5, 0.5), "baseline+epochs=20": runs(0.7, 0.7)}
    arms = {"cheap+epochs=10": runs(0.6, 0.6), "dear+epochs=10": runs(0.6, 0.7), "once+epochs=10": runs(0.9)}
    study = Study({**plain, **arms, "unpriced+epochs=5": runs(0.9, 0.9)}, {"cheap": 1.5, "dear": 1.9, "once": 1.0})
    expected = [Arm("baseline", 10), Arm("cheap", 10), Arm("dear", 10), Arm("baseline", 20)]
    assert find_frontier(study, "top1", [0, 1]) == find_frontier(study, "nll", [0, 1]) == expected
    assert find_frontier(study, "top1", [0]) == [Arm("once", 10)]
    assert find_frontier(Study(arms, {"cheap": 1.5}), "top1", [0, 1]) == []


def test_results_name_their_arms_as_the_plans_do(accuracy):
    import worth

    planned = {arm for plan in worth.PLANS.values() for part in plan for arm in worth.list_arms(part)}
    folders = {worth.make_file_name(arm): arm for arm in planned}
    named = [arm for file in accuracy.RESULTS.glob("worth-*.json") for arm in json.loads(file.read_text("utf-8"))]
    assert named and all(folders.get(arm, arm) == arm for arm in named)
    assert any("[decoder.blocks.3]" in arm for arm in planned.intersection(named))


def test_every_table_of_accuracies_is_a_comparison_that_can_be_asked_for(accuracy):
    for name, table in accuracy.TABLES.items():
        methods = ",".join(table.methods).format_map(dict.fromkeys(table.teachers, "RUN"))
        request = parse_words([*table.words.split(), f"methods={methods}", f"seeds={table.seeds}"])
        assert request.arms[0].startswith(("baseline", "frskd")) and len(request.seeds) == table.seeds, name
        for words in table.teachers.values():
            accuracy.read_words([*table.words.split(), *words.split()])
