"""What an evolution or a comparison is asked to do: one pydantic model each, read from YAML, changed by `key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from agentevolve.policy import Recall
from agentevolve.protocols import AgentevolveError

Arm = Literal["random", "oracle", "base", "memory", "shuffled", "distilled", "distilled+memory"]
ARMS: tuple[str, ...] = get_args(Arm)


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("each seed may be there once")
    return seeds


class Settings(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Practice(Settings):
    """The train tasks that are practised: `tasks` of them, drawn by the run's seed, the same ones in every round."""

    tasks: int = Field(default=100, gt=0)


class Held(Settings):
    """A held-out measurement: the first `tasks` tasks of the split, `samples` attempts each."""

    tasks: int = Field(default=48, ge=0)
    samples: int = Field(default=1, gt=0)


class Gate(Settings):
    """When a candidate replaces the policy in place: its paired difference on `val` is above `margin`.

    `interval`: the lower end of its interval has to be, 95% and wider for several candidates; `mean`: the difference itself.
    """

    rule: Literal["interval", "mean"] = "interval"
    margin: float = Field(default=0.0, ge=-1, le=1)


class Allowed(Settings):
    """What each method may spend on learning, for each task set and seed: attempts, tokens, dollars, or several of them.

    Everything that it does before it is measured counts: acting, asking, judging, embedding and training.
    """

    episodes: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.episodes is None and self.tokens is None and self.usd is None:
            raise ValueError("name at least one of episodes, tokens, usd")
        return self


class Entrant(Settings):
    """A method that is compared, with settings of its own; `label` tells two entrants of one method apart."""

    method: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    label: str = Field(default="", pattern=r"^[\w.+-]*$")

    @property
    def name(self) -> str:
        """The label, or the method's own name."""
        return self.label or self.method.rpartition(":")[2]


def _entrant(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Setup(Settings):
    """What an evolution and a comparison share: who acts, how it is asked, how often all is done."""

    tasks: str | list[str]
    model: str = "local/smollm2-135m"
    api_base: str | None = None
    seeds: Annotated[list[int], AfterValidator(_different)] = Field(default=[0], min_length=1)
    rounds: int = Field(default=1, gt=0)
    recall: Recall = Recall()
    train: Practice = Practice()
    temperature: float = Field(default=0.7, ge=0)
    show_actions: bool = True
    workers: int = Field(default=4, gt=0)
    threads: int | None = Field(default=None, gt=0)


class Config(Setup):
    """One evolution. `settings` are the method's own: its keyword parameters."""

    tasks: str
    method: str = "agentevolve"
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    val: Held = Held()
    test: Held = Held(tasks=0)
    arms: list[Arm] = Field(default=["random", "oracle", "base", "memory", "distilled", "distilled+memory"])
    gate: Gate = Gate()
    max_tokens: int | None = Field(default=None, gt=0)
    max_usd: float | None = Field(default=None, gt=0)


class Comparison(Setup):
    """Methods side by side: each learns for at most `rounds` rounds within `budget`, and is measured on `held` after each.

    `split` is where; `guard` names another task set, on which forgetting is measured at the end.
    """

    tasks: Annotated[list[str], BeforeValidator(_listed)] = Field(min_length=1)
    methods: list[Annotated[Entrant, BeforeValidator(_entrant)]] = Field(min_length=1)
    budget: Allowed
    split: Literal["val", "test"] = "val"
    held: Held = Held()
    guard: str | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [entrant.name for entrant in self.methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"methods: two are called {twice[0]}; give one a label")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks: each task set may be there once")
        return self


Asked = TypeVar("Asked", bound=Setup)


def read_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """The config in the YAML file `path`, with `changes` like "finetune.epochs=3" made to it.

    Raises AgentevolveError with one line that names the file, the key and the known values.
    """
    return _read(path, changes, Config)


def read_comparison(path: Path, changes: Sequence[str] = (), methods: Sequence[str] = ()) -> Comparison:
    """As `read_config`, for a comparison; `methods` are compared besides those of the file."""
    return _read(path, changes, Comparison, methods)


def _read(path: Path, changes: Sequence[str], kind: type[Asked], methods: Sequence[str] = ()) -> Asked:
    values = _mapping(path, kind)
    for change in changes:
        _change(values, change)
    if methods:
        values["methods"] = [*(values.get("methods") or []), *methods]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise AgentevolveError(f"{path}: {_complaint(error, kind)}") from None


def write_config(config: Config | Comparison, path: Path) -> None:
    """Write every setting as YAML, for `read_config`; the file is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot write: {error.strerror or error}") from None


def _mapping(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AgentevolveError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AgentevolveError(f"{path}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise AgentevolveError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise AgentevolveError(
            f"{path}: a config is a mapping of settings, this is {found}; known keys: {', '.join(kind.model_fields)}"
        )
    return values


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise AgentevolveError(f"{change!r} is not of the form key=value, like finetune.epochs=3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise AgentevolveError(f"{change!r}: the value is not YAML") from None
    *groups, key = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise AgentevolveError(f"{change!r}: {group} is not a group of settings")
    values[key] = value


def _complaint(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; known: {', '.join(_known(first['loc'][:-1], kind))}"
    if first["type"] == "value_error":
        return ": ".join(part for part in (where, first["msg"].removeprefix("Value error, ")) if part)
    return f"{where}: {first['msg']}, not {first['input']!r:.80}" if first["type"] != "missing" else f"{where} is missing"


def _known(groups: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    for group in groups:
        kind = model.model_fields[str(group)].annotation if isinstance(group, str) else Entrant
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
    return list(model.model_fields)
