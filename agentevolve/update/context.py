"""In context: entries go into the run's memory, and the policy recalls them (survey 2404.14387, section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.memory import EntryMemory, open_memory
from agentevolve.policy import Policy
from agentevolve.records import Entry, Kind
from agentevolve.run import Run


def memory_of(run: Run) -> EntryMemory:
    """The run's memory, open."""
    folder = run.folder / "memory"
    memory: EntryMemory = run.part("memory", str(folder.resolve()), lambda: open_memory(folder))
    return memory


def remember(policy: Policy, entries: Sequence[Entry], run: Run) -> Policy:
    """The policy with `entries` in the run's memory, recalling everything up to the round under way."""
    memory = memory_of(run)
    memory.add(entries)
    return policy.using(memory=str(memory.folder), as_of=run.round)


def remembered(run: Run, kind: Kind, env: str | None = None) -> list[Entry]:
    """The entries of a kind that are there as of the round under way, oldest first."""
    return memory_of(run).entries(run.round, kind, env)


def rewrite(policy: Policy, entries: Sequence[Entry], run: Run, kind: Kind, why: str) -> Policy:
    """As `remember`, and of this kind nothing else is recalled from this round on: what is not in `entries` is retired.

    An edited entry is a new one with an id of its own, so that earlier rounds stay as they were.
    """
    kept = {entry.id for entry in entries}
    for entry in remembered(run, kind):
        if entry.id not in kept:
            memory_of(run).retire(entry.id, run.round, why)
    return remember(policy, entries, run)
