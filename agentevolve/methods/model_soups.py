"""Model Soups: several trainings on the same rows with other settings, averaged into one adapter (2203.05482).

Wortsman et al., 2022.
Cells (the survey's placement): in weights, architecture.
Cells (ours): filtering, metric-based.
Deviations: 1. the uniform soup; the greedy one adds an ingredient only if held-out data say so, and here these are for the gate.
2. what is averaged is the adapters' changes to the weights, exactly, so the soup's rank is that of all together. 3. the
ingredients differ in learning rate and seed alone, and are few. 4. `drop` above 0 drops and rescales first, as in DARE
(2311.03099), which the paper does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune, merged

Rate = Annotated[float, Field(gt=0)]
Dropped = Annotated[float, Field(ge=0, lt=1)]


def model_soups(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    samples: Count = 8,
    temperature: float = 1.0,
    learning_rates: tuple[Rate, ...] = (2e-4, 5e-4, 1e-3),
    drop: Dropped = 0.0,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """The shortest solution of each task is a row; one adapter from the base for each learning rate; their average acts."""
    warm = policy.using(temperature=temperature)
    rows = examples(best(rollout(warm, tasks, run, phase=f"{run.round}/acquire", samples=samples)))
    if not rows:
        return policy
    recipes = [lora.model_copy(update={"learning_rate": rate}) for rate in learning_rates]
    soup = [finetune(policy, rows, run, f"round-{run.round}-{n}", recipe).adapter for n, recipe in enumerate(recipes, 1)]
    return merged(policy, soup, run, f"round-{run.round}", drop=drop)
