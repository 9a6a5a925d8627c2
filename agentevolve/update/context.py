"""In context: entries go into the run's memory, and the policy recalls them (survey 2404.14387, section 6.2)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from agentevolve.memory import EntryMemory, load_embedder, open_memory
from agentevolve.memory.form import OURS, faults, scripts_of
from agentevolve.policy import Policy
from agentevolve.records import Entry, Kind, Trajectory
from agentevolve.run.folder import REFUSED, Run


def memory_of(run: Run) -> EntryMemory:
    """The run's memory, open."""
    folder = run.folder / "memory"

    def opened() -> EntryMemory:
        chosen = load_embedder(run.embedder) if run.embedder and not folder.is_dir() else None
        return open_memory(folder, embedder=chosen)

    return run.part("memory", str(folder.resolve()), opened)


def remember(policy: Policy, entries: Sequence[Entry], run: Run) -> Policy:
    """The policy with `entries`, those that are `sound`, in the run's memory, recalling everything up to the round under way."""
    memory, entries = memory_of(run), sound(entries, run)
    memory.add(entries)
    if entries:
        ids = hashlib.sha256(json.dumps([entry.id for entry in entries]).encode()).hexdigest()[:12]
        run.spend(f"embed/{ids}", memory.cost(*{entry.key for entry in entries}))
    return policy.using(memory=str(memory.folder), as_of=run.round)


def sound(entries: Sequence[Entry], run: Run, instead: Sequence[Entry] = ()) -> list[Entry]:
    """Those that may be remembered: of words of a reflector, the ones whose form is that of words (memory/form.py).

    What is refused is journalled, with why, and said in one line; in its place come those of `instead` of its kind and world.
    """
    kept: list[Entry] = []
    refused: dict[str, list[str]] = {}
    for entry in entries:
        if why := [what for what, _ in faults(entry.kind, entry.text, _scripts(entry, run))] if entry.kind in OURS else []:
            refused[entry.id] = why
            kept += [one for one in instead if (one.kind, one.env) == (entry.kind, entry.env) and one not in kept]
        else:
            kept.append(entry)
    new = {id: why for id, why in refused.items() if REFUSED + id not in run.facts}
    for id, why in new.items():
        run.once(REFUSED + id, lambda why=why: why)  # type: ignore[misc]
    if new:
        print(f"round {run.round}: {not_remembered(new.values())}", file=sys.stderr)
    return kept


def not_remembered(refused: Iterable[Sequence[str]]) -> str:
    """How many entries were refused, and what was wrong with them."""
    reasons = [why for why, *_ in refused]
    told = ", ".join(f"{n} × {what}" for what, n in Counter(reasons).most_common())
    return f"not remembered for the form of their words: {len(reasons)} ({told})"


def _scripts(entry: Entry, run: Run) -> frozenset[str]:
    """The scripts that the attempts of the entry are written in; none where the run has none of them."""
    known = [run.trajectories[id] for id in entry.sources if id in run.trajectories]
    return scripts_of(text for one in known for text in _seen(one))


def _seen(one: Trajectory) -> Iterable[str]:
    return (one.prompt, *one.actions, *(text for turn in one.turns for text in (turn.action, turn.observation)))


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
    entries = sound(entries, run)
    kept = {entry.id for entry in entries}
    for entry in remembered(run, kind):
        if entry.id not in kept:
            memory_of(run).retire(entry.id, run.round, why)
    return remember(policy, entries, run)
