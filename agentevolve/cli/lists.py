"""What there is: the commands `tasks`, `models` and `methods`."""

from __future__ import annotations

from typing import Annotated

import typer

from agentevolve.cli.options import Json
from agentevolve.cli.show import show


def tasks(
    name: Annotated[str | None, typer.Argument(help="A task set's name or YAML file.")] = None, as_json: Json = False
) -> None:
    """List the task sets, or show one: its environment, splits, settings, and what random and oracle reach."""
    from agentevolve.cli import tables
    from agentevolve.load import load_task_set, task_sets

    chosen = [load_task_set(name)] if name else list(task_sets().values())
    show([one.model_dump(mode="json") for one in chosen], as_json, lambda: tables.task_sets(chosen, detailed=bool(name)))


def models(
    name: Annotated[str | None, typer.Argument(help="A local model's name: measure it here, fetching it if need be.")] = None,
    as_json: Json = False,
) -> None:
    """List the local models that need no key, and how to name any other; or measure how fast one is on this machine."""
    from agentevolve.cli import tables
    from agentevolve.local import catalog
    from agentevolve.models import speed
    from agentevolve.protocols import AgentevolveError

    chosen = [name.removeprefix("local/")] if name else catalog.names()
    if unknown := [one for one in chosen if one not in catalog.CATALOG]:
        raise AgentevolveError(f"unknown local model {unknown[0]!r}; known: {', '.join(catalog.names())}")
    rows = []
    for one in chosen:
        found, source = speed.measure(one) if name else speed.known(one), catalog.CATALOG[one]
        about = {"licence": source.licence, "bytes": source.size, "cached": catalog.is_cached(one)}
        rows.append({"model": f"local/{one}", **about, "speed": found.model_dump() if found else None})
    show(rows, as_json, lambda: tables.models(rows))


def methods(name: Annotated[str | None, typer.Argument(help="A method's name.")] = None, as_json: Json = False) -> None:
    """List the survey's methods that are here and their cells, or show one: its steps, settings, source and deviations."""
    from agentevolve import survey
    from agentevolve.cli import tables

    chosen = [survey.described(name)] if name else survey.all_methods()
    values = [one._asdict() | {"settings": {key: str(value) for key, value in one.settings.items()}} for one in chosen]
    show(values, as_json, lambda: tables.method(chosen[0]) if name else tables.methods(chosen))
