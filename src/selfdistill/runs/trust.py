"""Whose files a run folder holds: this machine signs what it writes, and everybody else's files are data.

A random key in the user's configuration signs recipe.yaml and student.json. From a folder without a valid signature
nothing is imported but the package's own names, and its settings that reach the network, other folders or programs
are as by default, unless the user says `--trust`.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config.recipe import DataPart, MachinePart, Recipe
from ..models.registry import OBJECT, SOURCES
from .files import NO_LINKS

KEY_BYTES = 32
SIGNATURE = re.compile(rb"# signed by the machine that wrote this file: ([0-9a-f]{64})\n\Z")
REACHING = ("download", "root", "opener", "max_megapixels")  # settings of data that a stranger's file does not decide
FETCHING = ("pretrained", "cache_dir", "checkpoint_path")  # options of a network that fetch weights or open files


def find_key(*, make: bool) -> bytes | None:
    """The key of this user on this machine, made on first use; None where there is none or no folder for it."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        path = Path(home).expanduser() / "selfdistill" / "key"
        if (key := _read_key(path)) is None and make:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            key = _make_key(path)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key


def _read_key(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make_key(path: Path) -> bytes | None:
    """Makes the key whole or not at all; of several processes that make it, the first wins."""
    temporary = path.with_name(f".key.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.close(descriptor)
        if path.exists():  # cut short or damaged: what it signed cannot be told any more
            os.replace(temporary, path)
        else:
            with suppress(FileExistsError):
                os.link(temporary, path)
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return _read_key(path)


def sign(content: bytes) -> str | None:
    """The signature of what this machine writes; None where it has no key."""
    key = find_key(make=True)
    return None if key is None else hmac.digest(key, content, "sha256").hex()


def is_signed(content: bytes, signature: Any) -> bool:
    """Whether this machine wrote this content."""
    key = find_key(make=False)
    if key is None or not isinstance(signature, str):
        return False
    return hmac.compare_digest(hmac.digest(key, content, "sha256").hex().encode(), signature.encode())


def sign_text(text: str) -> str:
    """A YAML file with its signature as a last line."""
    signature = sign(text.encode())
    return text + (f"# signed by the machine that wrote this file: {signature}\n" if signature else "")


def is_signed_text(content: bytes) -> bool:
    """Whether this machine wrote a file of `sign_text`, and nobody changed it since."""
    match = SIGNATURE.search(content)
    return match is not None and is_signed(content[: match.start()], match[1].decode())


def serialize(values: Mapping[str, Any]) -> bytes:
    """Plain values in one spelling, for signatures and checksums."""
    return json.dumps(values, sort_keys=True).encode()


def hash_bytes(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def list_code(recipe: Recipe) -> list[tuple[str, str]]:
    """Each setting of a recipe that names code outside the package, or a configuration that may, and that name."""
    augment = recipe.data.augment
    names = [
        ("task", recipe.task.kind),
        ("task.loss", recipe.task.loss),
        ("student", recipe.student.name),
        ("method", recipe.method.name),
        ("method.teacher", recipe.method.teacher if is_network(recipe.method.teacher or "") else None),
        ("method.teacher_network", recipe.method.teacher_network),
        ("data.sampler", recipe.data.sampler),
        ("data.opener", recipe.data.opener),
        *(("data.augment", name) for name in (augment if isinstance(augment, list) else [augment])),
    ]
    return [(setting, name) for setting, name in names if name is not None and (is_code(name) or is_configured(name))]


def is_code(name: str) -> bool:
    """Whether a name is "module:name", and no network of a library that the package knows."""
    return ":" in name and name.partition(":")[0] not in (*SOURCES, OBJECT)


def is_configured(name: str) -> bool:
    """Whether transformers builds this network: it fetches and runs what a configuration may name."""
    return name.startswith("hf:")


def is_object(name: str | None) -> bool:
    """Whether a name is that of an object which a Python program lent; it names no code that could be imported."""
    return (name or "").startswith(f"{OBJECT}:")


def is_network(name: str) -> bool:
    """Whether the name of a teacher is one of a network, and no path."""
    return ":" in name and not os.path.exists(os.path.expanduser(name))


def refuse_code(folder: Path, names: Iterable[tuple[str, str]]) -> None:
    """Raises `ValueError` where settings of a stranger's folder name code: pairs of a setting and its value."""
    listed = ", ".join(f"{setting}={name}" for setting, name in names if is_code(name) or is_configured(name))
    if listed:
        raise ValueError(
            f"{folder} is not signed by this machine and would import and run {listed}; look at that code, then say "
            "--trust (in Python: trust=True)"
        )


def refuse_unpacking(folder: Path, data: DataPart, teacher: str | None = None) -> None:
    """Raises `ValueError` for data, or a teacher, that a stranger's file has a library fetch or unpack into a cache."""
    if is_network(teacher or ""):
        raise ValueError(
            f"{folder} is not signed by this machine, and the weights of its method.teacher={teacher} would be "
            "fetched; say --trust"
        )
    for name in ("source", "val"):
        if (getattr(data, name) or "").startswith("hf:"):
            raise ValueError(
                f"{folder} is not signed by this machine, and its data.{name}={getattr(data, name)} would be unpacked "
                "outside of it; name the images yourself with --data, or say --trust"
            )


def ignore_reaching(recipe: Recipe) -> Recipe:
    """A stranger's recipe without settings that reach the network, other folders or programs.

    The weights that its student started from are not read either: the rest of a run goes on from its checkpoint.
    """
    ignored = {"pretrained": False, "start": None, "options": drop_fetching(recipe.student.options)}
    student = recipe.student.model_copy(update=ignored)
    return recipe.model_copy(
        update={"data": ignore_reaching_data(recipe.data), "student": student, "machine": MachinePart()}
    )


def ignore_reaching_data(data: DataPart) -> DataPart:
    """The same for the settings of data."""
    default = DataPart()
    return data.model_copy(update={name: getattr(default, name) for name in REACHING})


def drop_fetching(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a network without those that fetch weights."""
    return {name: value for name, value in options.items() if name not in FETCHING}
