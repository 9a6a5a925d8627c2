"""Agent Workflow Memory: draw workflows from attempts that a judge calls successes, and show them (Wang et al., 2409.07429).

Cells (ours): feedback, model; filtering, metric-free; in context, external memory.
Deviations: 1. the judge is the policy's own model. 2. tasks are taken by rounds, not one by one as in the paper's online setting.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import abstracted, cap, judge, keep
from agentevolve.run.folder import Run
from agentevolve.update import remember


def workflow_memory(policy: Policy, tasks: Sequence[Task], run: Run, *, at_least: Share = 0.8, nearest: Count = 3) -> Policy:
    """Act, judge, draw a workflow from each attempt that was judged a success, recall the `nearest` ones."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire")
    praised = cap(keep(attempts, at_least=at_least, scores=judge(attempts, policy, run)), 1)
    drawn = abstracted("workflow", "workflow", [[one] for one in praised], policy, run, most=1, succeeded=lambda _: True)
    recall = policy.recall.by_nearness({"workflow": nearest})
    return remember(policy, drawn, run).using(recall=recall)
