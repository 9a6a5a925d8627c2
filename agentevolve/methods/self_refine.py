"""Self-Refine: attempt, criticise the attempt oneself, attempt again with the criticism, until it is praised (2303.17651).

Cells (the survey's placement): feedback, model; correcting, critique-based.
Deviations: 1. an attempt at an agent's task is a whole trajectory. 2. the last attempt is kept as a demo, so that something of it
reaches other tasks; the paper keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task, Trajectory
from agentevolve.refine import critique, demos, judge
from agentevolve.run.folder import Run
from agentevolve.update import remember


def self_refine(policy: Policy, tasks: Sequence[Task], run: Run, *, tries: Count = 4, at_least: Share = 0.8) -> Policy:
    """Up to `tries` attempts at each task, each with the criticism of the one before; a grade of `at_least` that ends it."""
    hints: dict[str, str] = {}
    final: dict[str, Trajectory] = {}
    for number in range(1, tries + 1):
        attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire/try-{number}", hints=hints)
        final |= {one.task.id: one for one in attempts}
        grades = judge(attempts, policy, run)
        poor = [one for one in attempts if grades.get(one.id, 1.0) < at_least]
        hints, tasks = critique(poor, policy, run), [one.task for one in poor]
    return remember(policy, demos(list(final.values()), run.round), run)
