"""Self-Rewarding: judge one's own candidates, prefer the best to the worst, and go on from there (Yuan et al., 2401.10020).

Cells (the survey's placement): solution evolution, contrastive; feedback, model.
Deviations: 1. the tasks are the train tasks; give it `self_instruct`'s for new ones. 2. the judge has no training data.
3. LoRA instead of all weights, with a larger learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best_worst, judge
from agentevolve.run.folder import Run
from agentevolve.update import finetune, preferences

PREFER = LoraSettings(objective="dpo", beta=0.1, learning_rate=5e-5, epochs=1)


def self_rewarding(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 4,
    temperature: float = 0.7,
    lora: LoraSettings = PREFER,
) -> Policy:
    """`samples` candidates a task, graded by the policy itself; DPO on each task's best and worst, from the round before."""
    attempts = rollout(policy.using(temperature=temperature), tasks, run, phase=f"{run.round}/acquire", samples=samples)
    grades = judge(attempts, policy, run)
    rows = preferences(best_worst(attempts, lambda one: grades[one.id]))
    return finetune(policy, rows, run, f"round-{run.round}", lora, start=policy.adapter)
