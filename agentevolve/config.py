"""What an evolution or a comparison is asked to do: one pydantic model each, read from YAML, changed by `key=value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from agentevolve.given import DEEPEST, checked, cut, parsed, read_yaml, shown
from agentevolve.policy import ApiBase, ModelOptions, Price, Recall, Workers
from agentevolve.protocols import AgentevolveError
from agentevolve.redact import redacted
from agentevolve.whole import write_whole

Arm = Literal["random", "oracle", "base", "memory", "shuffled", "distilled", "distilled+memory"]
ARMS: tuple[str, ...] = get_args(Arm)


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("each seed may be there once")
    return seeds


class Settings(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Practice(Settings):
    """The train tasks that are practised: `tasks` of them, drawn by the run's seed, the same ones in every round."""

    tasks: int = Field(default=100, gt=0)


class Held(Settings):
    """A held-out measurement: the first `tasks` tasks of the split, `samples` attempts each."""

    tasks: int = Field(default=48, ge=0)
    samples: int = Field(default=1, gt=0)


class Variant(Settings):
    """A further arm: the arm `like`, but with some of the learnt policy's recall changed, or another memory in its place.

    It is measured beside the others and never promoted. `memory` is a memory's or run's folder: what has nothing to do with the
    task makes the control of stale memory.
    """

    name: str = Field(pattern=r"^[\w.+-]+$")
    like: Literal["memory", "distilled+memory"] = "memory"
    recall: dict[str, JsonValue] = Field(default_factory=dict)
    memory: str = ""


class Gate(Settings):
    """When a candidate replaces the policy in place: its paired difference on `val` is above `margin`, and it forgets nothing.

    `interval`: the lower end of its interval has to be, 95% and wider for several candidates; `mean`: the difference itself;
    `none`: the gate is off, and the candidate with the largest difference takes the place, whatever it is.
    `looks` at the measurement, at equal shares of the `val` tasks, let a clear winner or loser end it early; the chance of
    promoting what is no better stays the same. `guards` are other task sets: on the first `guard_tasks` held-out tasks of each
    the difference has to be above minus `tolerance` in the same sense.
    """

    rule: Literal["interval", "mean", "none"] = "interval"
    margin: float = Field(default=0.0, ge=-1, le=1)
    looks: int = Field(default=1, ge=1, le=20)
    guards: list[str] = Field(default_factory=list)
    guard_tasks: int = Field(default=48, gt=0)
    tolerance: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _sure_looks(self) -> Self:
        if self.looks > 1 and self.rule != "interval":
            raise ValueError("looks: only the rule interval can end a measurement early; the others are sure of nothing then")
        if len({Path(name).stem for name in self.guards}) < len(self.guards):
            raise ValueError("guards: two of them have the same name")
        return self


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
    """What an evolution and a comparison share: who acts, how it is asked and paid for, how often all is done.

    `embedder` makes the memory's vectors: `hash`, a folder, LiteLLM's provider/model or an id on the hub; "": all-MiniLM-L6-v2.
    """

    tasks: str | list[str]
    model: str = "local/smollm2-135m"
    api_base: ApiBase = None
    model_options: ModelOptions = ModelOptions()
    prices: dict[str, Price] = Field(default_factory=dict)
    seeds: Annotated[list[int], AfterValidator(_different)] = Field(default=[0], min_length=1)
    rounds: int = Field(default=1, gt=0)
    recall: Recall = Recall()
    embedder: str = ""
    train: Practice = Practice()
    temperature: float = Field(default=0.7, ge=0)
    show_actions: bool = True
    workers: Workers = Workers()
    threads: int | None = Field(default=None, gt=0)

    def public(self) -> dict[str, Any]:
        """Every setting as JSON, secrets hidden: what is written, and what a resumed run is compared by."""
        return dict(redacted(self.model_dump(mode="json")))


