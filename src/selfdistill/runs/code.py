"""The user's own code that a run imports, as hashes: a run whose code changed is another run.

Modules are found as Python finds them, but none is imported here.
"""

import ast
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from .trust import hash_bytes

PACKAGE = __package__.partition(".")[0]
_seen: dict[Path, tuple[Any, str]] = {}  # file -> (spec of its module when it was hashed, hash): what this process runs


def hash_code(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the file of each module that "module:name" names import, by module.

    These are the modules named, their packages, and what they import from the same folder, wherever in a file the
    import stands. Of an installed package only the module named counts. A module that is loaded already keeps the hash
    that it had before.
    """
    hashes: dict[str, str] = {}
    for name in names:
        module = name.partition(":")[0]
        folder = _find_folder(module)
        if folder is not None and module.partition(".")[0] != PACKAGE:
            _add_module(module, folder, hashes, follow=not _is_installed(folder))
    return dict(sorted(hashes.items()))


def describe_changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The modules that are not the same in both, in words; empty where there are none."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(names)


def _find_folder(module: str) -> str | None:
    """The folder of Python's search path in which a module or its package lies."""
    top = module.partition(".")[0]
    folders = [entry or os.getcwd() for entry in dict.fromkeys([os.getcwd(), *sys.path])]
    return next((folder for folder in folders if PathFinder.find_spec(top, [folder]) is not None), None)


def _is_installed(folder: str) -> bool:
    paths = sysconfig.get_paths()
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(folder).parts) or folder in (
        paths["stdlib"],
        paths["platstdlib"],
    )


def _add_module(module: str, folder: str, hashes: dict[str, str], *, follow: bool) -> None:
    """Adds a module with its packages, and with what it imports if `follow`."""
    search, name = [folder], ""
    for part in module.split("."):
        spec = PathFinder.find_spec(part, search)  # by its last name alone, as the packages are not imported
        if spec is None:
            return
        name = f"{name}.{part}".removeprefix(".")
        search = [*(spec.submodule_search_locations or ())]
        if spec.origin and name not in hashes:
            file = Path(spec.origin)
            hashes[name] = _hash_file(name, file)
            if follow and file.suffix == ".py":
                for imported in _list_imports(file, package=name if search else name.rpartition(".")[0]):
                    _add_module(imported, folder, hashes, follow=True)
        if not search:
            return


def _hash_file(module: str, file: Path) -> str:
    """The hash of a file; of a loaded module's file the hash from before it was loaded, if it was taken then."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    seen_spec, seen_hash = _seen.get(file, (None, ""))
    if not seen_hash or spec is None or (seen_spec is not None and seen_spec is not spec):
        seen_hash = hash_bytes(file.read_bytes())
    _seen[file] = (spec, seen_hash)
    return seen_hash


def _list_imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names of the modules that a file may import; some are names within a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if node.level and package else []
            base = parents[: len(parents) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
            if base:
                yield ".".join(base)
