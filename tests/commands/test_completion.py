"""The shell's completion, asked as the shells' scripts ask it."""

import subprocess
import sys

import pytest

from selfdistill.commands.completion import list_completions
from selfdistill.config.names import list_recipes
from selfdistill.methods import list_methods
from selfdistill.tasks import list_tasks


def test_words_become_recipes_and_settings():
    assert {*list_recipes(), "data=", "optim.lr=", "machine.workers="} <= {*list_completions("words", "")}
    assert list_completions("words", "optim.mom") == ["optim.momentum="]
    assert list_completions("words", "quick/") == [name for name in list_recipes() if name.startswith("quick/")]
    assert "quick/digits" not in list_completions("words", "", ["quick/digits"])


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("method", sorted(["auto", *list_methods()])),
        ("method.name", sorted(["auto", *list_methods()])),
        ("methods", sorted(["auto", *list_methods()])),
        ("task", list_tasks()),
        ("mix", ["cutmix", "mixup", "none"]),
        ("optim.nesterov", ["false", "true"]),
        ("machine.compile", ["auto", "false", "graphs", "true"]),
        ("precision", ["auto", "bf16", "fp16", "fp32"]),
        ("epochs", []),
        ("no.such.setting", []),
    ],
)
def test_settings_have_their_values(setting, values):
    assert list_completions("words", f"{setting}=") == [f"{setting}={value}" for value in values]
    if setting != "no.such.setting":
        for before in ([setting], [setting, "="], ["quick/digits", setting, "="]):  # as bash cuts the line
            assert list_completions("words", "", before) == list_completions("words", "=", before) == values


def test_names_of_methods_and_recipes_are_completed():
    assert list_completions("methods", "frskd") == ["frskd", "frskd_sla"]
    assert list_completions("recipes", "quick/dig") == [n for n in list_recipes() if n.startswith("quick/dig")]


def test_a_shell_gets_completions_without_torch():
    code = "import sys; from selfdistill import cli; cli.typer.main.get_command(cli.app); import selfdistill.commands"
    code += "; from selfdistill.commands.completion import list_completions as f; assert f('words', 'method=f')"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_program_answers_the_scripts_of_zsh(run, monkeypatch):
    monkeypatch.setenv("_SELFDISTILL_COMPLETE", "complete_zsh")
    for line, answer in (("selfdistill train precision=f", "precision=fp32"), ("selfdistill methods label", "label_")):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        code, out, err = run(*line.split()[1:])
        assert answer in out, err
