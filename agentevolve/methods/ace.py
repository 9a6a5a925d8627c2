"""ACE: a playbook of bullets that a reflector tags and a curator adds to, by deltas only (Zhang et al., 2510.04618).

Cells (ours): solution evolution, interactive; feedback, environment; feedback, model; correcting, critique-based;
in context, external memory.
Deviations: 1. as in the authors' public code the curator only adds; a bullet that was tagged harmful more often than helpful is
dropped, which is ours. 2. one reflection an attempt, of the paper's at most three. 3. the playbook grows after each round of
tasks, not after each task, though each of its deltas sees those before it. 4. the playbook is held to what the policy recalls,
500 tokens if nothing else is said, of the paper's 80,000: the bullets with the best balance stay. 5. bullets stand in no
sections, and their likeness is measured by the memory's embedding model.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy, Share
from agentevolve.records import Task
from agentevolve.refine import added, reflections, tagged, trusted
from agentevolve.run.folder import Run
from agentevolve.update import before, memory_of, remember, rewrite


def ace(policy: Policy, tasks: Sequence[Task], run: Run, *, alike: Share = 0.9) -> Policy:
    """Attempt with the playbook in view, tag its bullets, add what it lacks and has nothing `alike` of, drop the harmful."""
    recall = policy.recall.model_copy(update={"whole": ("insight",), "own": {}, "nearest": {}})
    bullets, policy = before(run, "insight"), remember(policy.using(recall=recall), [], run)
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire")
    said = reflections(attempts, bullets, policy, run)
    marked = tagged(bullets, attempts, said, run.round)
    grown = added(marked, attempts, said, policy, run, memory_of(run), below=alike)
    return rewrite(policy, trusted(grown, policy, run), run, "insight", "harmful, or no room")
