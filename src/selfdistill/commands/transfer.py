"""transfer: how well the frozen features of trained students serve on another data set."""

import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data import EvalSet, LabeledDataset, check, eval_loader, open_splits
from ..distributed import default_device
from ..errors import count_of, escape_controls
from ..features.frozen import FrozenFeatures, LinearProbe, choose_decay, predict_by_neighbors
from ..runs.student import RANGES, SHOWN, StudentCard, build_network, load_student, read_complete_card
from ..tasks import complete_recipe, find_task
from .arguments import parse_seeds, take_setting, tell_other_run
from .console import console, say, tell
from .recipes import read_words

TASK = "classification"  # of the other data set
SELECTED = 0.2  # share of each training class on which the weight decay is chosen, without a validation split


class TransferSplits(NamedTuple):
    """Labeled images of another data set."""

    train: LabeledDataset
    select: LabeledDataset | None  # the validation split, where there is a test split as well
    test: LabeledDataset
    split: str  # the name of `test`


class Transferred(NamedTuple):
    """Shares of right answers on the test images, one for each seed."""

    run: str
    features: str  # which, in words
    linear: list[float]
    neighbors: list[float]


def print_transfer(words: Sequence[str], *, as_json: bool, trust: bool = False) -> None:
    """Scores a linear probe and the nearest neighbors on the frozen features of runs, and of untrained networks."""
    runs, settings = [Path(word) for word in words if "=" not in word], [word for word in words if "=" in word]
    seeds = parse_seeds(take_setting(settings, "seeds", "1"))
    _refuse_other_settings(runs, settings)
    data = complete_recipe(read_words(settings)).data
    results: list[Transferred] = []
    networks = itertools.chain(list_students(runs, trust=trust), list_untrained(runs, seeds[0], trust=trust))
    for name, network, card in networks:
        shown = data.model_copy(update={name: getattr(card.data, name) for name in (*SHOWN, *RANGES)})
        splits = open_transfer_splits(shown, quiet=bool(results))
        results.append(transfer(name, network, card, splits=splits, settings=shown, seeds=seeds))
        chance = find_chance(splits.test.labels)
        if as_json:
            say(json.dumps({**results[-1]._asdict(), "data": data.source, "split": splits.split, "chance": chance}))
    if not as_json:
        train, test = count_of(len(splits.train), "training image"), count_of(len(splits.test), "image")
        say(f"{data.source}: {train}, {test} of {splits.split}")
        console().print(draw_table(results, chance, len(splits.test)))


def _refuse_other_settings(runs: Sequence[Path], settings: Sequence[str]) -> None:
    if not runs:
        raise ValueError(
            "name the run folders whose students are to be transferred: selfdistill transfer RUN data=DATA"
        )
    names = [word.partition("=")[0] for word in settings]
    if "data" not in names and "data.source" not in names:
        raise ValueError("data=DATA is missing: the labeled images on which the features are tried")
    for name in names:
        if name.partition(".")[0] != "data":
            raise ValueError(f"{name}= has no effect on transfer, which takes data settings and seeds=")
        if name.removeprefix("data.") in (*SHOWN, *RANGES, "augment"):
            raise ValueError(f"{name}= has no effect: the images are shown to the student as its own training images")


def open_transfer_splits(settings: DataPart, *, quiet: bool) -> TransferSplits:
    """The images to learn from, to choose the weight decay on and to score; raises `ValueError` as training does."""
    splits = open_splits(settings, find_task(TASK))
    for note in splits.notes * (not quiet):
        tell(f"note: {note}")
    test, split = (splits.val, "val") if splits.test is None else (splits.test, "test")
    assert test is not None  # 20 % are held out otherwise
    select = None if split == "val" else splits.val
    for dataset in (splits.train, select, test):
        if dataset is not None:
            check(dataset, settings.channels)
    return TransferSplits(splits.train, select, test, split)


def list_students(runs: Sequence[Path], *, trust: bool) -> Iterator[tuple[str, nn.Module, StudentCard]]:
    """The trained students, with their names and cards."""
    for path in runs:
        card = read_complete_card(path, trust=trust)
        tell_other_run(path, card)
        yield str(path), load_student(path, trust=trust), card


def list_untrained(runs: Sequence[Path], seed: int, *, trust: bool) -> Iterator[tuple[str, nn.Module, StudentCard]]:
    """Each of the runs' networks once, with random weights: what its architecture alone gives."""
    cards = [read_complete_card(path, trust=trust) for path in runs]
    for card in {card.student.model_dump_json(): card for card in cards}.values():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield f"{card.student.name}, untrained", build_network(card).eval(), card


def transfer(
    name: str,
    network: nn.Module,
    card: StudentCard,
    *,
    splits: TransferSplits,
    settings: DataPart,
    seeds: Sequence[int],
) -> Transferred:
    """Scores one network; a seed chooses the images on which the weight decay is chosen, if no split does."""
    device, task = default_device(), find_task(TASK)
    frozen = FrozenFeatures(network.to(device), card.student.image_shape)
    transform = task.eval_transform(settings)

    def collect(dataset: LabeledDataset) -> tuple[Tensor, Tensor]:
        loader = eval_loader(EvalSet(dataset, transform), batch_size=task.eval_batch_size(settings))
        return frozen.collect(loader, device)

    (train, labels), (test, wanted) = collect(splits.train), collect(splits.test)
    select = None if splits.select is None else collect(splits.select)
    classes, linear = len(splits.train.classes), []
    for seed in seeds:
        if select is None:
            kept, held = split_rows(labels, seed)
            decay = choose_decay(train[kept], labels[kept], train[held], labels[held])
        else:
            decay = choose_decay(train, labels, *select)
        linear.append((LinearProbe(train, labels, decay).predict(test) == wanted).float().mean().item())
    voted = predict_by_neighbors(train, labels, test, num_classes=classes)
    return Transferred(name, frozen.name, linear, [(voted == wanted).float().mean().item()])


def split_rows(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit on, and a fifth of each class to choose on; a class of one image is fitted on."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(round(SELECTED * len(members)), 1), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator, device="cpu")[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def find_chance(labels: Tensor) -> float:
    """The share of the most frequent class: what is right without looking."""
    return (labels.bincount().max() / len(labels)).item()


def draw_table(results: Sequence[Transferred], chance: float, count: int) -> Any:
    """A table of all results in percent, for a rich console."""
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=f"± one standard error of {count_of(count, 'test image')}; in brackets from seed to seed")
    for number, title in enumerate(("run", "linear probe, %", "20 nearest neighbors, %", "features")):
        table.add_column(title, justify="right" if number in (1, 2) else "left", overflow="fold")
    for result in results:
        cells = [result.run, *(describe_share(shares, count) for shares in (result.linear, result.neighbors))]
        table.add_row(*(Text(escape_controls(cell)) for cell in [*cells, result.features]))
    table.add_row("most frequent class", f"{chance:.2%}".rstrip("%"), f"{chance:.2%}".rstrip("%"), "")
    return table


def describe_share(shares: Sequence[float], count: int) -> str:
    """The mean of shares in percent, with the standard error of `count` images; of several seeds also their range.

    >>> describe_share([0.5], 100), describe_share([0.5, 0.6], 100)
    ('50.00 ± 5.00', '55.00 ± 4.97 (50.00 to 60.00)')
    """
    mean = statistics.mean(shares)
    error = (mean * (1 - mean) / count) ** 0.5
    seeds = f" ({100 * min(shares):.2f} to {100 * max(shares):.2f})" if len(shares) > 1 else ""
    return f"{100 * mean:.2f} ± {100 * error:.2f}{seeds}"
