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


def models(as_json: Json = False) -> None:
    """List the local models that need no key, and how to name any other."""
    from agentevolve.cli import tables
    from agentevolve.local import catalog

    rows = [{"model": f"local/{name}", "cached": catalog.is_cached(name)} for name in catalog.names()]
    show(rows, as_json, lambda: tables.models(rows))


def methods(name: Annotated[str | None, typer.Argument(help="A method's name.")] = None, as_json: Json = False) -> None:
    """List the survey's methods that are here and their cells, or show one: its steps, settings, source and deviations."""
    from agentevolve import survey
    from agentevolve.cli import tables

    chosen = [survey.described(name)] if name else survey.all_methods()
    values = [one._asdict() | {"settings": {key: str(value) for key, value in one.settings.items()}} for one in chosen]
    show(values, as_json, lambda: tables.method(chosen[0]) if name else tables.methods(chosen))
