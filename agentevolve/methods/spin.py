"""SPIN: prefer the expert's way to one's own of the round before, on the last two rounds' data (Chen et al., 2401.01335).

Cells (the survey's placement): solution evolution, contrastive.
Deviations: 1. the gold answers are the trajectories of an expert, by default the world's oracle. 2. it starts from the base, not
from a model fine-tuned on the gold answers. 3. LoRA instead of all weights, with a larger learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.methods.fireact import taught
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.refine import Pair, differing, learnable
from agentevolve.run.folder import Run
from agentevolve.update import finetune, mixed, preferences

PREFER = LoraSettings(objective="dpo", beta=0.1, learning_rate=5e-5, epochs=3)


def spin(policy: Policy, tasks: Sequence[Task], run: Run, *, expert: str = "oracle", lora: LoraSettings = PREFER) -> Policy:
    """The `expert`'s attempt is preferred to the policy's own, whatever its reward; the next adapter goes on from this one."""
    taught(policy, tasks, run, expert)
    rollout(policy, tasks, run, phase=f"{run.round}/acquire/own")
    lived = learnable(mixed(run, "window", window=2))
    gold = {one.task.id: one for one in lived if one.policy.model == expert}
    pairs = [Pair(gold[one.task.id], one) for one in lived if one.phase.endswith("/own") and one.task.id in gold]
    return finetune(policy, preferences(differing(pairs)), run, f"round-{run.round}", lora, start=policy.adapter)
