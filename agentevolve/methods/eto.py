"""ETO: imitate an expert, then explore and prefer whichever of expert and agent did better (Song et al., 2403.02502).

Cells (the survey's placement): solution evolution, interactive; solution evolution, contrastive.
Deviations: 1. the expert defaults to the world's oracle. 2. LoRA instead of all weights, with a larger learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.methods.fireact import taught
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import against
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune, preferences

IMITATE = LoraSettings(epochs=3)
PREFER = LoraSettings(objective="dpo", beta=0.1, learning_rate=5e-5, epochs=1)


def eto(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    expert: str = "oracle",
    longer: Count = 5,
    imitate: LoraSettings = IMITATE,
    prefer: LoraSettings = PREFER,
) -> Policy:
    """A policy without an adapter first imitates the `expert`; then, every round, explore, pair by reward, and go on with DPO.

    A failed attempt is cut to `longer` turns more than the expert's.
    """
    shown = taught(policy, tasks, run, expert)
    if policy.adapter is None:
        policy = finetune(policy, examples(shown), run, f"imitation-{run.round}", imitate)
    explored = rollout(policy, tasks, run, phase=f"{run.round}/acquire/explore")
    rows = preferences(against(explored, shown), longer=longer)
    return finetune(policy, rows, run, f"round-{run.round}", prefer, start=policy.adapter)
