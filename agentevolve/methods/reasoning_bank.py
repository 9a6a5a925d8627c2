"""ReasoningBank: what a judged success or failure teaches, as items found by the task they came from (2509.25140).

Cells (ours): feedback, model; correcting, critique-based; in context, external memory.
Deviations: 1. the judge and the extractor are the policy's own model. 2. keys are embedded with all-MiniLM-L6-v2. 3. no MaTTS.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import abstracted, judge, learnable
from agentevolve.run.folder import Run
from agentevolve.update import remember


def reasoning_bank(policy: Policy, tasks: Sequence[Task], run: Run, *, items: Count = 3, at_least: Share = 0.8) -> Policy:
    """Act with the items of the one nearest earlier task, judge, draw at most `items` from every attempt, append them."""
    recall = policy.recall.by_nearness({"insight": items})
    attempts = learnable(rollout(policy.using(recall=recall), tasks, run, phase=f"{run.round}/acquire"))
    grades = judge(attempts, policy, run)
    groups = [[one] for one in attempts]
    drawn = abstracted("insight", "bank", groups, policy, run, most=items, succeeded=lambda one: grades[one.id] >= at_least)
    return remember(policy, drawn, run).using(recall=recall)
