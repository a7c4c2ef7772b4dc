"""Writes docs/when-it-helps.md, with its figures, and the table of `method=auto` from the results of worth.py.

python benchmarks/accuracy/when.py
"""

import math
import statistics
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from evidence import (  # noqa: E402
    Arm,
    Finding,
    Study,
    find_frontier,
    find_likelihood,
    find_score,
    list_later,
    list_seeds,
    read_study,
)
from families import FAMILIES, LATER, Family  # noqa: E402
from table import TABLE, make_table, write_table  # noqa: E402

from report import run_main, tell  # noqa: E402
from selfdistill.build.arms import build_arm_recipe  # noqa: E402
from selfdistill.build.automatic import PLAIN, choose_arm  # noqa: E402
from selfdistill.build.evidence import Entry, Situation, list_gains, make_entry  # noqa: E402
from selfdistill.config.recipe import Recipe  # noqa: E402
from selfdistill.errors import count_of  # noqa: E402
from selfdistill.methods import find_method  # noqa: E402
from selfdistill.report.figures.curves import Curve, draw_curves  # noqa: E402
from selfdistill.report.figures.raster import rasterize  # noqa: E402
from selfdistill.report.markdown import markdown_table  # noqa: E402
from selfdistill.report.statistics import Estimate, compare_pairs  # noqa: E402
from selfdistill.report.verdict import describe_difference  # noqa: E402
from selfdistill.runs.files import write_text  # noqa: E402
from selfdistill.tasks import find_task  # noqa: E402

RESULTS, DOCS = HERE / "results", HERE.parents[1] / "docs"
TOP = """# When does self-distillation help?

Written by `python benchmarks/accuracy/when.py` from the files of `benchmarks/accuracy/results`;
change those, not this page."""
RULES = """`benchmarks/accuracy/PROTOCOL.md` has the rules, which were written before the runs. In short:
scores are those of the last epoch, and each arm stands beside plain training **of the same time**. A
row says how much better (+) or worse (-) the arm is, paired by seed, with the 95 % interval for other
seeds. NLL is in nats, and "better by" is + where it is better. Plain training that goes on becomes too
sure, so NLL is that at the temperature which fits the test images best, where that is known. `price`
is how many plain steps one of its steps takes, by processor time. A star marks an arm that took longer
than the longest plain run, with which it is compared then. Only the seeds that confirm count in what
is said here; every try stands below them. `levels=null` is FRSKD on all maps; how many it
takes if nothing is set depends on the run ([short schedules](short-schedules.md)). `share`, a part of
each batch for the self-teacher, was given up and is no setting any more; `levers:` marks forms that
are in `benchmarks/accuracy/levers.py` alone. `method=auto` chooses
by the same numbers ([choosing a method](choosing-a-method.md#let-the-evidence-choose))."""
QUESTION = """A user has a number of seconds. Is the network better if they go into FRSKD, or into more epochs of plain
training? By the 95 % intervals over seeds, of accuracy (mean IoU for masks) and of NLL:"""
ADVICE = """**What to do**, by what was measured, against plain training of the same time (+ is better). As
`method=auto` does, it counts all families that are like the row's: where a gain alone could be chance, one
that is sure in another of them decides, if none of them lost. The last two rows are the comparisons of
[accuracy](accuracy.md), with all their seeds."""
GROUPS = {  # verdict -> how its line begins
    "better": "FRSKD is better",
    "mixed": "FRSKD is better in one of the two and worse in the other",
    "within chance": "The difference is within chance",
    "worse": "Plain training is better",
    "unknown": "Not known yet (it takes three confirming seeds and a price)",
}
FEW = 4  # tries that need no picture
WIDE = 1.25  # times the shortest training time the longest must be, to be drawn
FRSKD = "frskd"  # what the names of arms built on it begin with


class Tried(NamedTuple):
    """An arm that confirms, with what was found of it in the main score and in NLL."""

    family: Family
    main: Finding
    nll: Finding | None
    steps: int

    @property
    def is_default(self) -> bool:
        """Whether it is what FRSKD is in a run like that if nothing is set."""
        if self.main.arm.name.partition("+")[0] != FRSKD:
            return False
        method, output = find_method(FRSKD), find_task(self.family.task).output
        arm, usual = (build_arm_recipe(Recipe(), name) for name in (self.main.arm.name, FRSKD))

        def resolve(recipe: Recipe) -> dict[str, Any]:
            given = recipe.method.hyperparameters
            chosen = method.short_run_defaults(output, given, self.steps, is_tuning=self.family.is_tuning)
            return {**method.defaults(output), **given, **chosen}

        is_method_alone = arm == usual.model_copy(update={"method": arm.method}) and arm.method.taps is None
        return is_method_alone and resolve(arm) == resolve(usual)

    @property
    def rank(self) -> tuple[bool, float]:
        """Of several forms the smallest is what is said of FRSKD: its default, else what gained most."""
        gain = self.main.equal_time
        return not self.is_default, math.inf if gain is None else -gain.mean

    @property
    def verdict(self) -> str:
        """One of `GROUPS`: "better" where an interval, of the score or of NLL, lies above zero and none below."""
        if self.main.equal_time is None:
            return "unknown"
        gains = [self.main.equal_time, *([self.nll.equal_time] if self.nll and self.nll.equal_time else [])]
        above, below = any(gain.low > 0 for gain in gains), any(gain.high < 0 for gain in gains)
        verdicts = {(True, False): "better", (True, True): "mixed", (False, True): "worse"}
        return verdicts.get((above, below), "within chance")


