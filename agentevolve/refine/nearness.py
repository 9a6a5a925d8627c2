"""Texts that say nearly the same, by the nearness of their vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentevolve.memory import EntryMemory, embedded_tokens
from agentevolve.records import Entry, Usage
from agentevolve.run import Run

if TYPE_CHECKING:
    from agentevolve.memory.embed import Vectors


def vectors(texts: Sequence[str], memory: EntryMemory, run: Run) -> Vectors:
    """The texts as unit vectors of the memory's embedding model, shape (len(texts), dim); the run pays for it."""
    if texts:
        mark = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:12]
        run.spend(f"embed/near/{mark}", Usage(embedded_tokens=embedded_tokens(*set(texts))))
    return memory.vectors(texts)


def distinct(new: Sequence[Entry], held: Sequence[Entry], memory: EntryMemory, run: Run, *, below: float = 0.9) -> list[Entry]:
    """Those new entries whose text is less like that of each held one, and of each new one before it, than this cosine.

    Entries of different environments are never alike.
    """
    rows = vectors([one.text for one in (*held, *new)], memory, run)
    kept = list(range(len(held)))
    everything = [*held, *new]
    for place in range(len(held), len(everything)):
        others = [other for other in kept if everything[other].env == everything[place].env]
        if all(float(rows[other] @ rows[place]) < below for other in others):
            kept.append(place)
    return [everything[place] for place in kept[len(held) :]]
