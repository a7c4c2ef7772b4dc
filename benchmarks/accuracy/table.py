"""The table by which `method=auto` chooses: what was found of every arm, as src/selfdistill/build/evidence.json has it.

`when.py` writes it, and nobody else.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evidence import LIKELIHOODS, Arm, Study, find_likelihood, find_score, list_later, read_study
from families import FAMILIES, Family

from selfdistill.methods import list_methods
from selfdistill.report.statistics import Estimate

TABLE = Path(__file__).resolve().parents[2] / "src/selfdistill/build/evidence.json"


class Compared(NamedTuple):
    """A task of classification from scratch of which measure.py has a table, all arms of one length."""

    title: str
    images: int
    classes: int
    epochs: int


COMPARED = {
    "digits": Compared("300 scanned digits, from scratch", 300, 10, 30),
    "photographs": Compared("2,000 photographs in bfloat16, from scratch", 2000, 10, 20),
}


def write_table(results: Path) -> str:
    """The file's text, an entry a line."""
    lines = ",\n".join(json.dumps(entry) for entry in make_table(results))
    return f"[\n{lines}\n]\n"


def make_table(results: Path, families: Mapping[str, Family] = FAMILIES) -> list[dict[str, Any]]:
    """An entry for every arm, family and length; the seeds are those that confirm."""
    there = {name: family for name, family in families.items() if (results / f"worth-{name}.json").is_file()}
    entries = [entry for name, family in there.items() for entry in list_entries(family, read_study(results, name))]
    return entries + [entry for name in COMPARED for entry in list_compared(results / f"{name}.json", COMPARED[name])]


def list_entries(family: Family, study: Study) -> Iterator[dict[str, Any]]:
    for arm in study.list_arms():
        if arm.name.partition("+")[0] in list_methods():  # not of a form that only levers.py has
            yield describe_arm(arm, family, study)


def describe_arm(arm: Arm, family: Family, study: Study) -> dict[str, Any]:
    """Gains are points and nats against plain training of the same time, + is better; None without three seeds.

    `price` is how many plain steps a step takes, and `longest` how many epochs the longest plain run has.
    """
    score, title = find_score(study)
    later = list_later(study)
    likelihood, likelihood_title = find_likelihood(study, later)
    main, nll = study.judge(arm, score, later), study.judge(arm, likelihood, later)
    price = study.find_price(arm.name)
    return {
        "family": family.title,
        "task": family.task,
        "start": "trained" if family.is_tuning else "random",
        "images": family.images,
        "classes": family.classes,
        "epochs": arm.epochs,
        "steps": study.count_steps(arm),
        "arm": arm.name,
        "price": None if math.isnan(price) else round(price, 3),
        "longest": 0 if main is None else main.longest,
        "seeds": [] if main is None else main.seeds,
        "score": title.removesuffix(", %"),
        "gain": main and list_interval(main.equal_time),
        "nll_gain": nll and list_interval(nll.equal_time),
        "nll_score": likelihood_title,
    }


def list_compared(file: Path, task: Compared) -> Iterator[dict[str, Any]]:
    """The entries of a comparison: each arm beside the baseline that was trained for as long, or cost as much."""
    compared = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"rows": []}
    for row in compared["rows"]:
        arm, longer = row["method"], row["equal_cost"]
        found = row["statistics"] if longer == "baseline" else row["at_equal_cost"]
        if arm.startswith("baseline") or found is None:
            continue
        nll = found["effects"]["nll_at_temperature"]["interval"]
        yield {
            "family": task.title,
            "task": "classification",
            "start": "random",
            "images": task.images,
            "classes": task.classes,
            "epochs": task.epochs,
            "steps": row["per_seed"][0]["step"],
            "arm": arm,
            "price": round(compared["pilot"].get(arm, row)["slowdown"], 3),
            "longest": task.epochs if longer == "baseline" else Arm.parse(longer).epochs,
            "seeds": found["seeds"],
            "score": "top-1",
            "gain": list_interval([found["interval"][name] for name in ("mean", "low", "high")]),
            "nll_gain": list_interval([-nll[name] for name in ("mean", "high", "low")]),
            "nll_score": LIKELIHOODS["nll_at_temperature"],
        }


def list_interval(estimate: Estimate | Sequence[float] | None) -> list[float] | None:
    """Mean, low and high end.

    >>> list_interval(Estimate(1.23456, 0.5, 2.0, 0.01, 0.1, 4))
    [1.23456, 0.5, 2.0]
    """
    return None if estimate is None else [round(value, 6) for value in estimate[:3]]