def write_page() -> str:
    parts, tried = [], []
    for name, family in FAMILIES.items():
        if (RESULTS / f"worth-{name}.json").is_file():
            study = read_study(RESULTS, name)
            parts += write_family(name, family, study)
            found = find(study, list_later(study))
            tried += [
                Tried(family, main, nll, study.count_steps(main.arm))
                for main, nll in found
                if main.arm.name.startswith(FRSKD)
            ]
    advice = write_advice([entry for entry in map(make_entry, make_table(RESULTS)) if entry.is_measured])
    return "\n\n".join(filter(None, [TOP, summarize(tried), advice, wrap(RULES), tabulate_gains(tried), *parts])) + "\n"


def write_advice(entries: Sequence[Entry]) -> str:
    """A table that says for every family and length what `method=auto` takes there; empty where nothing is known.

    As `method=auto` does, it looks at all families that are alike; what is gained is that of the row's own. Where it
    takes what was measured at a length near by, the row of that length says it.
    """
    rows = []
    families = [*dict.fromkeys(entry.family for entry in entries)]
    lengths = {(entry.family, entry.epochs) for entry in entries}
    for family, epochs in sorted(lengths, key=lambda length: (families.index(length[0]), length[1])):
        of_length = [entry for entry in entries if (entry.family, entry.epochs) == (family, epochs)]
        first = of_length[0]
        own_first = [*of_length, *(entry for entry in entries if entry not in of_length)]
        arm = choose_arm(own_first, Situation(*first[1:5], epochs, first.steps)).arm
        chosen = [entry for entry in of_length if entry.arm == arm]
        if arm != PLAIN and not chosen:
            continue
        best = max(chosen or of_length, key=lambda entry: entry.gain.mean)
        do = "train the plain network, longer if you have the time" if arm == PLAIN else f"`{arm}`"
        gains = list_gains(best)
        rows.append([family, str(epochs), do, gains if arm != PLAIN else f"the best tried, `{best.arm}`: {gains}"])
    if not rows:
        return ""
    return f"{wrap(ADVICE)}\n\n{markdown_table(['images', 'epochs', 'take', 'what it gains'], rows)}"


def summarize(tried: Sequence[Tried]) -> str:
    """Where FRSKD helps at equal time, where it does not, and where that is not known, by family and length.

    It is FRSKD as it comes that counts, and where that was not trained its best other form, which is named.
    """
    lengths: dict[tuple[str, int], list[Tried]] = {}
    for each in tried:
        lengths.setdefault((each.family.title, each.main.arm.epochs), []).append(each)
    groups: dict[str, dict[tuple[str, str], list[str]]] = {verdict: {} for verdict in GROUPS}
    for (title, epochs), of_length in lengths.items():
        first = min(of_length, key=lambda each: each.rank)
        form = "" if first.is_default else f" (`{first.main.arm.name}`)"
        groups[first.verdict].setdefault((title, form), []).append(str(epochs))
    lines = []
    for verdict, head in GROUPS.items():
        shown = [f"{title}, {list_words(epochs)} epochs{form}" for (title, form), epochs in groups[verdict].items()]
        lines += [f"- **{head}**: {'; '.join(shown)}."] if shown else []
    return "\n\n".join([wrap(QUESTION), "\n".join(wrap(line, "  ") for line in lines)])


def tabulate_gains(tried: Sequence[Tried]) -> str:
    """A table of what every arm gains in the same time; empty where that is not known of any."""
    rows = []
    for each in tried:
        if each.main.equal_time is not None:
            gains = say(each.main.equal_time, "points"), say(each.nll.equal_time if each.nll else None, "nats")
            arm = f"`{each.main.arm.name}`{show_star(each.main)}"
            rows.append([each.family.title, str(each.main.arm.epochs), arm, *gains, each.verdict])
    heads = ["images", "epochs", "arm", "score, same time", "NLL, same time", "it is"]
    return f"**FRSKD, arm by arm:**\n\n{markdown_table(heads, rows)}" if rows else ""


