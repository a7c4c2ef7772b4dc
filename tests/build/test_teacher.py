"""Teachers and starting weights from run folders, on the built-in digits with a tiny network."""

import pytest
import torch

from helpers.images import write_classes
from selfdistill.build import build
from selfdistill.build.checks import check_same_data
from selfdistill.config.read import read
from selfdistill.methods.hsakd_teacher import HSAKDTeacher
from selfdistill.runs.folder import Run
from selfdistill.runs.student import load_student, read_card
from selfdistill.training.loop import fit

WORDS = ["data.limit=40", "student=cifar:resnet8", "batch_size=16", "max_steps=2", "precision=fp32"]


def job(*words):
    return build(read(None, [*WORDS, *words]))


def train(out, *words):
    made = job(f"out={out}", *words)
    fit(made, Run.create(out, made.recipe))
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "plain": train(folder / "plain", "method=baseline"),
        "joint": train(folder / "joint", "method=hsakd_teacher"),
    }


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_run_folders_network_teaches(runs):
    made = job("method=kd", f"method.teacher={runs['plain']}", "seed=3")
    assert same(made.method.teacher.net, load_student(runs["plain"]))
    assert not same(made.method.student, made.method.teacher.net)


def test_a_method_teaches_with_its_training_only_parts(runs):
    made = job("method=hsakd", f"method.teacher={runs['joint']}")
    teacher = made.method.teacher.net
    state = Run.open(runs["joint"]).load_checkpoint()["method"]
    assert isinstance(teacher, HSAKDTeacher) and len(teacher.branches) == 3
    assert all(torch.equal(value, state[key]) for key, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())


def test_a_teacher_leaves_the_student_as_it_would_have_begun(runs):
    plain, taught = job("method=baseline"), job("method=hsakd", f"method.teacher={runs['joint']}")
    assert same(plain.method.student, taught.method.student)


def test_the_student_sees_images_as_its_teacher_did(runs):
    seen = read_card(runs["plain"]).data
    made = job("method=kd", f"method.teacher={runs['plain']}", "data.limit=60")
    assert made.recipe.data.mean == seen.mean and made.recipe.data.std == seen.std
    with pytest.raises(ValueError, match=r"saw images with data\.mean=\[0\.\d+\], not \[0\.9\]"):
        job("method=hsakd", f"method.teacher={runs['joint']}", "data.mean=[0.9]")


def show(made, images):
    """What the teacher of an experiment answers to images in [0, 1], as the student is shown these."""
    data = made.recipe.data
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    return made.method.teacher((images - mean) / std)


def test_a_teacher_is_shown_images_of_another_normalization_size_and_color_as_it_knows_them(runs, tmp_path):
    words, teacher = ["method=kd", f"method.teacher={runs['plain']}"], load_student(runs["plain"])
    card = read_card(runs["plain"]).data
    images = torch.rand(2, 1, 8, 8)
    expected = teacher((images - card.mean[0]) / card.std[0])
    made = job(*words, "data.mean=[0.9]", "data.std=[0.5]")
    torch.testing.assert_close(show(made, images), expected, rtol=1e-4, atol=1e-4)
    assert any("the teacher is shown the images normalized by its own mean" in note for note in made.notes)
    write_classes(tmp_path, {str(k): 4 for k in range(10)}, size=(8, 8))
    made = job(*words, f"data={tmp_path}", "data.channels=3", "data.mean=[0.5, 0.4, 0.3]")
    torch.testing.assert_close(show(made, images.expand(-1, 3, -1, -1)), expected, rtol=1e-4, atol=1e-4)
    made = job(*words, "data.image_size=16")
    assert made.method.teacher.net.size == (8, 8) and show(made, torch.rand(2, 1, 16, 16)).shape == (2, 10)
    fit(made)


def test_the_classes_of_a_teacher_are_found_by_name(runs, tmp_path):
    write_classes(tmp_path, {str(k): 8 for k in (7, 3, 5)}, size=(8, 8), mode="L")
    made = job("method=kd", f"method.teacher={runs['plain']}", f"data={tmp_path}")
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(made.method.teacher(images), load_student(runs["plain"])(images)[:, [3, 5, 7]])
    (tmp_path / "5").rename(tmp_path / "five")
    with pytest.raises(ValueError, match="does not know the class 'five'; give one that was trained on these 3"):
        job("method=kd", f"method.teacher={runs['plain']}", f"data={tmp_path}")


