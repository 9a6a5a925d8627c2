"""Self-generated demos: keep what was solved, recall it in later tasks, drop what does not help (Sarukkai et al., 2505.00234).

Cells (ours): solution evolution, interactive; feedback, environment; filtering, metric-based; in context, external memory.
Deviations: 1. identifier, authors and algorithm are from memory. 2. tasks are taken `batch` by batch, not one by one: a demo is
recalled from the next batch on. 3. of the paper's two ways to curate only the one by demo is here, not the one by whole
databases that compete; a demo is dropped when it did worse than the average over at least `enough` recalls, by attempts at
other tasks than its own, which favours demos near easy tasks; the paper ranks the demos of each task. 4. whole attempts are
recalled, once, by the nearness of the task's first text; the paper also recalls for single steps. 5. there are no demos by hand
to begin with; `nearest` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.records import Task, Trajectory
from agentevolve.refine import counted, demos, helpful
from agentevolve.run.folder import Run
from agentevolve.update import before, remember, rewrite


def self_demos(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    batch: Annotated[int, Field(ge=1)] = 8,
    nearest: Count = 3,
    enough: Count = 3,
) -> Policy:
    """Attempt the tasks by batches, each recalling what those before it solved; then keep the demos that help."""
    recall = policy.recall.by_nearness({"demo": nearest})
    acting, held, lived = remember(policy.using(recall=recall), [], run), before(run, "demo"), list[Trajectory]()
    for start in range(0, len(tasks), batch):
        attempts = rollout(acting, tasks[start : start + batch], run, phase=f"{run.round}/acquire/batch-{start // batch}")
        solved = demos(attempts, run.round)
        acting = remember(acting, solved, run)
        held, lived = held + solved, lived + attempts
    return rewrite(acting, helpful(counted(held, lived, run.round), enough=enough), run, "demo", "did not help")
