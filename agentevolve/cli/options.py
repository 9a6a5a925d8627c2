"""Options that several commands share, each said once: single ones, and groups that a command takes as one object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from agentevolve.cli.folders import named_folder


def finite(value: float | None) -> float | None:
    """The number. Raises typer.BadParameter, as for any number out of range, when it is none or has no end."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Seed = Annotated[int, typer.Option(help="The seed that every random choice comes from.")]
Config = Annotated[Path, typer.Argument(help="A YAML file, such as examples/quickstart.yaml or examples/compare.yaml.")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.")]
Changes = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as rounds=2 seeds=[0,1] train.tasks=20.")
]


@dataclass(frozen=True)
class PolicyOptions:
    """What acts, and how it is asked."""

    model: Annotated[str, typer.Option(help="local/NAME, random, oracle, or a LiteLLM name such as openai/gpt-5-mini.")]
    memory: Annotated[Path | None, typer.Option(help="Recall from this memory or run folder (it is not changed).")] = None
    adapter: Annotated[Path | None, typer.Option(help="A fine-tuned adapter's folder.")] = None
    api_base: Annotated[str | None, typer.Option(help="The address of an OpenAI-compatible server.")] = None
    model_options: Annotated[
        str | None,
        typer.Option(help="How it is called: timeout=30,tries=5,max_tokens=2048,reasoning_effort=high, or a YAML mapping."),
    ] = None
    price: Annotated[str | None, typer.Option(help="INPUT,OUTPUT[,CACHED] in dollars a million tokens.")] = None
    temperature: Annotated[float, typer.Option(min=0.0, callback=finite, help="Sampling temperature.")] = 0.7
    show_actions: Annotated[bool, typer.Option(help="List the admissible actions in the prompt.")] = True
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the local engine (default: all cores).")] = None


@dataclass(frozen=True)
class TaskOptions:
    """Which tasks are attempted, and how often."""

    split: Annotated[str, typer.Option(help="train, val or test.")] = "val"
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None
    samples: Annotated[int, typer.Option(min=1, help="Attempts at each task.")] = 1
    workers: Annotated[int, typer.Option(min=1, help="Attempts side by side.")] = 4
    on: Annotated[str, typer.Option(help="Where they are made: threads of this process, or the nodes of a ray cluster.")] = (
        "threads"
    )
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster's head, HOST:PORT or auto (default: a cluster of this machine alone).")
    ] = None
    seed: Seed = 0


@dataclass(frozen=True)
class LimitOptions:
    """What may be spent."""

    max_tokens: Annotated[int | None, typer.Option(min=1, help="Stop before the call that would pass this many tokens.")] = None
    max_usd: Annotated[
        float | None, typer.Option(min=0.0, callback=finite, help="Stop before the call that would pass this many dollars.")
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """Where it is kept and how it is shown."""

    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_folder,
            metavar="<path>",
            help="The folder to keep it in (default: a new one under runs/). `run` goes on with one.",
        ),
    ] = None
    as_json: Json = False
    quiet: Quiet = False


@dataclass(frozen=True)
class RoundsOptions(RunOptions):
    """As `RunOptions`, for what takes rounds."""

    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out; nothing finished is done again.")] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only forecast attempts, tokens, dollars and time, from a probe on three train tasks."),
    ] = False


@dataclass(frozen=True)
class TrainOptions:
    """How a fine-tuning goes."""

    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 2
    learning_rate: Annotated[float, typer.Option(min=0.0, callback=finite, help="The peak learning rate.")] = 5e-4
    max_length: Annotated[int, typer.Option(min=2, help="Tokens after which a row is cut.")] = 2048
    seed: Seed = 0


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command as typer takes it: a parameter that is a group of options gives way to the options in it."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    def called(**given: Any) -> Any:
        made = {name: kind(**{part: given.pop(part) for part in signature(kind).parameters}) for name, kind in groups.items()}
        return command(**given, **made)

    def options(name: str, one: Parameter) -> list[Parameter]:
        inner = signature(groups[name]).parameters.values() if name in groups else [one]
        known = get_type_hints(groups.get(name, command), include_extras=True)
        return [part.replace(kind=Parameter.KEYWORD_ONLY, annotation=known[part.name]) for part in inner]

    found = [part for name, one in signature(command).parameters.items() for part in options(name, one)]
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = Signature(found)  # type: ignore[attr-defined]
    called.__annotations__ = {part.name: part.annotation for part in found}
    return called