class Config(Setup):
    """One evolution. `settings` are the method's own: its keyword parameters; `track` names who keeps its figures, too.

    `asynchronous`: while a round learns and is measured, the first attempts of the next one are made, by the policy that is in
    place then (loop/ahead.py).
    """

    tasks: str
    method: str = "agentevolve"
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    val: Held = Held()
    test: Held = Held(tasks=0)
    arms: list[Arm] = Field(default=["random", "oracle", "base", "memory", "distilled", "distilled+memory"])
    variants: list[Variant] = Field(default_factory=list)
    gate: Gate = Gate()
    asynchronous: bool = False
    max_tokens: int | None = Field(default=None, gt=0)
    max_usd: float | None = Field(default=None, gt=0)
    track: Literal["", "trackio", "mlflow", "wandb"] = ""

    @model_validator(mode="after")
    def _arms_that_can_be(self) -> Self:
        names = [*ARMS, *(variant.name for variant in self.variants)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"variants: {twice[0]} is the name of another arm")
        for variant in self.variants:
            Recall.model_validate(self.recall.model_dump() | variant.recall)
        return self

    def measured(self) -> list[str]:
        """The names of all arms, in the order in which they are measured."""
        return [*self.arms, *(variant.name for variant in self.variants)]


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


# what may be another when a run goes on: how much, how fast, from where and at what price; not what is measured
MAY_CHANGE = {"workers", "threads", "max_tokens", "max_usd", "prices", "api_base", "track"} | {
    f"model_options.{name}" for name in ("timeout", "tries", "pause", "headers", "stream")
}


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], *more: str) -> list[str]:
    """The settings in which two dumps of a config, or of a policy, differ though they may not; `more` may too."""
    old, new = _flat(before), _flat(now)
    return sorted(name for name in {**old, **new} if name not in MAY_CHANGE | {*more} and old.get(name) != new.get(name))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    nested = {name: value for name, value in values.items() if name in ("model_options", "options")}
    inner = {f"model_options.{key}": value for group in nested.values() for key, value in (group or {}).items()}
    return {name: value for name, value in values.items() if name not in nested} | inner


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
    values = read_yaml(path, kind)
    for change in changes:
        if isinstance(number := values.get("workers"), int) and change.startswith("workers."):
            values["workers"] = {"count": number}  # as it may be written
        _change(values, change)
    if methods:
        values["methods"] = [*(values.get("methods") or []), *methods]
    return checked(kind, values, path)


def read_options(text: str) -> ModelOptions:
    """The model options in a text like "timeout=30,reasoning_effort=high", or in a YAML mapping in braces."""
    where = "--model-options"
    values: dict[str, Any] = {}
    if text.lstrip().startswith("{"):
        try:
            values = parsed(text)
        except ValueError as error:
            raise AgentevolveError(f"{where}: {error}") from None
    else:
        for change in text.split(","):
            _change(values, change)
    return checked(ModelOptions, values, where)


def read_price(text: str) -> Price:
    """The price in a text like "0.5,1.5" or "0.5,1.5,0.05": input, output and cached, in USD a million tokens."""
    names = ("input", "output", "cached")
    parts = text.split(",")
    if not 2 <= len(parts) <= 3:
        raise AgentevolveError(f"--price: {shown(text)} is not INPUT,OUTPUT or INPUT,OUTPUT,CACHED in dollars a million tokens")
    return checked(Price, dict(zip(names, parts, strict=False)), "--price")


def write_config(config: Config | Comparison, path: Path) -> None:
    """Write every setting as YAML, for `read_config`; the file is there whole or not at all."""
    write_whole(path, yaml.safe_dump(config.public(), sort_keys=False))


def _change(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise AgentevolveError(f"{shown(change)} is not of the form key=value, like finetune.epochs=3")
    try:
        value = parsed(text)
    except ValueError as error:
        raise AgentevolveError(f"{shown(change)}: the value is {error}") from None
    *groups, key = name.split(".")
    if len(groups) > DEEPEST:
        raise AgentevolveError(f"{shown(change)}: more than {DEEPEST} groups of settings inside each other")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise AgentevolveError(f"{shown(change)}: {cut(group)} is not a group of settings")
    values[key] = value
