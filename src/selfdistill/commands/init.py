"""init: writes a commented recipe for a user's images."""

from pathlib import Path

from ..config.files import dump_commented
from ..config.recipe import Recipe
from ..data import open_splits
from ..errors import escape_controls
from ..tasks import complete_recipe, find_task
from .console import say


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe with every setting, commented, after a look at its data; an existing file is refused."""
    if path.exists():
        raise ValueError(f"{path} exists already; choose another --file")
    if not path.parent.is_dir():
        raise ValueError(
            f"{path} cannot be written: there is no folder {path.parent}; make it, or choose another --file"
        )
    recipe = complete_recipe(recipe)
    splits = open_splits(recipe.data, find_task(recipe.task.kind))
    counts = {name: len(rows) for name, rows in splits._asdict().items() if name != "notes" and rows is not None}
    images = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    classes = splits.train.classes
    head = [
        f"# {recipe.method.name} on {recipe.data.source}: {len(classes)} classes; images: {images}",
        *(f"# {note}" for note in splits.notes),
        f"# run: selfdistill train {path}",
    ]
    path.write_text("\n".join(map(escape_controls, head)) + "\n\n" + dump_commented(recipe), encoding="utf-8")
    say(f"{path} is written; train with: selfdistill train {path}")
