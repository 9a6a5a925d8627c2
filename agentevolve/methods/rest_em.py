"""ReST-EM: sample, keep what the environment calls solved, fine-tune from the base, again (Singh et al., 2312.06585).

Cells (the survey's placement): filtering, metric-based.
Cells (ours): in weights, replay.
Deviations: 1. the adapter is LoRA; the paper fine-tunes all weights. 2. samples default to 8 of the paper's 32 to 64.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import cap, keep
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune


def rest_em(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    per_task: Count = 10,
    temperature: float = 1.0,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """One round: expectation (`samples` attempts, at most `per_task` solved ones of each task) and maximisation."""
    warm = policy.using(temperature=temperature)
    solved = keep(rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples))
    return finetune(policy, examples(cap(solved, per_task)), run, f"round-{run.round}", lora)
