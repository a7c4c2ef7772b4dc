"""A recipe: everything that decides a training run, as plain values. Unknown names are errors.

`read` merges, in this order, the defaults, a YAML file and `name=value` words. A plain string is short for a part's
main field: `data: /my/images` for `data: {source: /my/images}`.
"""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Natural = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A group of settings. Its `main` field takes the value when a plain one stands for the whole part."""

    model_config = ConfigDict(extra="forbid", validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    main: ClassVar[str] = "name"

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        """A plain value is the main field's, nothing means the defaults, and one item makes a list of one."""
        if value is None:
            return {}
        if isinstance(value, BaseModel):
            return value
        values = value if isinstance(value, dict) else {cls.main: value}
        return {str(name): cls._listed(str(name), each) for name, each in values.items()}

    @classmethod
    def _listed(cls, name: str, value: Any) -> Any:
        kinds = _kinds(cls, name)
        single = value is not None and not isinstance(value, list | tuple | dict)
        return [value] if single and list in kinds and str not in kinds else value


def _refuse_idle(part: Part, names: list[str], idle: bool, because: str) -> None:
    """Raises `ValueError` where `idle` and one of these fields is not at its default."""
    for name in names:
        if idle and getattr(part, name) != type(part).model_fields[name].default:
            raise ValueError(f"{name}={getattr(part, name)} has no effect with {because}")


class DataPart(Part):
    """Which images, which of them to hold out, and how they are presented."""

    main: ClassVar[str] = "source"
    source: str = Field(
        "digits", description="digits | a folder | .csv | .jsonl | .parquet | hf:NAME | torchvision:NAME"
    )
    val: str | None = Field(None, description="validation source or split name; found by itself where it is called val")
    val_fraction: float | None = Field(
        None, gt=0, lt=1, description="share of each class held out; 0.2 where the source has no other split"
    )
    split_seed: int = Field(0, description="of the held-out choice; independent of the training seed")
    limit: Natural | None = Field(None, description="train on so many images only, the first of every class in turn")
    image_size: Natural | tuple[Natural, Natural] | None = Field(
        None, description="pixels, or [height, width]; the images' own where all agree and are small, else 224"
    )
    channels: Literal[1, 3, 4] | None = Field(None, description="1 if all images are grey, else 3; 4 keeps alpha")
    augment: str | list[str] = Field(
        "auto",
        description="auto | none | crop, flip, resized_crop, randaugment, trivialaugment, MODULE:FUNCTION",
    )
    mean: list[float] | None = Field(None, description="per channel, pixels in [0, 1]; computed from the training set")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="as mean")
    image_column: str | None = Field(None, description="of tables; found by its type or name")
    label_column: str | None = Field(None, description="of tables; found by its type or name")
    download: bool = Field(False, description="allow torchvision: and hf: sources to fetch what is not there")
    root: str = Field("data", description="where torchvision: sources lie or are downloaded to")


class TaskPart(Part):
    """What is to be learned."""

    main: ClassVar[str] = "kind"
    kind: Literal["classification"] = "classification"


class StudentPart(Part):
    """The network that ships."""

    name: str = Field("cifar:resnet20", description="timm:NAME | torchvision:NAME | cifar:NAME | MODULE:FUNCTION")
    pretrained: bool = Field(False, description="start from the source's weights")
    options: dict[str, Any] = Field({}, description="passed on to the network's constructor")


class MethodPart(Part):
    """How the student is trained; hyper-parameters of the method stand beside its name."""

    model_config = ConfigDict(extra="allow")
    name: str = Field("frskd", description="a name that `selfdistill methods` lists, or package.module:Class")
    taps: list[str] | None = Field(None, description="submodules that give the feature maps; found by themselves")
    teacher: str | None = Field(None, description="a run folder, for methods that need a trained teacher")

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MixPart(Part):
    """Mixing images and labels of a batch, around any method that takes soft labels."""

    name: Literal["none", "mixup", "cutmix"] = "none"
    alpha: float = Field(1.0, gt=0, description="of the Beta(alpha, alpha) that draws the mixing weight")
    probability: Share = Field(1.0, description="share of the batches that are mixed")

    @model_validator(mode="after")
    def _no_idle_setting(self) -> "MixPart":
        _refuse_idle(self, ["alpha", "probability"], self.name == "none", "mix=none")
        return self


