"""In context: entries go into the run's memory, and the policy recalls them (survey 2404.14387, section 6.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from agentevolve.memory import EntryMemory, load_embedder, open_memory
from agentevolve.policy import Policy
from agentevolve.records import Entry, Kind
from agentevolve.run.folder import Run


def memory_of(run: Run) -> EntryMemory:
    """The run's memory, open."""
    folder = run.folder / "memory"

    def opened() -> EntryMemory:
        chosen = load_embedder(run.embedder) if run.embedder and not folder.is_dir() else None
        return open_memory(folder, embedder=chosen)

    return run.part("memory", str(folder.resolve()), opened)


def remember(policy: Policy, entries: Sequence[Entry], run: Run) -> Policy:
    """The policy with `entries` in the run's memory, recalling everything up to the round under way."""
    memory = memory_of(run)
    memory.add(entries)
    if entries:
        ids = hashlib.sha256(json.dumps([entry.id for entry in entries]).encode()).hexdigest()[:12]
        run.spend(f"embed/{ids}", memory.cost(*{entry.key for entry in entries}))
    return policy.using(memory=str(memory.folder), as_of=run.round)


def remembered(run: Run, kind: Kind, env: str | None = None) -> list[Entry]:
    """The entries of a kind that are there as of the round under way, oldest first."""
    return memory_of(run).entries(run.round, kind, env)


def before(run: Run, kind: Kind) -> list[Entry]:
    """The entries of a kind as the round under way found them, oldest first: also when a killed round is run again."""
    return memory_of(run).entries(run.round - 1, kind)


def replace(policy: Policy, old: Sequence[Entry], new: Sequence[Entry], run: Run, why: str) -> Policy:
    """As `remember`, with `old` retired, whatever else there is.

    It says itself what goes, so that a round may do it several times, and a killed round do it again, with the same result.
    """
    for entry in old:  # first, or what says the same would only be a further source of what goes
        memory_of(run).retire(entry.id, run.round, why)
    return remember(policy, new, run)


def rewrite(policy: Policy, entries: Sequence[Entry], run: Run, kind: Kind, why: str) -> Policy:
    """As `remember`, and of this kind nothing else is recalled from this round on: what is not in `entries` is retired.

    An edited entry is a new one with an id of its own, so that earlier rounds stay as they were.
    """
    kept = {entry.id for entry in entries}
    for entry in remembered(run, kind):
        if entry.id not in kept:
            memory_of(run).retire(entry.id, run.round, why)
    return remember(policy, entries, run)
