"""The recipes that come with the package, by name: `quick/digits` is `recipes/quick/digits.yaml`."""

from pathlib import Path

from ..errors import did_you_mean

PACKAGE = Path(__file__).parents[1]
FOLDERS = (PACKAGE / "recipes", PACKAGE.parents[1] / "recipes")  # as installed, and in a source tree


def list_recipes(*, bases: bool = False) -> dict[str, Path]:
    """Return the file of every recipe that comes with the package, by name.

    Files called base or base_... are left out unless `bases` is true: they are there for other files to build on.
    """
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    files = sorted(folder.glob("*/*.yaml")) if folder else []
    wanted = [file for file in files if bases or file.stem.partition("_")[0] != "base"]
    return {f"{file.parent.name}/{file.stem}": file for file in wanted}


def find_recipe(name: str | Path, folder: Path = Path()) -> Path:
    """Return the file that a name means: a file, as seen from `folder`, else a recipe that comes with the package.

    Raises `ValueError`, with the nearest name, if there is neither.
    """
    path = folder / name
    if path.exists() and not path.is_dir():
        return path
    if shipped := find_shipped(name):
        return shipped
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a recipe")
    raise ValueError(f"there is no recipe {name}{_hint(_shorten(name))}")


def _hint(name: str) -> str:
    """The end of a sentence: how to find the recipe that was meant."""
    known = list_recipes()
    if "/" not in name and any(name in other for other in known):
        return f"; `selfdistill recipes {name}` lists those that contain it"
    return did_you_mean(name, known) or "; `selfdistill recipes` lists those that come with the package"


def find_shipped(name: str | Path) -> Path | None:
    """Return the file of a recipe that comes with the package; quick/digits is also recipes/quick/digits.yaml."""
    return list_recipes(bases=True).get(_shorten(name))


def hides_shipped(name: str | Path) -> bool:
    """Whether a local file of this name is taken in place of another recipe that comes with the package."""
    path, shipped = Path(name), find_shipped(name)
    return shipped is not None and path.is_file() and path.read_bytes() != shipped.read_bytes()


def _shorten(name: str | Path) -> str:
    return Path(name).as_posix().removeprefix("recipes/").removesuffix(".yaml")
