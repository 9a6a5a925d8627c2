"""The `memory` commands: what a run remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentevolve.cli.options import Json, RunFolder
from agentevolve.cli.show import show
from agentevolve.given import shown
from agentevolve.protocols import AgentevolveError

if TYPE_CHECKING:
    from agentevolve.records import Entry

Folder = Annotated[Path, typer.Argument(help="A run or a memory folder.")]
Kind = Annotated[str | None, typer.Option(help="Only entries of this kind: demo, reflection, …")]
Env = Annotated[str | None, typer.Option(help="Only entries of this environment.")]
ORDERS = ("age", "kind", "round", "reward", "size", "uses")


def list_entries(
    folder: Folder,
    kind: Kind = None,
    env: Env = None,
    task: Annotated[str | None, typer.Option(help="Only entries about this task, or from attempts at it.")] = None,
    as_of: Annotated[int | None, typer.Option(help="As it was after this round.")] = None,
    sort: Annotated[str, typer.Option(help="By age, kind, round, reward, size or uses (of a run).")] = "age",
    as_json: Json = False,
) -> None:
    """List the entries, oldest first, or in another order."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_entries
    from agentevolve.memory.folder import memory_folder

    if sort not in ORDERS:
        raise AgentevolveError(f"--sort: {shown(sort)} is not known; known: {', '.join(ORDERS)}")
    found = read_entries(memory_folder(folder), as_of=as_of, kind=kind, env=env)
    found = [one for one in found if task is None or one.about(task)]
    used = _used(folder) if sort == "uses" else {}
    orders: dict[str, Callable[[Entry], Any]] = {
        "kind": lambda one: one.kind,
        "round": lambda one: one.round,
        "reward": lambda one: -one.reward,
        "size": lambda one: -len(one.text),
        "uses": lambda one: -used.get(one.id, 0),
    }
    found = sorted(found, key=orders[sort]) if sort in orders else found
    show([entry.model_dump(mode="json") for entry in found], as_json, lambda: tables.entries(found))


def _used(folder: Path) -> Counter[str]:
    """How many attempts of the run were shown each entry."""
    from agentevolve.memory.lineage import runs_of

    return Counter(id for run in runs_of(folder) for one in run.attempts().values() for id in one.recalled)


def show_entry(
    folder: Folder,
    id: Annotated[str, typer.Argument(help="An entry's id, as `memory list` prints it.")],
    as_json: Json = False,
) -> None:
    """Show one entry whole, with the trajectories it came from and your note on it."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_ledger
    from agentevolve.memory.folder import memory_folder

    ledger = read_ledger(memory_folder(folder))
    entry, known = ledger.get(id), ledger.entries()
    if entry is None or ledger.state(entry.id) == "retired":
        raise AgentevolveError(f"{folder}: no entry {shown(id)}; the {len(known)} known ids: agentevolve memory list {folder}")
    held, note = ledger.quarantined(entry.id), ledger.annotation(entry.id)
    beside = {"in quarantine": f"since round {held[0]}: {held[1]}"} if held else {}
    beside |= {"note": note} if note else {}
    show({**entry.model_dump(mode="json"), **beside}, as_json, lambda: tables.entry(entry, beside))


def search(
    folder: Folder,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option(min=1, help="How many entries.")] = 5,
    kind: Kind = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Find the entries nearest to a text, by the meaning of their keys and by the words of their keys and texts."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_memory
    from agentevolve.memory.folder import memory_folder

    with read_memory(memory_folder(folder)) as memory:
        found = memory.search(query, k, kind=kind, env=env)
    rows = [{"similarity": similarity, **entry.model_dump(mode="json")} for entry, similarity in found]
    show(rows, as_json, lambda: tables.found(found))


def why(
    folder: RunFolder,
    attempt: Annotated[str, typer.Argument(help="An attempt's id, or ID:TURN for what was recalled after that turn.")],
    as_json: Json = False,
) -> None:
    """Why an attempt was shown what it was: each entry that was thought of, its similarity and tokens, or why it was left out."""
    from agentevolve.cli import tables
    from agentevolve.memory.lineage import why

    found = why(folder, attempt)
    show([one.model_dump(mode="json") for one in found], as_json, lambda: tables.thoughts(found))


def trace(
    folder: RunFolder,
    id: Annotated[str, typer.Argument(help="An entry's id, as `memory list` prints it.")],
    as_json: Json = False,
) -> None:
    """Where an entry came from, every use with its outcome, and which adapters learnt from its sources."""
    from agentevolve.cli import tables
    from agentevolve.memory.lineage import trace

    found = trace(folder, id)
    show(found.model_dump(mode="json"), as_json, lambda: tables.lineage(found))


def diff(
    folder: Folder,
    before: Annotated[int, typer.Argument(help="A round.")],
    after: Annotated[int, typer.Argument(help="Another round.")],
    as_json: Json = False,
) -> None:
    """What came into the memory and what went from the end of one round to the end of another, and why."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_ledger
    from agentevolve.memory.folder import memory_folder
    from agentevolve.memory.lineage import changes

    found = changes(read_ledger(memory_folder(folder)), before, after)
    show([one.model_dump(mode="json") for one in found], as_json, lambda: tables.changes(found))


