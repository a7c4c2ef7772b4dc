"""What is loaded before anything is done: modules, not seconds."""

import subprocess
import sys

import pytest

import selfdistill

pytestmark = pytest.mark.slow

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "pydantic",
    "numpy",
    "PIL",
    "yaml",
    "segmentation_models_pytorch",
}
NAMES = "import selfdistill as s; [getattr(s, name) for name in s.__all__]"
COMMAND = (
    "import sys; sys.argv = ['selfdistill', *{}]\nfrom selfdistill import cli\ntry: cli.main()\nexcept SystemExit: ..."
)


def loaded(code):
    """The packages, of those that take their time, that a fresh process has loaded after some code."""
    tell = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy():
    assert loaded(COMMAND.format(["--help"])) == set()


@pytest.mark.parametrize("command", ["train", "compare", "methods"])
def test_help_on_a_command_loads_nothing_heavy_but_what_typer_does(command):
    assert loaded(COMMAND.format([command, "--help"])) <= {"pydantic"}


def test_importing_the_package_loads_nothing_heavy():
    assert loaded("import selfdistill") == set()


def test_all_public_names_load_torch_but_no_library_of_networks():
    assert loaded(NAMES) & {"torch", "timm", "torchvision", "accelerate", "segmentation_models_pytorch"} == {"torch"}


def test_a_source_tree_that_is_not_installed_has_a_version_too(tmp_path):
    folder = selfdistill.__path__[0].rpartition("/")[0]
    hidden = (
        "import importlib.metadata as m, sys\ndef none(name): raise m.PackageNotFoundError(name)\nm.version = none\n"
    )
    code = f"{hidden}sys.path.insert(0, {folder!r})\nimport selfdistill; print(selfdistill.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "0+source\n", done.stderr