def test_a_file_teaches_with_its_network_s_name_and_so_does_a_function(runs, tmp_path):
    teacher = load_student(runs["plain"])
    torch.save({"model": teacher.state_dict()}, tmp_path / "a.pt")
    words = ["method=kd", f"method.teacher={tmp_path / 'a.pt'}"]
    assert same(job(*words, "method.teacher_network=cifar:resnet8").method.teacher.net, teacher)
    with pytest.raises(ValueError, match="is a file of weights; say whose with method.teacher_network"):
        job(*words)
    with pytest.raises(ValueError, match="a.pt does not fit cifar:resnet14 for 10 classes: it has no layer1.1.conv1"):
        job(*words, "method.teacher_network=cifar:resnet14")
    with pytest.raises(ValueError, match="method.teacher_network=cifar:resnet8 is for a file of weights"):
        job("method=kd", f"method.teacher={runs['plain']}", "method.teacher_network=cifar:resnet8")
    made = job("method=kd", "method.teacher=helpers.plain_students:classifier")
    assert type(made.method.teacher.net).__name__ == "Blocks"


def test_a_teacher_of_a_library_has_its_public_weights(monkeypatch, tmp_path):
    import timm

    create, asked = timm.create_model, []
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **kw: asked.append(pretrained) or create(name, **kw)
    )
    write_classes(tmp_path, {"Goldfish": 8, "tench": 8}, size=(16, 16))
    made = job("method=kd", "method.teacher=timm:test_resnet.r160_in1k", f"data={tmp_path}")
    teacher = made.method.teacher.net
    assert asked == [True] and teacher.size == (160, 160) and teacher.classes.tolist() == [1, 0]


def test_colour_images_become_gray_for_a_teacher_that_saw_gray_ones(runs, tmp_path):
    write_classes(tmp_path, {str(k): 4 for k in range(10)}, size=(8, 8))
    words = ["method=kd", f"method.teacher={runs['plain']}", f"data={tmp_path}"]
    made = job(*words)
    assert made.method.task.image_shape == (1, 8, 8)
    assert any("data.channels=1, as those of the teacher" in note for note in made.notes)
    assert not any("data.channels" in note for note in job("method=kd", f"method.teacher={runs['plain']}").notes)
    with pytest.raises(ValueError, match="takes images of 1x8x8, and these are 3x8x8; set data.channels=1$"):
        job("method=baseline", f"student.start={runs['plain']}", f"data={tmp_path}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["method=hsakd", "method.teacher={plain}"],
            "learns from a run of method=hsakd_teacher, and .*is one of baseline",
        ),
        (
            ["method=hsakd", "method.teacher={joint}", "data.image_size=16"],
            "takes images of 1x8x8, and these are 1x16x16",
        ),
        (["method=kd"], "KD needs a teacher"),
        (["method=baseline", "method.teacher={plain}"], "Baseline needs no teacher"),
        (["student.start={plain}", "student.pretrained=true"], "pretrained"),
        (["method=hsakd_teacher", "method.joint=false"], "leaves the student's weights random; set student.start=RUN"),
        (["student=cifar:resnet14", "student.start={plain}", "method=baseline"], "does not fit cifar:resnet14"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(runs, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        job(*(word.format(**runs) for word in words))


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (list("0123456789")[::-1], "has 10 classes, the data 10, in another order"),
        (list("012345678x"), "has 10 classes, the data 10, and 'x' is unknown to .*plain"),
        (["0"], "has 10 classes, the data 1, and '1' is unknown to the data"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(runs, classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_same_data(read_card(runs["plain"]), str(runs["plain"]), classes, (1, 8, 8))


def test_a_student_starts_from_the_weights_of_a_run(runs):
    made = job("method=hsakd_teacher", "method.joint=false", f"student.start={runs['plain']}")
    assert same(made.method.student, load_student(runs["plain"]))


def test_a_run_of_other_classes_starts_all_but_the_head(runs, tmp_path):
    write_classes(tmp_path, {str(k): 4 for k in range(1, 11)}, size=(16, 16), mode="L")
    words = ["method=baseline", "seed=3", f"data={tmp_path}"]
    made, again = (job(*words, f"student.start={runs['plain']}") for _ in range(2))
    network = made.method.student
    assert same(network, again.method.student)
    assert torch.equal(network.conv1.weight, load_student(runs["plain"]).conv1.weight)
    assert not torch.equal(network.fc.weight, load_student(runs["plain"]).fc.weight)
    assert "drawn anew: fc.weight, fc.bias (of other classes in that run)" in made.notes
