"""Reflexion: try, say what went wrong, try the same task again with the last three such lessons (Shinn et al., 2303.11366).

Cells (the survey's placement): feedback, environment; in context, working memory.
Deviations: 1. `trials` default to 3 of the paper's 10. 2. Held-out tasks have no lessons of their own, so a held-out measurement
of the pure method equals the base: `transfer` recalls that many lessons of the nearest other tasks instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import reflect, split
from agentevolve.run.folder import Run
from agentevolve.update import remember


def reflexion(
    policy: Policy, tasks: Sequence[Task], run: Run, *, trials: Count = 3, last: Count = 3, transfer: Count = 0
) -> Policy:
    """`trials` attempts at each task until it is solved, each with the `last` reflections on that task and no others."""
    recall = policy.recall.by_nearness({"reflection": transfer}).model_copy(update={"own": {"reflection": last}})
    trying = policy.using(recall=recall.model_copy(update={"nearest": {}}))
    for trial in range(1, trials + 1):
        attempts = rollout(trying, tasks, run, phase=f"{run.round}/acquire/trial-{trial}")
        _, failed = split(attempts)
        trying = remember(trying, reflect(failed, policy, run), run)
        tasks = [one.task for one in failed]
    return trying.using(recall=recall)
