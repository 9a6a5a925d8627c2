"""Evol-Instruct: known tasks made deeper or broader, what went wrong eliminated, the rest learnt from (WizardLM, 2304.12244).

Cells (the survey's placement): task evolution, knowledge-free.
Cells (ours): task evolution, selective; filtering, metric-based; in weights, replay.
Deviations: 1. a task is the settings of a world, so a rewrite changes one setting, one that the world takes. 2. those solved
about half the time are rewritten, `new` of them a round; the paper rewrites all, four times. 3. eliminated is what is the same
world or what the world's own solution does not solve; the paper asks a model. 4. the method that it `feeds` says what is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydantic import JsonValue

from agentevolve.acquire import earlier, grown, mutate, select, validated
from agentevolve.load import load_method
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.run.folder import Run


def evol_instruct(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    new: Count = 20,
    feeds: str = "rest_em",
    feeding: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Policy:
    """At most `new` tasks more, each from one with much to learn; the method `feeds`, set as in `feeding`, learns from all."""
    learner = load_method(feeds, feeding)
    pool = grown(tasks, run)
    chosen = select(pool, earlier(run), new)
    added = validated(mutate(policy, chosen, run), pool, run)
    learnt: Policy = learner(policy, [*pool, *added], run)
    return learnt
