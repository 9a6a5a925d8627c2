"""SELF: learn to criticise and refine oneself, then refine one's own attempts and learn from those (Lu et al., 2310.00533).

Cells (ours): feedback, model; filtering, metric-free; correcting, critique-based; in weights, replay.
Deviations: 1. the meta-skill is learnt from the policy's own feedback where it led to success; the paper's is written by a
stronger model. 2. what is refined is filtered by the policy's own grade, its feedback being free text. 3. later rounds go on from
the round before, with a share of what that was trained on; we are not sure that the paper's best variant does not start from
the base. 4. LoRA instead of all weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentevolve.act.rollout import rollout
from agentevolve.local.train import LoraSettings
from agentevolve.policy import Policy, Share
from agentevolve.records import Task, Trajectory
from agentevolve.refine import critique, judge, keep
from agentevolve.run.folder import Run
from agentevolve.update import examples, finetune, meta_skill, replayed


def self(
    policy: Policy,
    tasks: Sequence[Task],
    run: Run,
    *,
    at_least: Share = 0.8,
    replay: Share = 0.5,
    lora: LoraSettings = LoraSettings(),
) -> Policy:
    """A policy without an adapter learns the meta-skill first; then attempt, feedback, refined attempt.

    The refined attempts that were graded `at_least` that are the rows, without the feedback; a share `replay` of all rows is of
    what the adapter was trained on before.
    """
    if policy.adapter is None:
        attempts, refined = _refined(policy, tasks, run, "meta")
        policy = finetune(policy, meta_skill(attempts, refined), run, f"meta-{run.round}", lora)
    _, refined = _refined(policy, tasks, run, "self")
    kept = keep(refined, at_least=at_least, scores=judge(refined, policy, run))
    rows = replayed(examples(kept, solved=False), policy, run, replay)
    return finetune(policy, rows, run, f"round-{run.round}", lora, start=policy.adapter)


def _refined(policy: Policy, tasks: Sequence[Task], run: Run, part: str) -> tuple[list[Trajectory], list[Trajectory]]:
    """An attempt at each task, and another with the policy's own feedback on it in view."""
    attempts = rollout(policy, tasks, run, phase=f"{run.round}/acquire/{part}")
    feedback = critique(attempts, policy, run)
    return attempts, rollout(policy, tasks, run, phase=f"{run.round}/acquire/{part}-refined", hints=feedback)
