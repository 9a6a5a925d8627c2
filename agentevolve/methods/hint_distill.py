"""Hint distillation: act with retrieved entries in view, train on the actions without them (context distillation, 2209.15189).

Cells (ours): solution evolution, grounded; filtering, metric-based; in weights, replay.
Deviations: 1. what is distilled away is memory: demos of earlier rounds, or of the world's oracle in the first (`primer` tasks).
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.methods.fireact import taught
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best, demos
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune, remember


def hint_distill(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 4,
    primer: Count = 8,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """Attempts with memory in view; the solved ones, without what they recalled, are the rows. The result acts without memory."""
    seen = remember(policy, demos(taught(policy, tasks[:primer], run, "oracle"), run.round), run)
    solved = best(rollout(seen, tasks[primer:], run, phase=f"{run.round}/acquire/recalling", samples=samples))
    remember(seen, demos(solved, run.round), run)
    return finetune(policy, examples(solved), run, f"round-{run.round}", lora)
