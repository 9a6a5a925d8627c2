"""Memory of Thought: think ahead several times, keep what the attempts agree on, recall different ones (Li & Qiu, 2305.05181).

Cells (the survey's placement): solution evolution, grounded; in context, external memory.
Cells (ours): filtering, metric-free.
Deviations: 1. `samples` default to 8 of the paper's 16. 2. an answer is the whole sequence of actions, so that long tasks rarely
agree. 3. in the paper the model picks for each question one of the nearest thoughts of each cluster; here each cluster's middle
is shown before every task of its environment, so that what is recalled does not depend on the task. 4. clusters are made by
k-means of the tasks' first texts, which all-MiniLM-L6-v2 embeds (the paper: all-mpnet-base-v2); attempts of all rounds count.
5. we are not sure that the paper's entropy is in nats, nor which attempt of the majority it keeps: here the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from agentevolve.act.rollout import rollout
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import settled, unverified, varied
from agentevolve.run.folder import Run
from agentevolve.update import memory_of, rewrite


def memory_of_thought(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    temperature: float = 1.2,
    entropy: Annotated[float, Field(ge=0)] = 0.3,
    clusters: Count = 4,
) -> Policy:
    """`samples` warm attempts at each task; of what they agree on one of each of `clusters` is shown. No reward is looked at."""
    rollout(policy.using(temperature=temperature), tasks, run, phase=f"{run.round}/acquire", samples=samples)
    thoughts = unverified(settled(run.acquired(), entropy=entropy), run.round)
    recall = policy.recall.model_copy(update={"whole": ("case",), "own": {}, "nearest": {}})
    shown = varied(thoughts, memory_of(run), run, clusters)
    return rewrite(policy, shown, run, "case", "another one of its cluster is shown").using(recall=recall)