def say(estimate: Estimate | None, unit: str) -> str:
    """
    >>> say(Estimate(1.0, 0.5, 1.5, 0.01, 0.1, 4), "points"), say(None, "nats")
    ('+1.0 points [0.5, 1.5]', 'nats unknown')
    """
    if estimate is None:
        return f"{unit} unknown"
    difference = {"mean": estimate.mean, "interval": estimate._asdict()}
    return describe_difference(difference, 1 if unit == "points" else 3, unit=f" {unit}")


def write_family(name: str, family: Family, study: Study) -> list[str]:
    later, first = list_later(study), [seed for seed in list_seeds(study) if seed < LATER]
    confirmed = list(find(study, later))
    parts = [f"## {family.title}", wrap(family.about)]
    if confirmed:
        curves = make_curves(study, [finding.arm.name for finding, _ in confirmed], later)
        if is_wide(curves):
            draw_frontier(name, family, study, curves)
            parts += [f"![Score against training time]({picture(name)})"]
        if draw_gains(name, family, study, confirmed):
            parts += [f"![Gain at the same time against the length of training]({picture(name, 'gain')})"]
        parts += [tabulate(study, confirmed, later), describe_frontiers(find_frontiers(study, later), later)]
    if tried := list(find(study, first)):
        parts += [f"### {family.title}: every try, {count_of(len(first), 'seed')}", tabulate(study, tried, first)]
        frontiers = find_frontiers(study, first[:1])
        parts += [describe_frontiers(frontiers, first[:1])]
        if len(tried) > FEW:
            names = dict.fromkeys(arm.name for arms in frontiers.values() for arm in arms if arm.name != "baseline")
            draw_frontier(name, family, study, make_curves(study, [*names], first[:1]), "tries")
            parts += [f"![Score against training time, seed {first[0]}]({picture(name, 'tries')})"]
    return parts


def find_frontiers(study: Study, seeds: Sequence[int]) -> dict[str, list[Arm]]:
    """By the titles of the score and of NLL, the runs that no other of as much time or less beats."""
    scores = find_score(study), find_likelihood(study, seeds)
    return {title.removesuffix(", %"): find_frontier(study, score, seeds) for score, title in scores}


def describe_frontiers(frontiers: Mapping[str, Sequence[Arm]], seeds: Sequence[int]) -> str:
    """A sentence; empty where there is no frontier."""
    listed = "; ".join(f"in {title}, {list_runs(arms)}" for title, arms in frontiers.items() if arms)
    if not listed:
        return ""
    shown = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return wrap(f"Not beaten by anything of as much time or less, with {shown}: {listed}.")


def list_runs(arms: Sequence[Arm]) -> str:
    """
    >>> list_runs([Arm("baseline", 20), Arm("baseline", 40), Arm("frskd", 20)])
    'plain for 20 and 40 epochs, `frskd` for 20'
    """
    lengths: dict[str, list[str]] = {}
    for arm in arms:
        lengths.setdefault(arm.name, []).append(str(arm.epochs))
    shown = []
    for number, (name, epochs) in enumerate(lengths.items()):
        plain_or_arm = "plain" if name == "baseline" else f"`{name}`"
        shown.append(f"{plain_or_arm} for {list_words(epochs)}{' epochs' * (number == 0)}")
    return ", ".join(shown)


