"""Voyager: a curriculum of the model's own, repairs by feedback and critique, a library of verified skills (2305.16291).

Cells (ours): task evolution, knowledge-based; task evolution, selective; feedback, environment; correcting, critique-based;
filtering, metric-based; in context, external memory; evaluation, qualitative.
Deviations: 1. a skill is a program of actions, not of code, and it is found by its task's first text, not by a description of
what it does. 2. verification is the environment's success, twice: as it is attempted and as its actions are replayed; in the
paper a model looks. 3. tasks are taken by rounds of `goals`, by default a fourth of the paper's 160 iterations, not one by one,
so that a skill is recalled from the next round on. 4. a proposal is the settings of a world, not a sentence; new tasks go before
the given ones. 5. the policy's own temperature; the paper's GPT-4 acts at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.acquire import earlier, grown, propose, select, validated
from agentevolve.act.rollout import rollout
from agentevolve.evaluate.diagnose import assess
from agentevolve.load import manual
from agentevolve.policy import Count, Policy
from agentevolve.records import Entry, Task
from agentevolve.refine import corrected, split, verified
from agentevolve.run.folder import Run
from agentevolve.update import remember


def voyager(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    goals: Count = 40,
    new: Count = 8,
    repairs: Count = 4,
    nearest: Count = 5,
) -> Policy:
    """Assess, propose at most `new` tasks, attempt `goals` in all, each up to `repairs` times again, keep verified skills."""
    pool, lived = grown(tasks, run), earlier(run)
    knowledge, objective = "\n".join(dict.fromkeys(manual(task.env) for task in tasks)), assess(lived, policy, run).objective
    proposed = validated(propose(policy, pool, run, new, knowledge=knowledge, objective=objective), pool, run)
    todo = select([*proposed, *pool], lived, goals)
    acting = policy.using(recall=policy.recall.by_nearness({"skill": nearest}))
    skills: list[Entry] = []
    hints: dict[str, str] = {}
    for number in range(repairs + 1):
        attempts = rollout(acting, todo, run, phase=f"{run.round}/acquire/try-{number}", hints=hints)
        solved, failed = split(attempts)
        skills += verified(solved, run.round)
        if number < repairs:
            hints, todo = corrected(failed, policy, run), [one.task for one in failed]
    return remember(acting, skills, run)
