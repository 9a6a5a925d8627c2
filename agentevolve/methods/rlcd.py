"""RLCD: prefer what was done when asked for care to what was done when asked for carelessness; nothing is scored (2307.12950).

Yang et al., 2023.
Cells (the survey's placement): solution evolution, perturbative.
Deviations: 1. DPO on the pairs; the paper trains a preference model on them and then runs PPO. 2. the two instructions are
about care with a task; the paper's are about being harmless, helpful or a good outline. 3. LoRA instead of all weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.acquire import perturbed
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import Pair, differing, learnable
from agentevolve.run.folder import Run
from agentevolve.update import finetune, preferences

PREFER = LoraSettings(objective="dpo", beta=0.1, learning_rate=5e-5, epochs=1)


def rlcd(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 1,
    temperature: float = 1.0,
    lora: LoraSettings = PREFER,
) -> Policy:
    """`samples` pairs a task; the careful attempt is preferred, whatever its reward, and neither instruction is in the rows."""
    careful, careless = perturbed(policy.using(temperature=temperature), tasks, run, samples=samples)
    pairs = [Pair(*both) for both in zip(careful, careless, strict=True) if len(learnable(both)) == 2]
    return finetune(policy, preferences(differing(pairs)), run, f"round-{run.round}", lora, start=policy.adapter)