class OptimPart(Part):
    """Optimiser, learning-rate schedule and what happens to a gradient on its way."""

    name: str = Field("sgd", description="sgd or any optimiser of timm")
    lr: float | None = Field(None, gt=0, description="0.1 for sgd, 0.001 for others")
    momentum: Weight = 0.9
    nesterov: bool = Field(False, description="sgd only")
    weight_decay: Weight = 1e-4
    decay: Literal["all", "weights"] = Field("all", description="all parameters, or all but biases, norms and vectors")
    schedule: Literal["step", "cosine", "constant", "linear", "poly"] = "cosine"
    milestones: list[Share] = Field([0.5, 0.75], description="step: shares of training after which lr drops")
    gamma: float = Field(0.1, gt=0, le=1, description="step: what lr is multiplied by")
    min_lr: Weight = Field(0.0, description="cosine, linear, poly: the end")
    warmup: Share = Field(0.0, description="share of training over which lr rises linearly from a hundredth")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    accumulate: Natural = Field(1, description="micro-batches that a batch is split into")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the student, which then ships")

    @model_validator(mode="after")
    def _settled(self) -> "OptimPart":
        if self.lr is None:
            self.lr = 0.1 if self.name == "sgd" else 0.001
        _refuse_idle(self, ["milestones", "gamma"], self.schedule != "step", f"optim.schedule={self.schedule}")
        _refuse_idle(self, ["min_lr"], self.schedule in ("step", "constant"), f"optim.schedule={self.schedule}")
        _refuse_idle(self, ["nesterov"], self.name != "sgd" or self.momentum == 0, "an optimiser but sgd with momentum")
        return self


class MachinePart(Part):
    """What may differ between machines without changing what is computed, up to rounding."""

    main: ClassVar[str] = "device"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0)] = Field(0, description="processes that load images")
    compile: bool = Field(False, description="torch.compile the method")
    channels_last: bool = True
    checkpoint_minutes: float = Field(10.0, gt=0, description="longest time between two checkpoints")
    track: list[str] = Field([], description="trackers of accelerate, for example tensorboard")


class Recipe(Part):
    """A whole run."""

    data: DataPart = DataPart()
    task: TaskPart = TaskPart()
    student: StudentPart = StudentPart()
    method: MethodPart = MethodPart()
    mix: MixPart = MixPart()
    optim: OptimPart = OptimPart()
    epochs: Natural | None = Field(None, description="30 where max_steps is not given either")
    max_steps: Natural | None = Field(
        None, description="alone: the length of the schedule in optimiser steps; beside epochs: stops early"
    )
    batch_size: Natural = Field(128, description="images per optimiser step, over all processes")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 on GPUs, else fp32")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    out: str | None = Field(None, description="the run folder; runs/DATA-STUDENT-METHOD-sSEED")
    machine: MachinePart = MachinePart()

    @model_validator(mode="after")
    def _length(self) -> "Recipe":
        if self.epochs is None and self.max_steps is None:
            self.epochs = 30
        return self


def read(path: str | Path | None = None, words: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file with `name=value` words applied over it.

    Raises `ValueError` in one sentence for an unreadable file, an unknown name (with the nearest legal one) or a value
    of the wrong type.
    """
    values = _load(Path(path)) if path is not None else {}
    for word in words:
        _override(values, word)
    return parse(values)


def changed(recipe: Recipe, words: Iterable[str]) -> Recipe:
    """The recipe with `name=value` words applied over it; errors as `read`."""
    values = recipe.model_dump()
    for word in words:
        _override(values, word)
    return parse(values)


def parse(values: dict[str, Any]) -> Recipe:
    """The recipe that nested plain values describe; errors as `read`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ValueError(_sentences(error.errors())) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `read` understands."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def commented(recipe: Recipe) -> str:
    """The recipe as YAML, each setting with what it means."""
    return "\n".join(_commented_lines(recipe, "")) + "\n"


def _commented_lines(part: Part, indent: str) -> Iterator[str]:
    values = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Part):
            yield f"{indent}{name}:  # {(value.__doc__ or '').splitlines()[0]}"
            yield from _commented_lines(value, indent + "  ")
            continue
        yield f"{indent}{name}: {_one_line(values[name])}" + (f"  # {field.description}" if field.description else "")
    for name, value in (part.model_extra or {}).items():
        yield f"{indent}{name}: {_one_line(value)}"


