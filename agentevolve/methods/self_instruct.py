"""Self-Instruct: new tasks after the example of known ones, and learning from what is done about them (Wang et al., 2212.10560).

Cells (the survey's placement): task evolution, knowledge-free; filtering, metric-based.
Cells (ours): in weights, replay.
Deviations: 1. a task is the settings of a world, so the model writes settings. 2. near-duplicates are not told by ROUGE-L above
0.7, but by the world: the same settings, or the same start and solution. 3. the world's own solution must solve a new task; in
the paper nobody checks. 4. instead of the model's first answers, the method that it `feeds` says what is learnt. 5. 8 new tasks
a round; the paper goes on from 175 to 52,445.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydantic import JsonValue

from agentevolve.acquire import grown, propose, validated
from agentevolve.load import load_method
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.run.folder import Run


def self_instruct(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    new: Count = 8,
    feeds: str = "rest_em",
    feeding: Mapping[str, JsonValue] = MappingProxyType({}),
) -> Policy:
    """At most `new` tasks more than before; the method `feeds`, with its settings `feeding`, learns from all of them."""
    learner = load_method(feeds, feeding)
    pool = grown(tasks, run)
    added = validated(propose(policy, pool, run, new), pool, run)
    learnt: Policy = learner(policy, [*pool, *added], run)
    return learnt
