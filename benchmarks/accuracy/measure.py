"""What methods gain, measured on two processor cores: one command per table.

    OMP_NUM_THREADS=1 python benchmarks/accuracy/measure.py photographs --data /my/cifar10

trains every arm of a table with every seed, as `selfdistill compare` does, and writes
benchmarks/accuracy/results/photographs.json. The same command continues an interrupted table. Several processes of it
share the runs, so on two cores start it twice. `--docs` writes docs/accuracy.md from all the results that are there.

`--data` is a folder with CIFAR-10 as Parquet files, in the layout of the Hub; the table of digits needs none. Longer
trainings, fine-tuning and masks are measured by worth.py, beside plain training of the same time.

Words behind `--` are settings for every run: `measure.py photographs ... -- machine.device=cuda`. The results and the
page say which these were.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from report import run_main, tell  # noqa: E402
from selfdistill.commands.compare import compare_methods  # noqa: E402
from selfdistill.commands.recipes import read_words  # noqa: E402
from selfdistill.commands.train import resume_run, start_run  # noqa: E402
from selfdistill.errors import count_of  # noqa: E402
from selfdistill.report.columns import list_columns  # noqa: E402
from selfdistill.report.markdown import markdown_table  # noqa: E402
from selfdistill.runs.environment import describe_environment  # noqa: E402
from selfdistill.runs.files import write_text  # noqa: E402
from selfdistill.tasks import find_task  # noqa: E402

RESULTS, PAGE = HERE / "results", HERE.parents[1] / "docs/accuracy.md"


class Table(NamedTuple):
    """One comparison."""

    title: str
    about: str  # what was trained on what, in sentences
    words: str  # of `selfdistill compare`
    methods: list[str]  # the first is the baseline
    seeds: int = 5
    needs_data: bool = True
    teachers: dict[str, str] = {}  # name -> words of `selfdistill train`; {name} in `methods` stands for its run


PHOTOGRAPHS = "student=cifar:resnet8 data.limit=2000 batch_size=64 precision=bf16"
PRECISION = "data.limit=2000 batch_size=64 epochs=20 evaluate_every=20"
TABLES = {
    "photographs": Table(
        "2,000 photographs, 20 epochs",
        "2,000 training images of CIFAR-10, `cifar:resnet8` from random weights, 620 steps; scored on the 10,000 test "
        "images. FRSKD stands here on all three maps of the student (`levels=null`), which costs most; what it takes "
        "if nothing is set, one map in a run as short as this, is in [when it helps](when-it-helps.md).",
        f"{PHOTOGRAPHS} epochs=20 evaluate_every=20",
        [
            *("baseline", "frskd+levels=null", "frskd+ramp=0+levels=null", "frskd+beta=0+levels=null"),
            *("frskd+stop_gradient=true+levels=null", "frskd_sla+levels=null", "deep_supervision+levels=null"),
            *("label_smoothing", "tfd", "tf_fd", "byot", "cs_kd", "ps_kd", "sla_sd"),
            *("baseline+mix=cutmix", "frskd+mix=cutmix+levels=null"),
        ],
    ),
    "precision": Table(
        "FRSKD in bfloat16 and in float32",
        "The same images, 20 epochs; the baseline of this table is FRSKD in float32.",
        f"student=cifar:resnet8 {PRECISION}",
        ["frskd+precision=fp32+levels=null", "frskd+precision=bf16+levels=null"],
    ),
    "precision-resnet10t": Table(
        "FRSKD in bfloat16 and in float32, a wider student",
        "As above, with timm's `resnet10t` from random weights, of 64 to 512 channels.",
        f"student=timm:resnet10t student.pretrained=false {PRECISION}",
        ["frskd+precision=fp32+levels=null", "frskd+precision=bf16+levels=null"],
    ),
    "hsakd": Table(
        "HSAKD and a plain teacher",
        "The same images, 20 epochs; the teachers are a `cifar:resnet20` trained plainly and one trained by "
        "`hsakd_teacher` (seed 100), whose cost is not counted.",
        f"{PHOTOGRAPHS} epochs=20 evaluate_every=20",
        ["baseline", "hsakd+teacher={hsakd}", "kd+teacher={plain}", "hsakd_online"],
        teachers={
            "hsakd": "method=hsakd_teacher student=cifar:resnet20 seed=100",
            "plain": "method=baseline student=cifar:resnet20 seed=100",
        },
    ),
    "digits": Table(
        "300 scanned digits, ten seeds",
        "What `make demo` trains, with more seeds.",
        "quick/digits evaluate_every=30",
        ["baseline", "frskd", "frskd+levels=null", "deep_supervision+levels=null", "label_smoothing"],
        seeds=10,
        needs_data=False,
    ),
}


class Asked(NamedTuple):
    """What the command line says beside the table's name."""

    data: str | None = None
    seeds: int | None = None
    words: Sequence[str] = ()  # settings for every run, over those of the table


