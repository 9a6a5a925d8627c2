"""Where what is remembered comes from, where it went, and why it was shown: over a run's journal and its memory's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentevolve.given import shown
from agentevolve.local.adapter import adapters_of
from agentevolve.memory.folder import memory_folder
from agentevolve.memory.ledger import Ledger
from agentevolve.memory.store import read_ledger
from agentevolve.protocols import AgentevolveError
from agentevolve.records import Looked, Record, Trajectory
from agentevolve.run.folder import Run, read_run, seeds


class Thought(Record):
    """An entry that an attempt's look into memory thought of, and what it says (empty: it is not in this memory)."""

    looked: Looked
    kind: str
    text: str


class Use(Record):
    """An attempt that was shown an entry, and what came of it."""

    trajectory: str
    task: str
    arm: str
    at: str
    similarity: float | None
    tokens: int
    solved: bool
    lost: bool


class Lineage(Record):
    """Where an entry came from (`known`: what of it is in the run), its uses, the adapters that learnt from its sources."""

    id: str
    sources: tuple[str, ...]
    known: tuple[str, ...]
    round: int
    retired: int | None
    why: str
    uses: tuple[Use, ...]
    adapters: tuple[str, ...]


class Change(Record):
    """What became of an entry between two rounds."""

    id: str
    kind: str
    what: str
    round: int
    why: str
    text: str


def runs_of(place: Path) -> list[Run]:
    """The runs at `place`, one a seed, for reading. Raises AgentevolveError if there is none."""
    return [read_run(folder) for folder in seeds(place)]


def why(place: Path, attempt: str) -> list[Thought]:
    """What the attempt of that id, or at its turn in `id:turn` (from 1), thought of, shown ones first, with the reasons.

    Raises AgentevolveError for an attempt or a turn that is not in the run at `place`.
    """
    run, one, turn = _attempt(place, attempt)
    if turn is None:
        looked: Iterable[Looked] = one.looked
    elif 1 <= turn <= len(one.turns):
        looked = one.turns[turn - 1].looked
    else:
        raise AgentevolveError(f"{attempt}: it has turns 1 to {len(one.turns)}")
    ledger = _ledger(run)
    told = [(item, ledger.get(item.id) if ledger else None) for item in looked]
    return [Thought(looked=item, kind=entry.kind if entry else "", text=entry.text if entry else "") for item, entry in told]


def trace(place: Path, id: str) -> Lineage:
    """The lineage of the entry of that id. Raises AgentevolveError if it is in no memory of the run at `place`."""
    for run in runs_of(place):
        ledger = _ledger(run)
        entry = ledger.get(id) if ledger else None
        if ledger and entry:
            attempts = run.attempts()  # all are read, one after the other: what they looked at is in them alone
            gone = ledger.gone(entry.id)
            return Lineage(
                id=entry.id,
                sources=entry.sources,
                known=tuple(source for source in entry.sources if source in attempts),
                round=entry.round,
                retired=gone[0] if gone else None,
                why=gone[1] if gone else "",
                uses=tuple(use for one in attempts.values() for use in _uses(one, entry.id)),
                adapters=tuple(path.name for path, info in adapters_of(run.folder) if {*entry.sources} & {*info.sources}),
            )
    raise AgentevolveError(f"{place}: no entry {shown(id)}; the known ids: agentevolve memory list {place}")


def changes(ledger: Ledger, before: int, after: int) -> list[Change]:
    """What came and what went from the end of round `before` to the end of round `after`, oldest first."""
    found = []
    for entry in ledger.all():
        there = [ledger.present(entry, before), ledger.present(entry, after)]
        gone = ledger.gone(entry.id)
        held = ledger.quarantined(entry.id, after)
        if there == [False, True]:
            what, round = ("added", entry.round) if entry.round > before else ("restored", ledger.stance(entry.id, after)[0])
            found.append(Change(id=entry.id, kind=entry.kind, what=what, round=round, why="", text=entry.text))
        elif there == [True, False] and held:
            found.append(Change(id=entry.id, kind=entry.kind, what="quarantined", round=held[0], why=held[1], text=entry.text))
        elif there == [True, False] and gone:
            found.append(Change(id=entry.id, kind=entry.kind, what="retired", round=gone[0], why=gone[1], text=entry.text))
    return found


def _attempt(place: Path, named: str) -> tuple[Run, Trajectory, int | None]:
    runs = runs_of(place)
    for run in runs:
        attempts = run.attempts()
        if named in attempts:
            return run, attempts[named], None
        id, _, turn = named.rpartition(":")
        if turn.isdecimal() and id in attempts:
            return run, attempts[id], int(turn)
    some = next((id for run in runs for id, one in run.attempts().items() if one.recalled), "")
    hint = f"; one that recalled something is {some}" if some else "; none recalled anything"
    raise AgentevolveError(f"{place}: no attempt {shown(named)}{hint}")


def _ledger(run: Run) -> Ledger | None:
    try:
        return read_ledger(memory_folder(run.folder))
    except AgentevolveError:
        if (run.folder / "memory").exists():
            raise
        return None


def _uses(one: Trajectory, id: str) -> list[Use]:
    looks = [("start", one.looked), *((f"turn {n}", turn.looked) for n, turn in enumerate(one.turns, 1))]
    return [
        Use(
            trajectory=one.id,
            task=one.task.id,
            arm=one.phase,
            at=at,
            similarity=item.similarity,
            tokens=item.tokens,
            solved=one.solved,
            lost=one.lost,
        )
        for at, looked in looks
        for item in looked
        if item.id == id and item.shown
    ]
