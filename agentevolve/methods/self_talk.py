"""Self-Talk: two copies of a model talk, what succeeds is kept, and one of them learns from it (Ulmer et al., 2401.05033).

Cells (the survey's placement): solution evolution, self-play; filtering, metric-based.
Cells (ours): in weights, replay.
Deviations: 1. the paper's talk, of a client and an agent, is itself the task; here a player and a coach talk an environment's
task over, and the player then attempts it. 2. success is the environment's reward, not the share of a workflow's steps that a
dialogue went through. 3. the talk is not in the rows: the policy learns to act as if it had talked.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.acquire import talked_over
from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune


def self_talk(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    exchanges: Count = 2,
    samples: Count = 4,
    per_task: Count = 1,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """`samples` attempts at each task with the outcome of a talk in view; the shortest `per_task` solved ones are the rows."""
    hints = talked_over(policy, tasks, run, exchanges=exchanges)
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples, hints=hints)
    return finetune(policy, examples(best(attempts, per_task=per_task)), run, f"round-{run.round}", lora)