def measure(name: str, asked: Asked, out: Path) -> None:
    """Trains what is missing of a table, or of its first `seeds`, and writes its results."""
    table = TABLES[name]
    words = shlex.split(table.words)
    if table.needs_data:
        if asked.data is None:
            raise ValueError(f"the table {name} needs --data, a folder of images; the top of measure.py says which")
        words.append(f"data={asked.data}")
    words += asked.words
    teachers = {teacher: train_teacher(out / teacher, words, more) for teacher, more in table.teachers.items()}
    methods = ",".join(table.methods).format_map(teachers)
    count = f"seeds={asked.seeds or table.seeds}"
    compare_methods([*words, f"methods={methods}", count, "controls=equal_cost", f"out={out}"])
    RESULTS.mkdir(exist_ok=True)
    results = collect(name, out) | ({"words": [*asked.words]} if asked.words else {})
    if torch.cuda.is_available() and "machine.device=cpu" not in asked.words:
        results["gpu"] = torch.cuda.get_device_name()  # whose seconds were counted, not the processor's
    write_text(RESULTS / f"{name}.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    tell(f"written: {RESULTS / name}.json")


def train_teacher(out: Path, words: list[str], more: str) -> Path:
    """The folder of a trained teacher."""
    if (out / "recipe.yaml").exists():
        resume_run(out)
    else:
        start_run(read_words([*words, *shlex.split(more), f"out={out}"]))
    return out


def collect(name: str, out: Path) -> dict[str, Any]:
    """The results of a table as plain values, without the paths of the machine that they were measured on."""
    compared = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    rows = []
    for row in compared["rows"]:
        per_seed = [{key: value for key, value in run.items() if key != "run"} for run in row["per_seed"]]
        for statistics in (row["statistics"], row["at_equal_cost"]):
            (statistics or {}).pop("classes", None)  # the report has them
        rows.append({key: value for key, value in row.items() if key != "runs"} | {"per_seed": per_seed})
    text = json.dumps({"rows": rows, "verdicts": compared["verdicts"], "pilot": plan["pilot"]})
    for teacher in TABLES[name].teachers:
        text = text.replace(json.dumps(str(out / teacher))[1:-1], f"runs/{teacher}")
    environment = describe_environment()
    seconds = sum((row["cost"] or 0) * len(row["per_seed"]) for row in rows)  # a busy machine's clock says little
    return {
        "seeds": len(plan["seeds"]),
        "machine": plan["machine"],
        "versions": {package: version for package, version in environment.versions.items() if version},
        "hours": round(seconds / 3600, 2),
        "split": compared["split"],
        "rule": compared["rule"]["words"],
        "notes": compared["notes"],
        **json.loads(text),
    }


def write_page() -> str:
    """docs/accuracy.md: every table whose results are there."""
    parts = [
        "# What the methods gain",
        "Written by `python benchmarks/accuracy/measure.py --docs` from the files of `benchmarks/accuracy/results`; "
        "change those, not this page.",
        "Scores are of the last epoch: mean and standard deviation over seeds. Differences are paired by seed, with "
        "95 % intervals for other seeds and other test images. A row `baseline+epochs=...` is the baseline trained for "
        "as long as a method takes. Processor seconds, or those of a GPU, are those of one run's training steps. What "
        "does not help is printed too. Longer trainings, fine-tuning and masks stand in "
        "[when it helps](when-it-helps.md).",
    ]
    for name, table in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts += write_section(name, table, json.loads(path.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def write_section(name: str, table: Table, results: dict[str, Any]) -> list[str]:
    kind = find_task("classification")
    columns = list_columns([kind], results["rows"])
    columns = {title: columns[title] for title in ("method", *(column.title for column in kind.columns), *SHOWN)}
    clock = "GPU" if "gpu" in results else "processor"
    columns[f"{clock} s"] = lambda row: "-" if row["cost"] is None else f"{row['cost']:,.0f}"
    rows = [[show(row) for show in columns.values()] for row in results["rows"]]
    command = f"python benchmarks/accuracy/measure.py {name}" + (" --data FOLDER" if table.needs_data else "")
    seeds = results.get("seeds", table.seeds)
    command += f" --seeds {seeds}" if seeds != table.seeds else ""
    command += f" -- {shlex.join(results['words'])}" if results.get("words") else ""
    machine = f"({results.get('gpu', results['machine'])}), torch {results['versions']['torch']}"
    facts = f"{results['hours']:.1f} {clock} hours of training steps {machine}"
    return [
        f"## {table.title}",
        f"{table.about} {count_of(seeds, 'seed')}; {facts}.",
        f"```\nOMP_NUM_THREADS=1 {command}\n```",
        markdown_table(list(columns), rows),
        "\n".join(f"- {verdict['sentence']}" for verdict in results["verdicts"]),
    ]


SHOWN = ("points", "seeds won", "points at equal time", "NLL at temperature", "training score, %")  # beside the scores


def main(words: list[str] | None = None) -> None:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary, epilog="Words behind -- are settings for every run.")
    parser.add_argument("table", nargs="?", choices=[*TABLES], metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--data", help="the folder of a data set")
    parser.add_argument("--seeds", type=int, help="how many seeds, instead of the table's own number")
    parser.add_argument("--out", type=Path, help="where the runs lie; build/accuracy/TABLE by default")
    parser.add_argument("--docs", action="store_true", help="write docs/accuracy.md")
    words = sys.argv[1:] if words is None else words
    cut = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:cut])
    if options.table is None and not options.docs:
        parser.error("name a table, or say --docs")
    if options.table is not None:
        out = options.out or HERE.parents[1] / "build/accuracy" / options.table
        measure(options.table, Asked(options.data, options.seeds, words[cut + 1 :]), out)
    if options.docs:
        write_text(PAGE, write_page())
        tell(f"written: {PAGE}")


if __name__ == "__main__":
    run_main(main)
