"""STaR: learn from what was solved, and from what is solved when the answer is known (Zelikman et al., 2203.14465).

Cells (the survey's placement): solution evolution, rationale-based; correcting, critique-free.
Deviations: 1. the hint is the world's own plan, since the answer to an agent's task is what to do. 2. LoRA, not all weights.
3. the number of training steps does not grow by a fifth each round.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.acquire import plans
from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.refine import keep, split
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune


def star(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    rationalize: bool = True,
    lora: LoraSettings = LoraSettings(epochs=1),
) -> Policy:
    """One round: attempt, `rationalize` the failed ones, fine-tune from the base on both; the hint is not in the rows."""
    solved, failed = split(rollout(policy, tasks, run, phase=f"{run.round}/acquire"))
    again = [one.task for one in failed] if rationalize else []
    hinted = rollout(policy, again, run, phase=f"{run.round}/acquire/hinted", hints=plans(again))
    return finetune(policy, examples(solved + keep(hinted)), run, f"round-{run.round}", lora)
