"""From context into weights: what the weights know by now need not be shown any more (survey 2404.14387, section 6)."""

from __future__ import annotations

from pathlib import Path

from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.run.folder import Run
from agentevolve.update.context import memory_of

PROBE = "recall-free"
KINDS = ("demo", "reflection")


def absorbed(policy: Policy, run: Run, *, attempts: int = 1, most: int = 32) -> set[str]:
    """The ids of the tasks that were solved without memory, in all attempts, when last tried: none for a policy without adapter.

    Now `attempts` (0: nothing is done) are made at each of at most `most` tasks that demos or reflections of earlier rounds are
    about; where they succeed, those entries retire with the round under way: earlier rounds keep theirs. The same weights try
    a task once, and nobody learns from it.
    """
    if not policy.adapter or not attempts:
        return set()
    memory = memory_of(run)
    # the state before this round, which is the same when the round is resumed
    entries = [entry for kind in KINDS for entry in memory.entries(run.round - 1, kind)]
    sources = [(entry.task, source) for entry in entries for source in entry.sources[:1] if source in run.trajectories]
    tasks = {task: run.trajectories[source].task for task, source in sources if task}
    untried = sorted(tasks.keys() - _tried(run, Path(policy.adapter).name))
    chosen = run.rng(PROBE, run.round).sample(untried, min(most, len(untried)))
    bare = policy.using(memory=None, as_of=None)
    rollout(bare, [tasks[id] for id in chosen], run, phase=f"{run.round}/{PROBE}", samples=attempts)
    known = _known(run)
    for entry in entries:
        if entry.task in chosen and entry.task in known:
            memory.retire(entry.id, run.round, "absorbed by the weights")
    return known


def _tried(run: Run, adapter: str) -> set[str]:
    """The tasks that this adapter has tried without memory in earlier rounds."""
    phases = {f"{number}/{PROBE}" for number in range(1, run.round)}
    return {one.task.id for one in run.outcomes_of(phases.__contains__) if one.policy.adapter == adapter}


def _known(run: Run) -> set[str]:
    latest: dict[str, bool] = {}
    for number in range(1, run.round + 1):  # what a resumed run holds of later rounds does not count
        probed = list(run.outcomes_of(f"{number}/{PROBE}".__eq__))
        lost = {one.task.id for one in probed if not one.solved}
        latest |= {one.task.id: one.task.id not in lost for one in probed}
    return {task for task, solved in latest.items() if solved}
