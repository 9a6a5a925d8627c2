"""Elastic Reset: train on, and reset the policy to a moving average of itself that starts at the base again (2312.07551).

Noukhovitch et al., 2023.
Cells (the survey's placement): in weights, regularisation.
Cells (ours): in weights, replay.
Deviations: 1. the paper's policy learns by PPO from a reward model, this one by imitation of what it solved. 2. the average is
taken after each epoch, with a `decay` of 0.5; the paper's is taken after each step, with 0.995. 3. it is cut to the adapter's
rank, so that the next round can go on from it. 4. `replay` above 0 mixes rows of the rounds before in, which the paper does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy, Share
from agentevolve.records import Task
from agentevolve.refine import best
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune, merged, replayed


def elastic_reset(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    temperature: float = 1.0,
    epochs: Count = 3,
    decay: Share = 0.5,
    replay: Share = 0.0,
    lora: LoraSettings = LoraSettings(epochs=1),
) -> Policy:
    """`epochs` trainings, each from the one before; their moving average acts, of which `decay` ** `epochs` is the base."""
    warm = policy.using(temperature=temperature)
    solved = best(rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples))
    rows, online, passed = replayed(examples(solved), policy, run, replay), policy, []
    for epoch in range(1, epochs + 1 if rows else 1):
        online = finetune(online, rows, run, f"round-{run.round}-{epoch}", lora, start=online.adapter)
        passed.append(online.adapter)
    weights = [(1 - decay) * decay ** (epochs - epoch) for epoch in range(1, epochs + 1)]
    return merged(policy, passed, run, f"round-{run.round}", weights=weights, rank=lora.rank)
