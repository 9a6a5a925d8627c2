"""ExpeL: gather with Reflexion, draw rules from contrasts and successes, recall both rules and successes (2308.10144).

Cells (ours): solution evolution, interactive; solution evolution, contrastive; correcting, critique-based;
in context, external memory.
Deviations: 1. the keys are embedded with all-MiniLM-L6-v2, the paper's with all-mpnet-base-v2.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.methods.reflexion import reflexion
from agentevolve.policy import Count, Policy
from agentevolve.records import Task
from agentevolve.refine import best_worst, demos, insights, keep
from agentevolve.run.folder import Run
from agentevolve.update import before, remember, rewrite


def expel(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    trials: Count = 3,
    batch: Count = 8,
    rules: Count = 20,
    nearest: Count = 2,
) -> Policy:
    """Reflexion's trials, then the rule list edited by each contrast and each `batch` of successes; at most `rules` rules."""
    reflexion(policy, tasks, run, trials=trials)
    lived = run.acquired(run.round)
    solved = keep(lived)
    batches = [solved[start : start + batch] for start in range(0, len(solved), batch)]
    rules_so_far = before(run, "insight")
    after = insights(best_worst(lived), batches, policy, run, rules_so_far, most=rules)
    policy = rewrite(policy, after, run, "insight", "outvoted or reworded")
    recall = policy.recall.by_nearness({"demo": nearest}).model_copy(update={"whole": ("insight",), "own": {}})
    return remember(policy, demos(solved, run.round), run).using(recall=recall)
