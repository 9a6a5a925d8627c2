"""Curation: what does harm retires, what says nearly the same becomes one, and a world keeps no more than it may.

Nothing is deleted: an entry that goes is retired, with the reason, and earlier rounds still recall it. What each entry was worth
is written into the memory beside it, so that recall can rank by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count

from agentevolve.memory.credit import Credit, credits
from agentevolve.memory.store import EntryMemory
from agentevolve.records import Entry, Record, Trajectory

ALIKE = 0.97  # cosine of two texts from which they say nearly the same


class Curated(Record):
    """What became of an entry, and why; `merged` is the new entry that stands for it and others."""

    id: str
    what: str
    why: str
    merged: str = ""


def curate(
    memory: EntryMemory,
    attempts: Iterable[Trajectory],
    round: int,
    *,
    alike: float = ALIKE,
    budget: int | None = None,
) -> list[Curated]:
    """Curate the memory with what the attempts tell, as of `round`: harmful entries, near-duplicates, then what is over budget.

    `alike` is the cosine of two texts of one kind and world from which they are merged (above 1: none are); `budget` the number
    of entries that a world keeps, those with the greatest gain, the youngest of equals.
    """
    worth = credits(attempts)
    memory.note({id: one.gain for id, one in worth.items()}, round)
    done = [
        _retired(memory, one, round, _harm(worth[one.id])) for one in memory.entries(round) if worth.get(one.id, Credit()).harmful
    ]
    for env, kind in dict.fromkeys((one.env, one.kind) for one in memory.entries(round)):
        done += _merged(memory, memory.entries(round, kind, env), worth, round, alike)
    for env in dict.fromkeys(one.env for one in memory.entries(round)) if budget is not None else ():
        held = memory.entries(round, env=env)
        kept = {one.id for one in sorted(held, key=lambda one: (-_gain(one, worth), -one.round, one.id))[:budget]}
        done += [_retired(memory, one, round, f"over the budget of {budget}") for one in held if one.id not in kept]
    return done


def _gain(one: Entry, worth: Mapping[str, Credit]) -> float:
    return worth[one.id].gain if one.id in worth else 0.0


def _harm(credit: Credit) -> str:
    return f"does harm: {credit.solved} of {credit.uses} solved with it, {credit.without:.0%} without (P = {credit.harm:.3f})"


def _retired(memory: EntryMemory, one: Entry, round: int, why: str) -> Curated:
    memory.retire(one.id, round, why)
    return Curated(id=one.id, what="retired", why=why)


def _merged(memory: EntryMemory, held: Sequence[Entry], worth: Mapping[str, Credit], round: int, alike: float) -> list[Curated]:
    """Entries that say nearly the same give way to one that has the best one's text and all their sources."""
    import numpy as np

    done: list[Curated] = []
    if len(held) < 2 or alike > 1:
        return done
    rows = memory.vectors([one.text for one in held])
    left = list(range(len(held)))
    while left:
        first, *rest = left
        near = np.einsum("ij,j->i", rows[rest], rows[first]) if rest else np.zeros(0)
        group = [
            first,
            *(place for place, like in zip(rest, near, strict=True) if like >= alike and _about(held[place], held[first])),
        ]
        left = [place for place in left if place not in group]
        if len(group) > 1:
            done += _as_one(memory, [held[place] for place in group], worth, round)
    return done


def _about(one: Entry, other: Entry) -> bool:
    """Whether both are about the same: lessons about two tasks stay two."""
    return one.task == other.task and one.counts == other.counts


def _as_one(memory: EntryMemory, group: Sequence[Entry], worth: Mapping[str, Credit], round: int) -> list[Curated]:
    best = max(group, key=lambda one: (_gain(one, worth), one.reward, -one.round))
    sources = tuple(dict.fromkeys(source for one in group for source in one.sources))
    stem = f"{best.id.split('@')[0]}@{round}"
    ids = chain([stem], (f"{stem}.{n}" for n in count(2)))
    made = best.model_copy(update={"id": next(id for id in ids if not memory.used(id)), "round": round, "sources": sources})
    why = f"says nearly the same as {best.id}"
    for one in group:
        memory.retire(one.id, round, why if one.id != best.id else "stands for others too from now on")
    memory.add([made])
    return [Curated(id=one.id, what="merged", why=why, merged=made.id) for one in group if one.id != best.id]
