"""AgentEvol: explore, add what was solved to all that was solved before, retrain from the base (Xi et al., 2406.04151).

Cells (ours): solution evolution, interactive; filtering, metric-based; in weights, replay.
Deviations: 1. it starts without the paper's expert trajectories, from what the base solves itself. 2. LoRA, not all weights.
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


def agent_evol(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 1,
    lora: LoraSettings = LoraSettings(epochs=1),
) -> Policy:
    """One round of exploring with the policy in place; one trajectory a task with reward above 0.99, of all rounds so far."""
    rollout(policy, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    solved = cap(keep(run.acquired(), at_least=0.99), 1)
    return finetune(policy, examples(solved), run, f"round-{run.round}", lora)
