"""Writes docs/when-it-helps.md, with its figures, from the results of worth.py.

python benchmarks/accuracy/when.py
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from evidence import Finding, Study, read_study  # noqa: E402
from families import FAMILIES, LATER, Family  # noqa: E402

from report import run_main, tell  # noqa: E402
from selfdistill.errors import count_of  # noqa: E402
from selfdistill.report.figures.curves import Curve, draw_curves  # noqa: E402
from selfdistill.report.figures.raster import rasterize  # noqa: E402
from selfdistill.report.markdown import markdown_table  # noqa: E402
from selfdistill.report.statistics import Estimate  # noqa: E402
from selfdistill.runs.files import write_text  # noqa: E402

RESULTS, DOCS = HERE / "results", HERE.parents[1] / "docs"
TOP = """# When does self-distillation help?

Written by `python benchmarks/accuracy/when.py` from the files of `benchmarks/accuracy/results`; change those, not this
page. `benchmarks/accuracy/PROTOCOL.md` has the rules, which were written before the runs; in short: scores of the last
epoch, and each arm beside plain training **of the same time**. A row says how much better (+) or worse (-) the arm is,
paired by seed, with the 95 % interval for other seeds. NLL in nats, + is better there too. `price` is how many plain
steps one of its steps takes, by processor time."""
SCORES = {"top1": ("top-1, %", 100.0), "miou": ("mean IoU, %", 100.0)}


def write_page() -> str:
    parts, sentences = [], []
    for name, family in FAMILIES.items():
        if (RESULTS / f"worth-{name}.json").is_file():
            study = read_study(RESULTS, name)
            parts += write_family(name, family, study)
            sentences += summarize(family, study)
    return "\n\n".join([TOP, "\n".join(f"- {sentence}" for sentence in sentences), *parts]) + "\n"


def summarize(family: Family, study: Study) -> list[str]:
    """One sentence for every confirmed arm built on FRSKD: what it gains in the same time."""
    score, _ = find_score(study)
    sentences = []
    for arm in study.list_arms():
        finding = study.judge(arm, score, list_later(study))
        if finding is None or finding.equal_time is None or not arm.name.startswith("frskd"):
            continue
        nll = study.judge(arm, "nll", list_later(study))
        sentences.append(
            f"{family.title}, {count_of(arm.epochs, 'epoch')}, `{arm.name}`: {say(finding.equal_time, 'points')}, "
            f"{say(nll.equal_time if nll else None, 'nats')} against plain training of the same time."
        )
    return sentences


def say(estimate: Estimate | None, unit: str) -> str:
    """
    >>> say(Estimate(1.0, 0.5, 1.5, 0.01, 0.1, 4), "points"), say(None, "nats")
    ('+1.0 points [0.5, 1.5]', 'nats unknown')
    """
    if estimate is None:
        return f"{unit} unknown"
    digits = 1 if unit == "points" else 3
    return f"{estimate.mean:+.{digits}f} {unit} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def write_family(name: str, family: Family, study: Study) -> list[str]:
    later, first = list_later(study), [seed for seed in list_seeds(study) if seed < LATER]
    confirmed = list(find(study, later))
    parts = [f"## {family.title}", family.about]
    if confirmed:
        draw_frontier(name, family, study, [finding.arm.name for finding, _ in confirmed], later)
        parts += [f"![Score against training time]({picture(name)})", tabulate(study, confirmed, later)]
    if tried := list(find(study, first)):
        parts += [f"### {family.title}: every try, {count_of(len(first), 'seed')}", tabulate(study, tried, first)]
    return parts


def list_seeds(study: Study) -> list[int]:
    return sorted({seed for runs in study.arms.values() for seed in runs})


def list_later(study: Study) -> list[int]:
    """The seeds that confirm."""
    return [seed for seed in list_seeds(study) if seed >= LATER]


def find_score(study: Study) -> tuple[str, str]:
    """The main score of the runs, and its title."""
    run = next(run for runs in study.arms.values() for run in runs.values())
    score = "miou" if run.get("miou") is not None else "top1"
    return score, SCORES[score][0]


def find(study: Study, seeds: Sequence[int]) -> Iterable[tuple[Finding, Finding | None]]:
    """What was found of each arm with these seeds, in the main score and in NLL."""
    score, _ = find_score(study)
    for arm in study.list_arms():
        if (finding := study.judge(arm, score, seeds)) is not None:
            yield finding, study.judge(arm, "nll", seeds)


def tabulate(study: Study, findings: Sequence[tuple[Finding, Finding | None]], seeds: Sequence[int]) -> str:
    score, title = find_score(study)
    rows = []
    for epochs, values in study.read_plain(score).items():
        if shared := [values[seed] for seed in seeds if seed in values]:
            mean = 100 * sum(shared) / len(shared)
            rows.append([epochs, "plain", "1.00", len(shared), f"{mean:.2f}", "", "", "", ""])
    for finding, nll in findings:
        rows.append(
            [
                finding.arm.epochs,
                f"`{finding.arm.name}`",
                f"{finding.price:.2f}",
                len(finding.seeds),
                f"{100 * finding.score:.2f} ± {100 * finding.spread:.2f}",
                show(finding.equal_epochs, 1),
                show(finding.equal_time, 1),
                show(nll and nll.equal_epochs, 3),
                show(nll and nll.equal_time, 3),
            ]
        )
    rows.sort(key=lambda row: (row[0], row[1] != "plain", row[1]))
    heads = ["epochs", "arm", "price", "seeds", title, "points", "points, same time", "NLL", "NLL, same time"]
    return markdown_table(heads, [[str(cell) for cell in row] for row in rows])


def show(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.mean:+.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def picture(name: str) -> str:
    return f"when-{name}.png"


def draw_frontier(name: str, family: Family, study: Study, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Draws the score against the time of a whole run, in epochs of plain training; the plain network is a curve."""
    score, title = find_score(study)
    curves = []
    for number, arm_name in enumerate(["baseline", *dict.fromkeys(names)]):
        price = study.prices.get(arm_name)
        arms = [arm for arm in study.arms if arm.name == arm_name]
        if price is None:
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
    svg = draw_curves(curves, family.title, "training time, in epochs of plain training", title)
    rasterize(svg).save(DOCS / picture(name), optimize=True)


def main() -> None:
    page = DOCS / "when-it-helps.md"
    write_text(page, write_page())
    tell(f"written: {page}")


if __name__ == "__main__":
    run_main(main)
