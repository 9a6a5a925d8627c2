"""RFT: fine-tune once on the different correct ways among many samples (Yuan et al., 2308.01825).

Cells (the survey's placement): in weights, replay.
Cells (ours): filtering, metric-based.
Deviations: 1. "different" means another sequence of actions; the paper compares lists of equations. 2. samples default to 16 of
the paper's 100. 3. there is no seed data to add the new rows to. 4. LoRA instead of all weights.
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


def rft(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 16,
    temperature: float = 0.7,
    lora: LoraSettings = LoraSettings(epochs=3),
) -> Policy:
    """`samples` attempts at each task; every different way that solved it is a row. Rounds after the first add theirs."""
    warm = policy.using(adapter=None, temperature=temperature)
    rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples)
    return finetune(policy, examples(cap(keep(run.acquired()), samples * run.round)), run, f"round-{run.round}", lora)