def forget(
    folder: RunFolder,
    id: Annotated[str, typer.Argument(help="The id of an attempt or an entry.")] = "",
    task: Annotated[str, typer.Option(help="Everything about this task.")] = "",
    before: Annotated[int | None, typer.Option(help="Everything of the rounds before this one.")] = None,
    as_json: Json = False,
) -> None:
    """Take an attempt or an entry, and all derived from it, out of every file of a run; name the adapters that learnt from it."""
    from agentevolve.cli import tables
    from agentevolve.memory.forget import forget

    if sum([bool(id), bool(task), before is not None]) != 1:
        raise AgentevolveError("name one thing to forget: an id, --task or --before")
    found = forget(folder, id=id, task=task, before=before)
    show([one.model_dump(mode="json") for one in found], as_json, lambda: tables.forgotten(found))


def export(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="A new file.")],
    kind: Kind = None,
    env: Env = None,
    as_of: Annotated[int | None, typer.Option(help="As it was after this round.")] = None,
) -> None:
    """Write the entries, or some of them, into one file."""
    from agentevolve.memory.folder import memory_folder
    from agentevolve.memory.move import write_entries

    count = write_entries(memory_folder(folder), file, as_of=as_of, kind=kind, env=env)
    print(f"{file}: {count} entries")


def import_entries(
    folder: Annotated[Path, typer.Argument(help="A memory folder, there or new, or a run that has one.")],
    source: Annotated[Path, typer.Argument(help="An exported file, or another memory's folder.")],
    vouch: Annotated[bool, typer.Option("--vouch", help="Take in what your key has not signed, too, and sign it.")] = False,
    as_json: Json = False,
) -> None:
    """Add the entries of an exported file or another memory."""
    from agentevolve.memory import open_memory
    from agentevolve.memory.folder import memory_folder
    from agentevolve.memory.move import take_in

    place = memory_folder(folder) if folder.exists() else folder
    with open_memory(place) as memory:
        found = take_in(memory, source, vouched=vouch)
    more = f", {found.unsigned} left out: your key has not signed them (look at them, then --vouch)" if found.unsigned else ""
    show(found.model_dump(mode="json"), as_json, lambda: [f"{folder}: {found.added} added, {found.known} known already{more}"])


def audit(folder: Folder, as_json: Json = False) -> None:
    """List what is odd: entries that your key has not signed, orders, markers, addresses, coded or invisible text, secrets."""
    from agentevolve.cli import tables
    from agentevolve.memory import read_ledger
    from agentevolve.memory.audit import audit
    from agentevolve.memory.folder import memory_folder

    found = audit(read_ledger(memory_folder(folder)))
    show([one.model_dump(mode="json") for one in found], as_json, lambda: tables.findings(found))


def curate(
    folder: RunFolder,
    budget: Annotated[int | None, typer.Option(min=1, help="Entries that a world keeps.")] = None,
    alike: Annotated[
        float, typer.Option(min=0.0, help="Cosine of two texts from which they are merged (above 1: never).")
    ] = 0.97,
    as_json: Json = False,
) -> None:
    """Retire what credibly does harm, merge what says nearly the same, and keep a world's memory within a budget."""
    from agentevolve.cli import tables
    from agentevolve.memory import open_memory
    from agentevolve.memory.curate import curate
    from agentevolve.memory.folder import memory_folder
    from agentevolve.memory.lineage import runs_of

    done = []
    for run in runs_of(folder):
        with open_memory(memory_folder(run.folder), create=False) as memory:
            last = max((one.round for one in memory.entries()), default=1)
            done += curate(memory, run.trajectories.values(), last, alike=alike, budget=budget)
    show([one.model_dump(mode="json") for one in done], as_json, lambda: tables.curated(done))


def serve(
    folder: Folder,
    http: Annotated[int | None, typer.Option(min=1, max=65535, help="A port of 127.0.0.1 (default: stdio).")] = None,
) -> None:
    """Serve the memory, for reading, to MCP clients: search_memory, show_entry, why."""
    from agentevolve.doors.mcp import server

    made = server(folder)
    if http is None:
        made.run("stdio")
    else:
        made.run("streamable-http", host="127.0.0.1", port=http)


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
