"""ReST meets ReAct: grow trajectories, let a model rank them, fine-tune on the best; no reward is seen (2312.10003).

Cells (the survey's placement): in weights, replay.
Cells (ours): feedback, model.
Deviations: 1. whole trajectories are ranked, not steps. 2. the judge is the policy's own model. 3. LoRA instead of all weights;
distilling into a smaller model is `fireact` with the result as its teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import cap, judge, keep
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune


def rest_react(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 4,
    at_least: Share = 0.6,
    temperature: float = 1.0,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """Grow `samples` attempts a task; improve on the best-judged one of each task, if its grade is `at_least` that."""
    grown = rollout(policy.using(temperature=temperature), tasks, run, phase=f"{run.round}/acquire", samples=samples)
    grades = judge(grown, policy, run)
    ranked = sorted(keep(grown, at_least=at_least, scores=grades), key=lambda one: -grades[one.id])
    return finetune(policy, examples(cap(ranked, 1), solved=False), run, f"round-{run.round}", lora)
