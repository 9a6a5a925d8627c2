"""The `memory` commands: what a run remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentevolve.cli.options import Json
from agentevolve.cli.show import show
from agentevolve.given import shown
from agentevolve.protocols import AgentevolveError

Folder = Annotated[Path, typer.Argument(help="A run or a memory folder.")]


def list_entries(
    folder: Folder,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind: demo, reflection, …")] = None,
    as_of: Annotated[int | None, typer.Option(help="As it was after this round.")] = None,
    as_json: Json = False,
) -> None:
    """List the entries, oldest first."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_entries
    from agentevolve.memory.folder import memory_folder

    found = read_entries(memory_folder(folder), as_of=as_of, kind=kind)
    show([entry.model_dump(mode="json") for entry in found], as_json, lambda: tables.entries(found))


def show_entry(
    folder: Folder,
    id: Annotated[str, typer.Argument(help="An entry's id, as `memory list` prints it.")],
    as_json: Json = False,
) -> None:
    """Show one entry whole, with the trajectories it came from."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_entries
    from agentevolve.memory.folder import memory_folder

    known = {one.id: one for one in read_entries(memory_folder(folder))}
    if id not in known:
        raise AgentevolveError(f"{folder}: no entry {shown(id)}; the {len(known)} known ids: agentevolve memory list {folder}")
    show(known[id].model_dump(mode="json"), as_json, lambda: tables.entry(known[id]))


def search(
    folder: Folder,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option(min=1, help="How many entries.")] = 5,
    as_json: Json = False,
) -> None:
    """Find the entries whose keys are nearest to a text, with their cosine similarity."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_memory
    from agentevolve.memory.folder import memory_folder

    with read_memory(memory_folder(folder)) as memory:
        found = memory.search(query, k)
    rows = [{"similarity": similarity, **entry.model_dump(mode="json")} for entry, similarity in found]
    show(rows, as_json, lambda: tables.found(found))


def stats(folder: Folder, as_json: Json = False) -> None:
    """Count the entries by kind, environment and round."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_stats
    from agentevolve.memory.folder import memory_folder

    found = read_stats(memory_folder(folder))
    show(found, as_json, lambda: tables.stats(found))


def rebuild(folder: Folder) -> None:
    """Delete the search index and build it again from the journal."""
    from agentevolve.memory import open_memory
    from agentevolve.memory.folder import memory_folder

    with open_memory(memory_folder(folder), create=False) as memory:
        print(f"{folder}: {memory.rebuild()} keys indexed")
