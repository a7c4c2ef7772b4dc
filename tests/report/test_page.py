"""The page of hand-made runs: whole, self-contained, and safe, whatever the runs lack or are called."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from helpers import finished_runs
from helpers.finished_runs import make_mask_run, make_run
from helpers.multilabel import MultiLabelScores
from selfdistill.report.comparison import compare_runs
from selfdistill.report.evidence import gather_evidence
from selfdistill.report.page import draw_page, remove_other_figures, write_page
from selfdistill.report.pictures import Attention, AttentionPictures, Gallery
from selfdistill.report.sections.origin import MethodCard
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, Parameters

EVIL = "<script>alert(1)</script>"
MANY = [f"kind of bird no. {k}" for k in range(198)] + [EVIL, "</style><img src=x onerror=alert(2)>"]
SECTIONS = ["arms", "curves", "cost", "classes", "confusion", "calibration", "images", "settings", "environment"]
GALLERY = Gallery(
    name=lambda index: f"{EVIL}/{index}.png",
    draw=lambda index, runs: {name: Image.new("RGB", (96, 64), (index % 256, 9, 9)) for name in ("image", *runs)},
    legend=[(EVIL, (1, 2, 3))],
)
DOT, KINDS = Image.new("RGB", (8, 8)), ("svg", "png")
CARD = MethodCard(EVIL, EVIL, EVIL, "https://arxiv.org/abs/1", [f"`code` {EVIL}"], {"Needs": EVIL}, [[EVIL] * 4])


class Outline(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] if tag not in ("meta", "img", "br", "link") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open and self.open[-1] not in ("style", "script") else ""

    def find(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


def draw(runs, *, gallery="There are no pictures.", **more):
    """The page of some runs, and what a browser finds in it."""
    evidence = gather_evidence(compare_runs([*runs]))
    return read(str(draw_page(evidence, command="selfdistill report x", gallery=gallery, **more)))


def read(text):
    outline = Outline()
    outline.feed(text)
    outline.close()
    assert not outline.open
    check_page(text, outline)
    return text, outline


def check_page(text, outline):
    """What holds of every page."""
    assert len(text) < 3_000_000
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    links = [attributes["href"] for attributes in outline.find("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= {*ids}
    assert all(link.startswith(("#", "https://")) for link in links)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all("scope" in attributes for attributes in outline.find("th"))
    assert all(attributes["alt"] for attributes in outline.find("img"))
    assert all(attributes["src"].startswith("data:image/") for attributes in outline.find("img"))
    assert len(outline.find("script")) == 1 and not outline.find("link", "iframe", "object", "form")
    assert not [
        name for _, attributes in outline.tags for name in attributes if name.startswith("on") or name == "style"
    ]
    policy = next(meta["content"] for meta in outline.find("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def list_sections(outline):
    return [attributes["id"] for attributes in outline.find("section")]


def make_comparison(folder, seeds=3, **more):
    return [
        make_run(folder / f"{method}-{seed}", method, seed, skill=skill, **more)
        for method, skill in (("baseline", 2.0), ("frskd", 2.5))
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of two arms with three seeds, and the folder of its page."""
    folder = tmp_path_factory.mktemp("compared")
    comparison = compare_runs(make_comparison(folder))
    maps = AttentionPictures("an image", {"student": [DOT, DOT], "self-teacher": []}, "It says cat.")
    attention = Attention("frskd", ["layer1", "layer2"], [maps], [0.25], ["One note."])
    more = {"gallery": GALLERY, "cards": [CARD], "attention": [attention]}
    write_page(gather_evidence(comparison), folder, command="selfdistill report x", **more)
    return comparison, folder


def test_a_comparison_has_every_section_and_its_figures_as_files(compared):
    _, folder = compared
    _, outline = read((folder / "report.html").read_text())
    assert list_sections(outline) == [*SECTIONS[:-2], "attention", "settings", "methods", "environment"]
    assert "layer2 0.250" in outline.text and "selfdistill report x" in outline.text
    drawn = {attributes["id"].removeprefix("figure-") for attributes in outline.find("figure") if "id" in attributes}
    assert {"cost", "differences", "held-out-top1", "loss-kd", "self-teacher-accuracy"} <= drawn
    assert {"distance-frskd", "gradient-share-frskd", "gradient-cosine-frskd"} <= drawn
    assert {file.name for file in (folder / "figures").iterdir()} == {f"{n}.{kind}" for n in drawn for kind in KINDS}
    for file in (folder / "figures").glob("*.svg"):
        assert ElementTree.parse(file).getroot().tag.endswith("svg") and "var(" not in file.read_text()


