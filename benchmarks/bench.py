"""All benchmarks at a size that takes about ten minutes on two CPU cores, on one page: `make bench`.

    python benchmarks/bench.py                      # benchmarks/results/HARDWARE-MONTH.md
    python benchmarks/bench.py --only Loading --again

Each table is written as it is finished. One that the page holds already, made by the same command, is left as it is
unless it is asked for `--again`, so an interrupted page is continued by the same command.
"""

import argparse
import shlex
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from harness import add_device, chip, threads
from report import Page, file_name, tell
from selfdistill.runs.environment import computes_bfloat16, describe_environment

HERE = Path(__file__).parent
SECTIONS = {  # heading -> what is run, {half} being the precision in which the machine is fastest
    "FRSKD": "overhead.py --students cifar:resnet18 --methods frskd,deep_supervision --batch 64 --precision {half}",
    "FRSKD in float32": "overhead.py --students cifar:resnet18 --methods frskd --batch 64 --turns 5",
    "Where the time goes": "operations.py --method frskd --student cifar:resnet18 --batch 64 --precision {half}",
    "Every method": "overhead.py --students cifar:resnet20 --turns 5",
    "Students": "overhead.py --methods frskd --turns 5 --students "
    "cifar:wrn-16-2,cifar:resnet32x4,cifar:vgg8,cifar:mobilenetv2,cifar:shufflenetv2,timm:resnet18",
    "Masks": "overhead.py --task segmentation --students smp:Unet/resnet18 --size 64 --batch 4 --classes 11 --turns 3",
    "Epochs": "throughput.py data=digits student=cifar:resnet20 --methods baseline,frskd,sla",
    "Loading": "throughput.py --loading --workers 0,1,2",
    "Growth": "scaling.py --axes batch,size,classes,examples",
    "Processes": "scaling.py --axes processes --batch 64",
}
QUICK = {  # every script once, as small as it gets
    "Where the time goes": "operations.py --method frskd --student cifar:resnet8 --size 8 --batch 4 --rows 3",
    "Every method": "overhead.py --students cifar:resnet8 --methods frskd --size 8 --batch 4 --turns 2",
    "Epochs": "throughput.py data=digits data.limit=40 student=cifar:resnet8 batch_size=16 --epochs 2",
    "Growth": "scaling.py --student cifar:resnet8 --methods baseline --axes classes --size 8 --batch 4 --turns 2",
}


def main(words: list[str] | None = None) -> Path:
    """Runs what the page does not hold yet, and gives the page's path; ends with 1 where something failed."""
    given = arguments(words)
    device = given.device
    hardware = chip(device) if device.type == "cuda" else f"{chip(device)}, {threads(torch.get_num_threads())}"
    path = given.page or HERE / "results" / file_name(hardware, date.today())
    page = Page(path, f"{hardware}, {date.today():%B %Y}\n\n{versions()}")
    half = "bf16" if computes_bfloat16(device.type) else "fp32"
    failed = []
    for heading, line in (QUICK if given.quick else SECTIONS).items():
        script, *options = shlex.split(line.format(half=half))
        options += [] if device.type == "cpu" or script == "throughput.py" else ["--device", str(device)]
        command = shlex.join(["python", f"benchmarks/{script}", *options])
        if (given.only and heading not in given.only) or (page.holds(heading, command) and not given.again):
            continue
        started = time.perf_counter()
        done = subprocess.run([sys.executable, str(HERE / script), *options], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(heading)
            continue
        page.put(heading, command, done.stdout)
        tell(f"{heading}: {time.perf_counter() - started:.0f} s")
    tell(str(path))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    return path


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=Path, help="the Markdown file to write")
    parser.add_argument("--only", nargs="*", choices=[*SECTIONS], metavar="HEADING", help=", ".join(SECTIONS))
    parser.add_argument("--again", action="store_true", help="measure also what the page holds")
    add_device(parser)
    parser.add_argument("--quick", action="store_true", help="a try of every script at the smallest size")
    return parser.parse_args(words)


def versions() -> str:
    """What a page says of the machine's software and the code, in one line."""
    environment = describe_environment()
    packages = ", ".join(f"{name} {version}" for name, version in environment.versions.items() if version)
    commit = "unknown" if environment.git is None else environment.git.commit[:12]
    changes = " and changes" if environment.git is not None and environment.git.dirty else ""
    return f"Python {environment.python}, {packages}; commit {commit}{changes}."


if __name__ == "__main__":
    main()
