"""All benchmarks at a size that takes about ten minutes on two CPU cores, on one page: `make bench`.

    python benchmarks/bench.py                      # benchmarks/results/HARDWARE-MONTH.md
    python benchmarks/bench.py --only Loading --again

Each table is written as soon as it is finished. A table that the page already holds from the same command is kept,
unless `--again` is options. So the same command continues an interrupted page.
"""

import argparse
import shlex
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from harness import add_device, describe_chip, describe_threads
from report import Page, choose_file_name, tell
from selfdistill.runs.environment import computes_bfloat16, describe_environment

HERE = Path(__file__).parent
SECTIONS = {  # heading -> command to run; {half} is the fastest precision of the machine
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
    """Runs what the page does not hold yet, and returns the page's path; exits with status 1 if a script failed."""
    options = parse_arguments(words)
    device = options.device
    hardware = (
        describe_chip(device)
        if device.type == "cuda"
        else f"{describe_chip(device)}, {describe_threads(torch.get_num_threads())}"
    )
    path = options.page or HERE / "results" / choose_file_name(hardware, date.today())
    page = Page(path, f"{hardware}, {date.today():%B %Y}\n\n{describe_versions()}")
    half = "bf16" if computes_bfloat16(device.type) else "fp32"
    failed = []
    for heading, line in (QUICK if options.quick else SECTIONS).items():
        script, *script_words = shlex.split(line.format(half=half))
        script_words += [] if device.type == "cpu" or script == "throughput.py" else ["--device", str(device)]
        command = shlex.join(["python", f"benchmarks/{script}", *script_words])
        if (options.only and heading not in options.only) or (page.holds(heading, command) and not options.again):
            continue
        started = time.perf_counter()
        process = subprocess.run([sys.executable, str(HERE / script), *script_words], stdout=subprocess.PIPE, text=True)
        if process.returncode:
            failed.append(heading)
            continue
        page.put(heading, command, process.stdout)
        tell(f"{heading}: {time.perf_counter() - started:.0f} s")
    tell(str(path))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    return path


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=Path, help="the Markdown file to write")
    parser.add_argument("--only", nargs="*", choices=[*SECTIONS], metavar="HEADING", help=", ".join(SECTIONS))
    parser.add_argument("--again", action="store_true", help="measure also what the page holds")
    add_device(parser)
    parser.add_argument("--quick", action="store_true", help="a try of every script at the smallest size")
    return parser.parse_args(words)


def describe_versions() -> str:
    """The versions of the machine's software and of the code, in one line."""
    environment = describe_environment()
    packages = ", ".join(f"{name} {version}" for name, version in environment.versions.items() if version)
    commit = "unknown" if environment.git is None else environment.git.commit[:12]
    changes = " and changes" if environment.git is not None and environment.git.dirty else ""
    return f"Python {environment.python}, {packages}; commit {commit}{changes}."


if __name__ == "__main__":
    main()