def test_figures_that_a_page_has_no_more_go_and_other_files_stay(compared, tmp_path):
    _, folder = compared
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("cost.svg", "old.svg", "old.png", "kept.png"):
        (figures / name).write_bytes((folder / "figures" / "cost.svg").read_bytes())
    (figures / "own.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    remove_other_figures(figures, {"cost"})
    assert {file.name for file in figures.iterdir()} == {"cost.svg", "kept.png", "own.svg"}


def test_the_verdict_is_that_of_the_comparison(compared):
    comparison, folder = compared
    _, outline = read((folder / "report.html").read_text())
    assert comparison.verdicts[0].sentence in outline.text and comparison.verdicts[0].verdict in outline.text


@pytest.mark.slow
def test_an_arm_is_also_held_against_the_baseline_that_was_trained_as_long(tmp_path):
    runs = make_comparison(tmp_path)
    longer = [make_run(tmp_path / f"longer-{seed}", seed=seed, skill=2.6, settings={"epochs": 9}) for seed in range(3)]
    arms = {"baseline": runs[:3], "frskd": runs[3:], "baseline+epochs=9": longer}
    evidence = gather_evidence(compare_runs(arms, equal_cost={"frskd": "baseline+epochs=9"}), ["baseline+epochs=9"])
    _, outline = read(str(draw_page(evidence, command="x", gallery="None.")))
    assert "At equal training time: from baseline with more epochs" in outline.text
    assert [arm.name for arm in evidence.shown] == ["frskd", "baseline+epochs=9"]


@pytest.mark.slow
def test_the_same_runs_give_the_same_page(compared):
    _, folder = compared
    runs = [run for run in sorted(folder.iterdir()) if (run / "recipe.yaml").is_file()]
    assert draw(runs)[0] == draw(runs)[0]


@pytest.mark.slow
def test_two_hundred_classes_with_evil_names_are_text(tmp_path):
    text, outline = draw(make_comparison(tmp_path, classes=MANY, images=400), gallery=GALLERY)
    assert list_sections(outline) == SECTIONS
    assert EVIL in outline.text and EVIL not in text
    assert all(name in outline.text for name in MANY)


def test_a_lone_run_says_that_nothing_is_compared(tmp_path):
    _, outline = draw([make_run(tmp_path / "run", "frskd")])
    assert "there is no other arm to compare with" in outline.text
    assert "classes" not in list_sections(outline) and "curves" in list_sections(outline)


def test_one_seed_has_no_interval(tmp_path):
    _, outline = draw(make_comparison(tmp_path, seeds=1), gallery=GALLERY)
    assert "no interval" in outline.text and "images" in list_sections(outline)


@pytest.mark.slow
def test_old_runs_leave_out_what_they_did_not_record(tmp_path):
    _, outline = draw(make_comparison(tmp_path, state="old"))
    assert list_sections(outline) == ["arms", "curves", "cost", "calibration", "settings", "environment"]
    assert "steps times a step's seconds" in outline.text


def test_unfinished_runs_show_their_curves(tmp_path):
    _, outline = draw([make_run(tmp_path / "run", "frskd", state="unfinished")])
    assert "no result yet" in outline.text and "curves" in list_sections(outline)
    runs = [make_run(tmp_path / "done", "baseline"), tmp_path / "run"]
    _, outline = draw(runs)
    assert "Not finished" in outline.text


def test_masks_have_classes_and_panels(tmp_path):
    runs = [make_mask_run(tmp_path / f"{m}{seed}", m, seed) for m in ("baseline", "byot") for seed in range(2)]
    _, outline = draw(runs, gallery=GALLERY)
    assert "IoU of each class" in outline.text and "mean IoU of the image" in outline.text
    assert list_sections(outline) == SECTIONS


@pytest.mark.slow
def test_pictures_stop_where_the_page_would_grow_beyond_3_mb(tmp_path):
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    gallery = GALLERY._replace(draw=lambda index, runs: dict.fromkeys([f"panel {k}" for k in range(20)], noise))
    runs = [make_mask_run(tmp_path / f"{m}{seed}", m, seed) for m in ("baseline", "byot") for seed in range(2)]
    text, outline = draw(runs, gallery=gallery)
    assert "so that the page stays below 3 MB" in outline.text and len(text) > 1_500_000


def test_a_task_of_ones_own_shows_its_scores(tmp_path):
    runs = [
        make_run(tmp_path / method, method, settings={"task": "helpers.multilabel:MultiLabel"}, state="unfinished")
        for method in ("baseline", "frskd")
    ]
    end = {
        "split": "val",
        "epoch": 4,
        "step": 20,
        "seconds_per_step": 0.1,
        "parameters": Parameters(student=9, training_only=0),
    }
    for run, share in zip(runs, (0.5, 0.75), strict=True):
        Run.open(run).append(EndRecord(scores=MultiLabelScores(share, 0.9, 40), **end))
    _, outline = draw(runs)
    assert list_sections(outline) == ["arms", "curves", "cost", "settings", "environment"]
    assert "+25.0 points" in outline.text


@pytest.mark.slow
def test_a_network_that_diverged_has_a_page(tmp_path, monkeypatch):
    runs = make_comparison(tmp_path / "whole")[:3]
    draw_whole = finished_runs.draw_outcomes

    def draw_nan(*how):
        outcomes = draw_whole(*how)
        return outcomes._replace(confidence=outcomes.confidence * math.nan, nll=outcomes.nll * math.nan)

    monkeypatch.setattr(finished_runs, "draw_outcomes", draw_nan)
    _, outline = draw([*runs, *make_comparison(tmp_path / "diverged")[3:]], gallery=GALLERY)
    assert list_sections(outline) == SECTIONS


def test_runs_of_several_tasks_show_what_they_share(tmp_path):
    runs = [make_run(tmp_path / "image"), make_mask_run(tmp_path / "mask", "byot")]
    assert list_sections(draw(runs)[1]) == list_sections(draw(runs[::-1])[1])
    assert "curves" in list_sections(draw(runs)[1])