def list_words(words: Sequence[str]) -> str:
    """
    >>> list_words(["a", "b", "c"]), list_words(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def find(study: Study, seeds: Sequence[int]) -> Iterable[tuple[Finding, Finding | None]]:
    """What was found of each arm with these seeds, in the main score and in NLL."""
    score, _ = find_score(study)
    likelihood, _ = find_likelihood(study, seeds)
    for arm in study.list_arms():
        if (finding := study.judge(arm, score, seeds)) is not None:
            yield finding, study.judge(arm, likelihood, seeds)


def tabulate(study: Study, findings: Sequence[tuple[Finding, Finding | None]], seeds: Sequence[int]) -> str:
    (score, title), (likelihood, likelihood_title) = find_score(study), find_likelihood(study, seeds)
    likelihoods, rows = study.read_plain(likelihood), []
    for epochs, values in study.read_plain(score).items():
        if shared := [values[seed] for seed in seeds if seed in values]:
            nlls = [value for seed, value in likelihoods[epochs].items() if seed in seeds]
            mean, nll = f"{100 * statistics.fmean(shared):.2f}", f"{statistics.fmean(nlls):.3f}" if nlls else "-"
            rows.append([epochs, "plain", "1.00", len(shared), mean, "", "", nll, ""])
    for finding, nll in findings:
        rows.append(
            [
                finding.arm.epochs,
                f"`{finding.arm.name}`",
                show_price(finding),
                len(finding.seeds),
                f"{100 * finding.score:.2f}" + (f" ± {100 * finding.spread:.2f}" if len(finding.seeds) > 1 else ""),
                show(finding.in_epochs, 1),
                show(finding.in_time, 1),
                f"{nll.score:.3f}" if nll else "-",
                show(nll.in_time if nll else [], 3),
            ]
        )
    rows.sort(key=lambda row: (row[0], row[1] != "plain", row[1]))
    heads = ["epochs", "arm", "price", "seeds", title, "points", "points, same time"]
    heads += [likelihood_title, "better by, same time"]
    return markdown_table(heads, [[str(cell) for cell in row] for row in rows])


def show(differences: Sequence[float], digits: int) -> str:
    """The mean difference, with its interval where there are three seeds.

    >>> show([1.0, 2.0], 1), show([], 1)
    ('+1.5', '-')
    """
    if not differences:
        return "-"
    estimate = compare_pairs(differences)
    interval = None if estimate is None else estimate._asdict()
    return describe_difference({"mean": statistics.fmean(differences), "interval": interval}, digits)


def show_price(finding: Finding) -> str:
    """With a star where the arm took longer than the longest plain run; - where no price was measured."""
    return "-" if math.isnan(finding.price) else f"{finding.price:.2f}{show_star(finding)}"


def show_star(finding: Finding) -> str:
    return "\\*" if finding.is_dearer else ""


def wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def picture(name: str, kind: str = "") -> str:
    """
    >>> picture("part"), picture("part", "gain")
    ('when-part.png', 'when-part-gain.png')
    """
    return f"when-{name}{'-' if kind else ''}{kind}.png"


def make_curves(study: Study, names: Sequence[str], seeds: Sequence[int]) -> list[Curve]:
    """The score against the time of a whole run, in epochs of plain training, of the plain network and of arms."""
    score, _ = find_score(study)
    curves = []
    for number, arm_name in enumerate(["baseline", *dict.fromkeys(names)]):
        price = study.find_price(arm_name)
        arms = [arm for arm in study.arms if arm.name == arm_name]
        if math.isnan(price):
            continue
        points = [
            [
                (price * arm.epochs, 100 * study.arms[arm][seed][score])
                for arm in sorted(arms, key=lambda arm: arm.epochs)
                if seed in study.arms[arm]
            ]
            for seed in seeds
        ]
        curves.append(Curve("plain" if arm_name == "baseline" else arm_name, number, points))
    return curves


def is_wide(curves: Sequence[Curve]) -> bool:
    """Whether the times differ enough to be seen; a picture of one time would stretch what hardly differs.

    >>> is_wide([Curve("a", 0, [[(35.6, 1.0)]]), Curve("b", 1, [[(36.0, 1.0)]])])
    False
    """
    times = [time for curve in curves for points in curve.seeds for time, _ in points]
    return max(times) >= WIDE * min(times)


def draw_frontier(name: str, family: Family, study: Study, curves: Sequence[Curve], kind: str = "") -> None:
    """Draws the score against training time."""
    svg = draw_curves(curves, family.title, "training time, in epochs of plain training", find_score(study)[1])
    rasterize(svg).save(DOCS / picture(name, kind), optimize=True)


def draw_gains(name: str, family: Family, study: Study, found: Sequence[tuple[Finding, Finding | None]]) -> bool:
    """Draws what arms gain in the same time against their epochs, with 95 % intervals; returns whether any has two."""
    gains: dict[str, list[tuple[int, Estimate]]] = {}
    for finding, _ in found:
        if (estimate := finding.equal_time) is not None:
            gains.setdefault(finding.arm.name, []).append((finding.arm.epochs, estimate))
    drawn = {arm: of_arm for arm, of_arm in gains.items() if len(of_arm) > 1}
    if not drawn:
        return False
    curves = [  # the ends of an interval lie evenly about its middle, so that the mean of the three is the middle
        Curve(arm, number, [[(epochs, end)] for epochs, estimate in of_arm for end in estimate[:3]])
        for number, (arm, of_arm) in enumerate(drawn.items(), start=1)
    ]
    lengths = {epochs for of_arm in drawn.values() for epochs, _ in of_arm}
    plain = Curve("plain training of the same time", 0, [[(epochs, 0.0) for epochs in sorted(lengths)]])
    title = f"{family.title}: gain over plain training of the same time"
    svg = draw_curves([plain, *curves], title, "epochs", "points")
    rasterize(svg).save(DOCS / picture(name, "gain"), optimize=True)
    return True


def main() -> None:
    page = DOCS / "when-it-helps.md"
    write_text(page, write_page())
    write_text(TABLE, write_table(RESULTS))
    tell(f"written: {page} and {TABLE}")


if __name__ == "__main__":
    run_main(main)
