"""Where the numbers come from: settings, methods and their papers, machines, and the commands that make them again."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...runs.environment import Environment
from ..elements import Content, Element, element
from ..evidence import Evidence
from ..finished import find_differing
from .blocks import code, section, table, with_code


class MethodCard(NamedTuple):
    """What the file of a method says about it; names of code in texts stand in backticks."""

    name: str
    title: str  # of the paper
    reference: str
    link: str  # empty without a paper
    paragraphs: Sequence[str]
    facts: dict[str, str]
    hyperparameters: Sequence[Sequence[str]]  # name, default, allowed values, meaning


def draw_settings(evidence: Evidence) -> Element | None:
    """The settings in which the arms differ, and all others."""
    first = [arm.runs[0].settings for arm in evidence.arms]
    if not first:
        return None
    differing = find_differing(first)
    names = [arm.name for arm in evidence.arms]
    rows = [[element("code", name), *(_show(settings.get(name)) for settings in first)] for name in differing]
    shared = [[element("code", name), _show(value)] for name, value in first[0].items() if name not in differing]
    lead = "Everything else is the same in all arms." if rows else "All runs share these settings."
    caption = "Settings of each arm that are not the same in all"
    whole = table(["setting", "value"], shared, "Settings that all arms share", sortable=False, kind="words", tall=True)
    return section(
        "settings",
        "What differs between the arms" if rows else "Settings",
        lead,
        table(["setting", *names], rows, caption, sortable=False, kind="words") if rows else None,
        element("details", element("summary", "The settings that all share"), whole) if rows else whole,
    )


def _show(value: Any) -> Content:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def draw_methods(cards: Sequence[MethodCard]) -> Element | None:
    """The card of each method, with the paper to cite."""
    if not cards:
        return None
    lead = "What each method does, what it needs, and the paper to cite."
    return section("methods", "Methods", lead, [_draw_card(card) for card in cards])


def _draw_card(card: MethodCard) -> Element:
    paper = element("a", card.title, href=card.link) if card.link else card.title
    items = [element("li", element("b", f"{name}: "), with_code(text)) for name, text in card.facts.items()]
    titles = ["hyper-parameter", "default", "allowed", "meaning"]
    rows = [[with_code(cell) for cell in row] for row in card.hyperparameters]
    whole = table(titles, rows, f"Hyper-parameters of {card.name}", sortable=False, kind="words") if rows else None
    first, *others = [element("p", with_code(paragraph)) for paragraph in card.paragraphs] or [None]
    return element(
        "article",
        element("h3", card.name),
        element("p", element("b", paper), ". " if card.reference else None, card.reference),
        first,
        element("details", element("summary", f"More about {card.name}"), others, element("ul", items), whole),
    )


def draw_environment(evidence: Evidence, command: str) -> Element:
    """Versions and hardware, and the command of every run."""
    environments = [(run, run.run.environment()) for run in evidence.runs]
    known = [environment for _, environment in environments if environment is not None]
    rows = _list_facts(known)
    commands = list(dict.fromkeys(_name_program(one.command) for one in known if one.command))
    scoring = shlex.join(["selfdistill", "eval", *(str(run.run.path) for run in evidence.runs)])
    content: list[Content] = [element("h3", "The runs"), code(commands)] * bool(commands)
    content += [element("h3", "This page"), code([command]), element("h3", "The scores"), code([scoring])]
    lead = "Commands are as they were typed, in the folder that the table names."
    if rows:
        content.append(table(["", "value"], rows, "What the runs were made with", sortable=False, kind="words"))
    return section("environment", "Make it again", lead, content)


def _name_program(command: str) -> str:
    """A command without the place where the program lies.

    >>> _name_program("/home/me/.venv/bin/selfdistill train"), _name_program("fit.py --fast")
    ('selfdistill train', 'fit.py --fast')
    """
    program, space, words = command.partition(" ")
    is_ours = program.endswith(("/selfdistill", "/selfdistill/__main__.py"))
    return f"selfdistill{space}{words}" if is_ours else command


def _list_facts(environments: Sequence[Environment]) -> list[list[Content]]:
    """Facts of the environments; several values where the runs do not share one."""
    facts = [_describe(environment) for environment in environments]
    rows: list[list[Content]] = []
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = dict.fromkeys(fact[name] for fact in facts if fact.get(name))
        if values:
            rows.append([name, "; ".join(values)])
    return rows


def _describe(environment: Environment) -> dict[str, str]:
    git, memory = environment.git, environment.memory_mib
    return {
        "processor": f"{environment.cpu or ''}, {environment.cores or '?'} cores, {environment.threads or '?'} threads",
        "GPUs": ", ".join(environment.gpus),
        "memory": f"{memory / 1024:.0f} GiB" if memory else "",
        "precision": environment.precision or "",
        "processes": str(environment.processes),
        "system": environment.platform or "",
        "Python": environment.python or "",
        **{package: version or "" for package, version in environment.versions.items()},
        "commit": f"{git.commit}{', with changes that are not committed' if git.dirty else ''}" if git else "",
        "folder": environment.folder or "",
        **{f"{split} images": f"fingerprint {value[:16]}" for split, value in (environment.data or {}).items()},
    }
