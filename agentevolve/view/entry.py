"""An entry's page: what it says, where it came from, who was shown it, what it was worth, and what learnt from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentevolve.local.adapter import adapters_of
from agentevolve.memory import Ledger
from agentevolve.memory.credit import Credit, credits
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Entry, PolicyStamp
from agentevolve.view.attempts import MOST, PAGE
from agentevolve.view.figures import brief
from agentevolve.view.index import ReadIndex, Row
from agentevolve.view.memories import USES, span, uses_of
from agentevolve.view.rows import plain


def row_of(index: ReadIndex, id: str, seed: int | None) -> Row:
    """The entry of that id, in that seed or the first that has one. Raises AgentevolveError where no memory has it."""
    found = index.ask("SELECT * FROM entries WHERE id = ? AND (? IS NULL OR seed = ?) ORDER BY n", (plain(id), seed, seed))
    if not found:
        raise AgentevolveError(f"there is no entry {id[:200]!r} in this memory")
    return found[0]


def entry_page(index: ReadIndex, ledger: Ledger, row: Row) -> dict[str, Any]:
    """One entry whole: its text, sources, uses, credit; the note is the user's. Raises AgentevolveError if it was forgotten."""
    entry = _entry(ledger, row)
    uses = index.ask(f"SELECT n, id, turn, similarity, u_tokens, task, arm, round, outcome {USES} ORDER BY n, turn", _key(row))
    return {
        "row": {**dict(row), "uses": uses_of(index, row["id"], row["seed"])},
        "entry": entry.model_dump(mode="json", exclude={"lived"}),
        "sources": [_source(index, source, row["seed"]) for source in entry.sources[:MOST]],
        "uses": [dict(one) for one in uses[:PAGE]],
        "credit": credit_of(index, row).model_dump(),
        "gains": _gains(index, ledger, entry),
        "adapters": [path.name for path, info in _adapters(index, row["seed"]) if {*entry.sources} & {*info.sources}],
    }


def credit_of(index: ReadIndex, row: Row) -> Credit:
    """What the entry was worth so far: its uses against the same tasks without it."""
    id, seed = row["id"], row["seed"]
    shown = {one["n"] for one in index.ask(f"SELECT n {USES} AND turn = 0", (id, *span(seed)))}
    late = "n NOT IN (SELECT n FROM uses WHERE turn > 0)"
    query = f"SELECT * FROM attempts WHERE standing = 1 AND n >= ? AND n < ? AND {late} AND task IN (SELECT task {USES})"
    stamps: dict[str, PolicyStamp] = {}
    attempts = []
    for one in index.ask(query, (*span(seed), id, *span(seed))) if shown else []:
        attempts.append(brief(one, stamps).model_copy(update={"recalled": (id,) if one["n"] in shown else ()}))
    return credits(attempts).get(id, Credit())


def _key(row: Row) -> tuple[Any, ...]:
    return (row["id"], *span(row["seed"]))


def _entry(ledger: Ledger, row: Row) -> Entry:
    if row["state"] == "set aside":
        return next(one for one in ledger.aside() if one.id == row["id"])
    found = ledger.get(row["id"])
    if found is None:
        raise AgentevolveError(f"the entry {row['id'][:200]!r} was forgotten meanwhile")
    return found


def _source(index: ReadIndex, id: str, seed: int) -> dict[str, Any]:
    """A source, with what came of it where it is in the run."""
    found = index.ask("SELECT id, outcome, task, arm, round FROM attempts WHERE id = ? AND seed = ? AND standing = 1", (id, seed))
    return {"seed": seed, **dict(found[0])} if found else {"id": id, "outcome": ""}


def _gains(index: ReadIndex, ledger: Ledger, entry: Entry) -> list[dict[str, Any]]:
    """What the entry was worth by round, where that was written down."""
    [[last]] = index.ask("SELECT max(round) FROM entries")
    by_round = [(number, ledger.gain(entry.id, number)) for number in range(last + 2)]
    changes = zip([(0, 0.0), *by_round], by_round, strict=False)
    return [{"round": number, "gain": gain} for (_, before), (number, gain) in changes if gain != before]


def _adapters(index: ReadIndex, seed: int) -> list[tuple[Path, Any]]:
    return list(adapters_of(index.folders[seed]))