def _one_line(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ValueError(f"there is no recipe {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return {str(name): value for name, value in values.items()}


class _Loader(yaml.SafeLoader):
    """YAML in which a name may stand once only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name} stands twice")
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], word: str) -> None:
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is neither a recipe file nor name=value")
    *parents, last = name.split(".")
    place, part = values, Recipe
    for parent in parents:
        part = _part(part, parent)
        held = place.get(parent)
        if not isinstance(held, dict):
            place[parent] = held = {} if held is None or part is None else {part.main: held}
        place = held
    value = _value(text, set() if part is None else _kinds(part, last))
    part = _part(part, last)
    if part is not None and not isinstance(value, dict) and isinstance(place.get(last), dict):
        place[last][part.main] = value  # a short form beside the part's other fields
    else:
        place[last] = value


def _part(part: type[Part] | None, name: str) -> type[Part] | None:
    """The class of the part that `name` names inside `part`, None for a plain field."""
    kinds = _kinds(part, name) if part is not None else set()
    return next((kind for kind in kinds if issubclass(kind, Part)), None)


def _kinds(part: type[Part], name: str) -> set[type]:
    """The types that the field `name` takes; none for a name that is no field."""
    field = part.model_fields.get(name)
    return set() if field is None else _types(field.annotation)


def _types(annotation: Any) -> set[type]:
    """The plain types in an annotation: of `list[str] | None` list and NoneType."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin is Literal:
        return {type(each) for each in inner}
    if origin in (Union, UnionType):
        return set().union(*map(_types, inner))
    return {origin or annotation}


def _value(text: str, kinds: set[type]) -> Any:
    """What a word says for a field of these types: text as it was typed where text is wanted, else as YAML reads it.

    1e-3 is a number, null nothing, and commas make a list where one is allowed or the field is a method's own.
    """
    if text in ("null", "") and (type(None) in kinds or not kinds):
        return None
    if "," in text and (not kinds or kinds & {list, tuple}) and not text.lstrip().startswith(("[", "{", '"', "'")):
        return [_value(item, set()) for item in text.split(",")]
    short = any(issubclass(kind, Part) for kind in kinds) and not text.lstrip().startswith("{")
    if short or (str in kinds and not text.lstrip().startswith(("[", "{"))):
        return text
    try:
        return float(text) if _is_decimal(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_decimal(text: str) -> bool:
    """Whether it is a number with a point or exponent; YAML takes 1e-3 for a word."""
    try:
        float(text)
    except ValueError:
        return False
    return not text.lstrip("+-").isdigit() and any(character.isdigit() for character in text)


def _sentences(problems: list[Any]) -> str:
    """One sentence for each wrong value, whatever the number of types it might have had."""
    known, found = known_names(), dict[str, list[Any]]()
    for problem in problems:
        path = [str(step) for step in problem["loc"]]
        ends = (".".join(path[:end]) for end in range(len(path), 0, -1))
        extra = problem["type"] == "extra_forbidden"
        name = ".".join(path) if extra else next((end for end in ends if end in known), ".".join(path))
        found.setdefault(name, []).append(problem)
    return "; ".join(_sentence(name, several, known) for name, several in found.items())


def _sentence(name: str, problems: list[Any], known: list[str]) -> str:
    if problems[0]["type"] == "extra_forbidden":
        return unknown_name(name, known)
    told = [problem["msg"].removeprefix("Input ").removeprefix("Value error, ") for problem in problems]
    message = " or ".join(dict.fromkeys(told))
    if problems[0]["type"] == "value_error":  # of settings that do not go together
        return f"{name}.{message}" if name else message
    return f"{name}={problems[0]['input']!r} {message}" if name else message


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The sentence that says so and gives the nearest legal name."""
    known = list(known)
    same = [other for other in known if other.rpartition(".")[2] == name]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    siblings = [other for other in known if other.rpartition(".")[0] == name.rpartition(".")[0]]
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(siblings or known)}"
    return f"no setting is called {name!r}; {hint}"


def known_names(part: type[Part] = Recipe, prefix: str = "") -> list[str]:
    """Every legal dotted name, hyper-parameters of methods aside."""
    names = []
    for name in part.model_fields:
        names.append(prefix + name)
        inner = _part(part, name)
        if inner is not None:
            names += known_names(inner, f"{prefix}{name}.")
    return names
