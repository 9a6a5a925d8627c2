"""Memento: keep every case, won or lost, and plan with the nearest ones (Zhou et al., 2508.16153, non-parametric).

Cells (ours): solution evolution, grounded; feedback, environment; in context, external memory.
Deviations: 1. the retriever is not trained. 2. the planner and the executor are one agent.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import cases
from agentevolve.run.folder import Run
from agentevolve.update import remember


def memento(policy: Policy, tasks: Sequence[Task], run: Run, *, nearest: Count = 4) -> Policy:
    """Act with the `nearest` cases in view, and write what happened, with its outcome, as a case."""
    acting = policy.using(recall=policy.recall.by_nearness({"case": nearest}))
    attempts = rollout(acting, tasks, run, phase=f"{run.round}/acquire")
    return remember(acting, cases(attempts, run.round), run)
