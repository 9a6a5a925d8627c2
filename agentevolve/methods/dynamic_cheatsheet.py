"""Dynamic Cheatsheet: one sheet of notes, rewritten after each few tasks and shown in the next ones (Suzgun et al., 2504.07952).

Cells (ours): solution evolution, grounded; feedback, model; correcting, critique-based; in context, external memory.
Deviations: 1. the sheet is rewritten after each `batch` of tasks; the paper does so after every one. 2. this is the cumulative
sheet; the paper's other one, made for each task from the three most alike earlier ones, is not here. 3. the sheet is no longer
than what the policy recalls, and is cut at the end of a line if need be; the curator's prompt is ours. 4. each environment has a
sheet of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from agentevolve.act.rollout import rollout
from agentevolve.policy import Policy
from agentevolve.records import Task
from agentevolve.refine import curated
from agentevolve.run.folder import Run
from agentevolve.update import before, remember, replace, sound


def dynamic_cheatsheet(policy: Policy, tasks: Sequence[Task], run: Run, *, batch: Annotated[int, Field(ge=1)] = 4) -> Policy:
    """Attempt the tasks by batches, each with the sheet that was rewritten after the one before it; no reward is looked at."""
    recall = policy.recall.model_copy(update={"whole": ("sheet",), "own": {}, "nearest": {}})
    sheets = before(run, "sheet")
    policy = remember(policy.using(recall=recall), [], run)
    for start in range(0, len(tasks), batch):
        attempts = rollout(policy, tasks[start : start + batch], run, phase=f"{run.round}/acquire/batch-{start // batch}")
        after = sound(curated(sheets, attempts, policy, run), run, instead=sheets)
        policy = replace(policy, [one for one in sheets if one not in after], after, run, "rewritten")
        sheets = after
    return policy
