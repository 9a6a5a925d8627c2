"""From a name to a thing: "package.module:Attribute", a shipped environment, a task set and its tasks.

An environment's name is that of a shipped one ("textworld_express"), of one of those with the world behind it that it is the door
to ("openenv:http://127.0.0.1:8000"), or of anybody's own ("package.module:Attribute").
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.util import find_spec
from inspect import getdoc, signature
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_type_hints

from pydantic import ConfigDict, Field, JsonValue, StrictInt, create_model, model_validator

from agentevolve.given import AGAIN, checked, cut, read_yaml, shown
from agentevolve.protocols import AgentevolveError, Environment
from agentevolve.records import Record, Split, Task

DOORS = {"openenv": "URL", "verifiers": "NAME"}  # shipped environments that are doors to others, and what names those
FINITE = ConfigDict(allow_inf_nan=False)
SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=())


class Seeds(Record):
    """The seeds of one split: from `seeds[0]` up to but not including `seeds[1]`, both ≥ 0."""

    seeds: tuple[StrictInt, StrictInt]

    @model_validator(mode="after")
    def _rising(self) -> Seeds:
        if not 0 <= self.seeds[0] < self.seeds[1]:
            raise ValueError(f"{list(self.seeds)} is not [first, first after the last] with 0 ≤ first < last")
        return self


class Measured(Record):
    """How often an arm that learns nothing solves the tasks: `success` of `n` tasks in [0, 1], with a 95% Wilson interval.

    `actions` is the mean number of admissible actions or tools a step (0: free text).
    """

    model_config = FINITE

    arm: Literal["random", "oracle"]
    split: Split
    n: StrictInt
    success: float
    low: float
    high: float
    actions: float = 0.0
    command: str


class TaskSet(Record):
    """Tasks of one kind: an environment, its settings (each task's `data`) and the seeds of each split.

    `misses` says which tasks the oracle does not solve: ids by the reason.
    """

    model_config = FINITE

    name: str
    about: str
    env: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    splits: dict[Split, Seeds]
    licence: str
    misses: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    measured: tuple[Measured, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> TaskSet:
        if not self.splits:
            raise ValueError("splits is empty; known: train, val, test")
        for (one, a), (other, b) in combinations(self.splits.items(), 2):
            if max(a.seeds[0], b.seeds[0]) < min(a.seeds[1], b.seeds[1]):
                raise ValueError(f"splits {one} {list(a.seeds)} and {other} {list(b.seeds)} share seeds")
        return self


def load(name: str) -> Any:
    """The object that "package.module:Attribute" names. Raises AgentevolveError when there is none."""
    module_name, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise AgentevolveError(f"{shown(name)} is not of the form package.module:Attribute")
    found: Any = _import(module_name, shown(name))
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = ", ".join(known for known in dir(found) if not known.startswith("_"))
            raise AgentevolveError(
                f"{shown(name)}: there is no {shown(part, AGAIN)} in {cut(module_name, AGAIN)}; known: {public}"
            )
        found = getattr(found, part)
    return found


def load_environment(name: str) -> Callable[[], Environment]:
    """What makes an environment: `name` is a shipped one or "package.module:Attribute", which is called without arguments.

    Raises AgentevolveError on an unknown name (it lists the known ones) or a missing package (it says what to install).
    """
    if missing := [one for one in needs(name) if find_spec(one) is None]:
        raise AgentevolveError(f'environment {shown(name)} needs {", ".join(missing)}: pip install "agentevolve[{extra(name)}]"')
    make = load(name) if _own(name) else getattr(_environment_module(name), "make", None)
    if not callable(make):
        raise AgentevolveError(f"environment {shown(name)} cannot be called to make an environment")
    return functools.partial(_made, name, functools.partial(make, *_behind(name)))


def _made(name: str, make: Callable[[], object]) -> Environment:
    """A new environment. Raises AgentevolveError when `make` makes something else."""
    found = make()
    if not isinstance(found, Environment):
        absent = [part for part in ("reset", "step", "oracle", "close") if not hasattr(found, part)]
        kind = type(found).__name__
        raise AgentevolveError(f"environment {shown(name)}: it makes a {kind}, which has no {', '.join(absent)}")
    return found


def needs(name: str) -> tuple[str, ...]:
    """The modules that the shipped environment `name` imports from packages of its extra; none for one of the core."""
    return () if _own(name) else tuple(getattr(_environment_module(name), "NEEDS", ()))


def extra(name: str) -> str:
    """The extra that brings what environment `name` needs: its own name; empty for one of the core, or somebody else's."""
    return name.partition(":")[0].replace("_", "-") if needs(name) else ""


def ready(task_set: TaskSet) -> None:
    """Raise AgentevolveError when what the task set needs is not on this machine: a package, a program, or the user's data."""
    make = load_environment(task_set.env)
    if _own(task_set.env):
        _try_out(make)
    absent = None if _own(task_set.env) else getattr(_environment_module(task_set.env), "absent", None)
    if absent and (why := absent(task_set.settings, *_behind(task_set.env))):
        raise AgentevolveError(f"task set {task_set.name!r}: {why}")


def _try_out(make: Callable[[], Environment]) -> None:
    """Make somebody else's environment once, to see that it is one; that it breaks is told of each attempt."""
    try:
        make().close()
    except AgentevolveError:
        raise
    except (Exception, SystemExit):
        return


def check_settings(env: str, settings: dict[str, Any]) -> None:
    """Raise AgentevolveError when the environment's own `check`, if it has one, refuses these settings; nothing is started."""
    if check := getattr(_environment_module(env), "check", None):
        check(settings, *_behind(env))


def manual(env: str) -> str:
    """What the environment says of itself: description, settings, actions, reward, end; not how its splits are cut."""
    described = load(env) if _own(env) else _environment_module(env)
    return (getdoc(described) or "").partition("\nSplits")[0].strip()


def methods() -> list[str]:
    """The names of the shipped methods."""
    return _modules("agentevolve.methods")


def load_method(name: str, settings: Mapping[str, Any]) -> functools.partial[Any]:
    """The method `name`, a shipped one or "package.module:function", with `settings` bound to its keyword parameters.

    Raises AgentevolveError on an unknown name or setting (it lists the known ones), or a value of the wrong kind.
    """
    if ":" in name:
        method = load(name)
    elif name in methods():
        method = getattr(importlib.import_module(f"agentevolve.methods.{name}"), name)
    else:
        raise AgentevolveError(f"unknown method {shown(name)}; known: {', '.join(methods())}; or package.module:function")
    what = f"method {shown(name)}"
    try:
        hints, takes = get_type_hints(method, include_extras=True), signature(method)
        takes.bind("policy", "tasks", "run")
    except (TypeError, ValueError, NameError) as error:
        raise AgentevolveError(f"{what} is no function of (policy, tasks, run): {cut(error)}") from None
    known = {one.name: (hints.get(one.name, Any), None) for one in takes.parameters.values() if one.kind is one.KEYWORD_ONLY}
    given = checked(create_model("Given", __config__=SETTINGS, **cast(Any, known)), settings, what)
    return functools.partial(method, **{setting: getattr(given, setting) for setting in given.model_fields_set})


def environments() -> list[str]:
    """The names of the shipped environments."""
    return _modules("agentevolve.environments")


def task_sets() -> dict[str, TaskSet]:
    """The shipped task sets by name."""
    return {name: _parse(path) for name, path in _shipped().items()}


def load_task_set(name_or_path: str | Path) -> TaskSet:
    """A shipped task set by its name, or any by the path of its YAML file.

    Raises AgentevolveError with one line that names the file, the field and the known values.
    """
    name = str(name_or_path)
    shipped = _shipped()
    if name in shipped:
        return _parse(shipped[name])
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise AgentevolveError(f"unknown task set {shown(name)}; known: {', '.join(shipped)}; or the path of a .yaml file")
    return _parse(path)


def tasks_of(task_set: TaskSet, split: str, limit: int | None = None, start: int = 0) -> list[Task]:
    """The tasks of a split in the order of their seeds: `limit` of them (None: all; fewer if there are fewer) from the `start`th.

    A task's id is "name/split/seed". Raises AgentevolveError on an unknown split or a negative or fractional number.
    """
    known = cast(dict[str, Seeds], task_set.splits)
    if split not in known:
        raise AgentevolveError(f"task set {task_set.name!r} has no split {shown(split)}; known: {', '.join(known)}")
    for word, number in (("limit", limit), ("start", start)):
        if number is not None and (type(number) is not int or number < 0):
            raise AgentevolveError(f"task set {task_set.name!r}: {word} is {shown(number)}, not a whole number from 0")
    chosen = range(*known[split].seeds)[start:]
    return [_task(task_set, cast(Split, split), seed) for seed in chosen[:limit]]


def _task(task_set: TaskSet, split: Split, seed: int) -> Task:
    name = f"{task_set.name}/{split}/{seed}"
    return Task(id=name, env=task_set.env, split=split, seed=seed, data=dict(task_set.settings))


def _modules(package: str) -> list[str]:
    found = (Path(str(entry)) for entry in files(package).iterdir())
    return sorted(path.stem for path in found if path.suffix == ".py" and not path.stem.startswith("_"))


def _own(name: str) -> bool:
    """Whether this names somebody's own environment, not a shipped one."""
    return ":" in name and name.partition(":")[0] not in DOORS


def _behind(name: str) -> tuple[str, ...]:
    """What the environment is the door to, where it is one. Raises AgentevolveError where that is not said."""
    door, _, world = name.partition(":")
    if door in DOORS and not world.strip():
        raise AgentevolveError(f"environment {shown(name)} does not say which: {door}:{DOORS[door]}")
    return (world.strip(),) if door in DOORS else ()


def _environment_module(name: str) -> ModuleType:
    head = name.partition(":")[0]
    if _own(name):
        return _import(head, f"environment {shown(name)}")
    if head not in environments():
        known = ", ".join(f"{one}:{DOORS[one]}" if one in DOORS else one for one in environments())
        raise AgentevolveError(f"unknown environment {shown(name)}; known: {known}; or package.module:Attribute")
    return _import(f"agentevolve.environments.{head}", f"environment {head!r}")


def _import(module: str, what: str) -> ModuleType:
    try:  # what it prints is no result of ours
        with contextlib.nullcontext() if module in sys.modules else contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise AgentevolveError(f"{what}: there is no module {shown(missing, AGAIN)}; is its folder on PYTHONPATH?") from None
        if missing.startswith("agentevolve"):
            raise
        package = missing.partition(".")[0].replace("_", "-")
        raise AgentevolveError(f"{what} needs a package that is not installed: pip install {cut(package)}") from None
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise AgentevolveError(f"{what}: the module {cut(module, AGAIN)} fails when it is imported: {cut(why)}") from None


def _shipped() -> dict[str, Path]:
    found = (Path(str(entry)) for entry in files("agentevolve.tasks").iterdir())
    return {path.stem: path for path in sorted(found) if path.suffix == ".yaml"}


def _parse(path: Path) -> TaskSet:
    task_set = checked(TaskSet, read_yaml(path, TaskSet), path)
    try:
        check_settings(task_set.env, task_set.settings)
    except AgentevolveError as error:
        raise AgentevolveError(f"{path}: {error}") from None
    return task_set
