"""FireAct: fine-tune on the successful trajectories of a stronger teacher (Chen et al., 2310.05915).

Cells (ours): solution evolution, interactive; refinement, filtering, metric-based; in weights, replay.
Deviations: 1. one prompting style; the paper mixes ReAct, CoT and Reflexion. 2. the teacher defaults to the world's oracle, so
that it runs without a key; name a model to use it instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best
from agentevolve.rollout import rollout
from agentevolve.run import Run
from agentevolve.update import examples, finetune


def fireact(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    teacher: str = "oracle",
    samples: Count = 1,
    rows: Count = 500,
    lora: LoraSettings = LoraSettings(rank=8, alpha=16),
) -> Policy:
    """The `teacher` attempts every task; its shortest solutions, at most `rows`, are the student's training rows."""
    taught = rollout(
        Policy(model=teacher, temperature=policy.temperature), tasks, run, phase=f"{run.round}/acquire", samples=samples
    )
    return finetune(policy, examples(best(taught))[:rows], run, f"round-{run.round}", lora)
