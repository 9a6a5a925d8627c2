"""FireAct: fine-tune on the successful trajectories of a stronger teacher (Chen et al., 2310.05915).

Cells (ours): solution evolution, interactive; filtering, metric-based; in weights, replay.
Deviations: 1. one prompting style; the paper mixes ReAct, CoT and Reflexion. 2. the teacher defaults to the world's oracle, so
that it runs without a key; name a model to use it instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task, Trajectory
from agentevolve.refine import best
from agentevolve.run.folder import Run
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
    learnt = examples(best(taught(policy, tasks, run, teacher, samples)))[:rows]
    return finetune(policy, learnt, run, f"round-{run.round}", lora)


def taught(policy: Policy, tasks: Sequence[Task], run: Run, teacher: str, samples: int = 1) -> list[Trajectory]:
    """The teacher's attempts at the tasks, asked as the student is."""
    acting = policy.using(model=teacher, adapter=None, memory=None)
    return rollout(acting, tasks, run, phase=f"{run.round}/acquire/teacher", samples=samples)
