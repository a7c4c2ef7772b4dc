"""Where a run is compiled, which of its steps are, and what happens where that fails."""

import importlib.util

import pytest
import torch
from torch import nn

from helpers.batches import small_task
from helpers.methods import small_method
from helpers.runs import QUICK, Heard, weights
from selfdistill.build import build
from selfdistill.build.checks import check_machine
from selfdistill.config.read import parse, read
from selfdistill.methods.baseline import Baseline
from selfdistill.training import compile, loop
from selfdistill.training.compile import MIN_STEPS, Compiler, choose_mode, find_usual_batches
from selfdistill.training.device import choose_precision
from selfdistill.training.loop import fit

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_run_is_compiled_by_itself_on_gpus_alone_and_where_it_is_long(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert choose_mode("auto", CUDA, MIN_STEPS) == choose_mode(True, CUDA, 1) == choose_mode(True, CPU, 1) == "default"
    assert choose_mode("graphs", CUDA, 1) == "reduce-overhead"
    assert not any(
        [
            choose_mode("auto", CUDA, MIN_STEPS - 1),
            choose_mode("auto", CPU, 10 * MIN_STEPS),
            choose_mode(False, CUDA, MIN_STEPS),
        ]
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_mode("auto", CUDA, MIN_STEPS) is None


def test_graphs_that_cannot_be_are_refused_before_training():
    with pytest.raises(ValueError, match="graphs needs a CUDA GPU, and this run is on cpu"):
        job = build(parse({**QUICK, "machine": {"compile": "graphs", "device": "cpu"}}))
        check_machine(job)
    with pytest.raises(ValueError, match="graphs takes no optim.accumulate=2; use true"):
        choose_mode("graphs", CUDA, 1, accumulate=2)


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("auto", "auto"), ("graphs", "graphs")])
def test_compile_is_a_yes_a_no_or_a_word(word, value):
    assert read(words=[f"machine.compile={word}"]).machine.compile == value
    with pytest.raises(ValueError, match=r"machine.compile='\w+x' should be 'auto' or 'graphs' or .* boolean"):
        read(words=[f"machine.compile={word}x"])


def test_an_unusual_batch_and_the_next_one_run_uncompiled():
    epoch = [[4, 4], [4, 4], [3, 3]]
    assert find_usual_batches(epoch, first_epoch=True) == [[False, True], [True, True], [False, False]]
    assert find_usual_batches(epoch[:2], first_epoch=True) == [[False, True], [True, True]]
    assert find_usual_batches([[3, 4, 4]] * 2, first_epoch=False) == [[False, False, True]] * 2


@pytest.fixture
def uncompilable(monkeypatch):
    """A compiler that gives up in the first backward pass: after the forward pass moved statistics and drew numbers."""
    exc = pytest.importorskip("torch._dynamo.exc")

    def given_up(method):
        def call(*args):
            method._call_impl(*args)
            torch.rand(3)
            raise exc.TorchDynamoException("no kernel for that\nand a long story")

        return call

    monkeypatch.setattr(compile, "choose_mode", lambda setting, *args, **kwargs: "default" if setting else None)
    monkeypatch.setattr(loop, "find_usual_batches", lambda steps, **_: [[True] * len(step) for step in steps])
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: setattr(self, "_compiled_call_impl", given_up(self)))


def run_with(compile, **changes):
    heard = Heard()
    job = build(parse({**QUICK, "method": "dlb", "max_steps": 3, "machine": {"compile": compile}, **changes}))
    result = fit(job, callbacks=[heard])
    return weights(job.method), result, heard.sentences


@pytest.mark.slow
def test_where_compiling_fails_a_run_that_chose_it_itself_goes_on_as_if_it_had_not(uncompilable):
    plain, result, _ = run_with(False)
    weights, fallen, told = run_with("auto")
    assert all(torch.equal(value, weights[name]) for name, value in plain.items())
    assert [each for each in told if "DLB cannot be compiled (TorchDynamoException: no kernel for that and" in each]
    assert len(told) == 1 and fallen.compile_seconds >= 0 == result.compile_seconds


def test_where_compiling_fails_a_run_that_was_told_to_ends_in_one_sentence(uncompilable):
    with pytest.raises(ValueError, match=r"DLB cannot be compiled \(.*\); set machine.compile=false$"):
        run_with(True)


@pytest.mark.usefixtures("uncompilable")
def test_where_the_second_graph_cannot_be_compiled_a_run_goes_on_as_well():
    method = small_method(Baseline, small_task("classification"))
    compiler = Compiler(method, "default", strict=False)
    assert compiler(lambda: "compiled", usual=True, mixed=False) == "compiled" and compiler.failure is None

    def given_up_unless_uncompiled():
        if compiler.mode is not None:
            raise RuntimeError("no kernel for mixed labels")
        return "uncompiled"

    assert compiler(given_up_unless_uncompiled, usual=True, mixed=True) == "uncompiled"
    assert "cannot be compiled (RuntimeError: no kernel for mixed labels" in compiler.failure


@pytest.mark.parametrize(
    ("feature", "precision"), [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("avx512_f", "fp32")]
)
@pytest.mark.slow
def test_precision_is_bfloat16_where_the_processor_has_it(monkeypatch, feature, precision):
    monkeypatch.setattr("selfdistill.runs.environment._list_cpu_features", lambda: {feature})
    job = build(parse({**QUICK, "precision": "auto", "machine": "cpu"}))
    assert job.recipe.precision == precision
    assert any(note.startswith(f"precision={precision}, as this machine has ") for note in job.notes)
    assert not any("precision" in note for note in build(parse({**QUICK, "precision": "bf16"})).notes)


@pytest.mark.parametrize(("groups", "precision"), [(1, "bf16"), (2, "bf16"), (4, "fp32")])
def test_precision_is_float32_on_a_cpu_for_depthwise_convolutions(monkeypatch, groups, precision):
    monkeypatch.setattr("selfdistill.training.device.computes_bfloat16", lambda device: True)
    student = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=groups))
    recipe = parse({**QUICK, "precision": "auto", "machine": "cpu"})
    assert choose_precision(recipe, student) == precision and choose_precision(recipe) == "bf16"
    monkeypatch.setattr("selfdistill.training.device.choose_device", lambda recipe: "cuda")
    assert choose_precision(recipe, student) == "bf16"
    assert choose_precision(recipe.model_copy(update={"precision": "bf16"}), student) == "bf16"


def test_processors_are_read_from_linux_where_torch_does_not_tell(monkeypatch):
    from selfdistill.runs import environment as environment

    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(
        environment, "_read_cpu_line", lambda name: "fpu avx512_bf16 amx_bf16" if name == "flags" else None
    )
    assert environment.computes_bfloat16("cpu") and not environment.computes_bfloat16("mps")
    monkeypatch.setattr(environment, "_read_cpu_line", lambda name: None)
    assert not environment.computes_bfloat16("cpu")
