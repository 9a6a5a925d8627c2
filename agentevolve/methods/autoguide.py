"""AutoGuide: guidelines for a situation, from where a success and a failure part, found by that situation (2403.08978).

Cells (ours): solution evolution, interactive; solution evolution, contrastive; feedback, environment;
correcting, critique-based; in context, external memory.
Deviations: 1. guidelines are recalled once, before an attempt's first action and by the nearness of their situation to the task's
first text; the paper selects them at every step, by the situation that its model sees then. 2. a situation is told from what
came before the two attempts part, and a guideline from that and the two actions there; we are not sure that the paper shows
nothing after them. 3. the same situation told twice stays two: the paper asks its model whether it is a known one. 4. successes
and failures come from `samples` warm attempts at each task. 5. `nearest` is ours: we do not know the authors' value.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best_worst, differing, guidelines, keep
from agentevolve.run.folder import Run
from agentevolve.update import remember


def autoguide(
    policy: Policy, tasks: Sequence[Task], run: Run, *, samples: Count = 4, temperature: float = 1.0, nearest: Count = 3
) -> Policy:
    """`samples` attempts at each task, a guideline from each task's best success and worst failure, recall of the `nearest`."""
    warm = policy.using(temperature=temperature)
    attempts = rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    solved = {one.id for one in keep(attempts)}
    pairs = [pair for pair in differing(best_worst(attempts)) if pair.better.id in solved]
    recall = policy.recall.by_nearness({"insight": nearest})
    return remember(policy, guidelines(pairs, policy, run), run).using(recall=recall)
