"""GRPO: learn from the good and the bad among several attempts at one task, each by how far it is from their mean (Shao et al.,
2402.03300).

Cells (ours): solution evolution, interactive; feedback, environment; filtering, metric-based; in weights, replay.
Deviations: 1. the outcome alone is rewarded, and one attempt of many turns is one output. 2. the acting policy's probabilities
are the trainer's own before its first step: the engine that acted has quantized weights, and is held to the admissible actions.
3. KL is the exact divergence from the base at the learnt tokens, and off unless `lora.kl` says otherwise; the paper estimates
that from its SFT model. 4. LoRA instead of all weights, with a larger learning rate. 5. no SFT before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import advantages
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune

CLIPPED = LoraSettings(objective="grpo", learning_rate=1e-4, epochs=1)


def grpo(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    groups: Count = 32,
    temperature: float = 1.0,
    lora: LoraSettings = CLIPPED,
) -> Policy:
    """One round: `samples` attempts at each task; those of at most `groups` tasks that were solved by some of them and not by
    others are rows, weighted by their advantages. Training goes on from the weights in place.
    """
    attempts = rollout(policy.using(temperature=temperature), tasks, run, phase=f"{run.round}/acquire", samples=samples)
    rows = examples(attempts, weights=advantages(attempts, groups=groups))
    return finetune(policy, rows, run, f"round-{run.round}", lora, start=policy.adapter)
